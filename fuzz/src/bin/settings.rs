//! Configuration files and variables: what resolves is a command line that clap accepts, and no text
//! makes the parser fail in another way than by an error.
#![no_main]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Arg, ArgAction, Command};
use libfuzzer_sys::fuzz_target;
use settings::Layers;

/// The one file of this process.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("fuzz-settings-{}", std::process::id())));

fn command() -> Command {
    let flag =
        |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("serve").args([
        flag("config", "FILE"),
        flag("queue-limit", "N").value_parser(clap::value_parser!(u32)).default_value("10"),
        flag("root", "DIR").default_value("/tmp/x"),
        flag("platform", "NAME=VALUE").action(ArgAction::Append),
        flag("host", "DIR").num_args(0..=1).require_equals(true).default_missing_value("/"),
        Arg::new("print").long("print").action(ArgAction::SetTrue),
    ])
}

fuzz_target!(|input: (&str, &str)| {
    let (text, variable) = input;
    let variables = vec![format!("ACTIOND_{variable}")];
    std::fs::write(&*FILE, text).expect("the file can be written");
    let variable = |name: &str| match name {
        "ACTIOND_CONFIG" => Some(OsString::from(&*FILE)),
        "ACTIOND_PLATFORM" if !variable.is_empty() => Some(OsString::from(variable)),
        _ => None,
    };
    let layers =
        Layers { command: command(), flags: Vec::new(), variables, variable: &variable, user: 0 };
    let resolved = layers.resolve();
    let _ = std::fs::remove_file(&*FILE);
    match resolved {
        Ok(resolved) => {
            let words = [OsString::from("serve")].into_iter().chain(resolved.words);
            if let Err(error) = command().try_get_matches_from(words) {
                panic!("{error}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
