//! The configuration of `serve`, from its files, the environment and the flags, and the verb that
//! shows it.
//!
//! The daemon reads all layers again when it gets SIGHUP. Some settings then change at once; for
//! the others the log says that they need a restart.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use settings::{Layers, Resolved};

use crate::cli::{Cli, Command, ConfigArgs, ConfigVerb, ServeArgs};
use crate::output::{print, tell};
use crate::{doors, logging};

/// The verb whose flags are the settings.
const VERB: &str = "serve";

/// Settings that change at SIGHUP; all others need a restart.
const RELOADED: [&str; 10] = [
    "cas_size",
    "default_timeout_ms",
    "drain_timeout_ms",
    "lease",
    "log",
    "max_timeout_ms",
    "orphan_grace_ms",
    "output_entries_limit",
    "queue_limit",
    "stream_limit_bytes",
];

/// The settings of a running `serve`, and how to read them again.
#[derive(Debug)]
pub struct Configuration {
    /// The settings.
    pub arguments: ServeArgs,
    resolved: Resolved,
    flags: Vec<OsString>,
}

impl Configuration {
    /// Resolves files, environment and `flags`, the words after `serve`.
    ///
    /// # Errors
    /// The first mistake in any layer.
    pub fn load(flags: Vec<OsString>) -> anyhow::Result<Self> {
        let cli = Cli::command();
        let command = cli.find_subcommand(VERB).context("the verb is declared")?.clone();
        let variable = |name: &str| std::env::var_os(name);
        let user = rustix::process::geteuid().as_raw();
        let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
        let variables = names.collect();
        let layers = Layers { command, flags: flags.clone(), variable: &variable, variables, user };
        let resolved = layers.resolve()?;
        let words = ["linux-actiond", VERB].map(OsString::from);
        let words = words.into_iter().chain(resolved.words.iter().cloned());
        match Cli::try_parse_from(words)?.command {
            Command::Serve(arguments) => {
                logging::check(&arguments.log.log)?;
                doors::tls_files(&arguments)?;
                arguments.upstream.check_tls(None)?;
                Ok(Self { arguments: *arguments, resolved, flags })
            }
            _ => anyhow::bail!("the words of {VERB} are another verb's"),
        }
    }

    /// Warns of files that were left out, and of variables that set nothing.
    pub(crate) fn warn(&self) {
        for variable in &self.resolved.unknown_variables {
            tracing::warn!("{variable}");
        }
        for path in &self.resolved.out_of_reach {
            tracing::warn!("{}", out_of_reach(path));
        }
    }

    /// Reads all layers again, and takes over what can change while the daemon runs.
    ///
    /// # Errors
    /// The first mistake in any layer. Everything then stays as it was.
    pub(crate) fn reload(&mut self) -> anyhow::Result<Changes> {
        let new = Self::load(self.flags.clone())?;
        let changes = Changes::between(&self.resolved, &new.resolved);
        *self = new;
        Ok(changes)
    }
}

fn out_of_reach(path: &Path) -> String {
    format!(
        "the configuration file {} is left out, for this user may not enter its directory; set HOME or name a file \
         with --config",
        path.display()
    )
}

/// The keys of settings that differ between two configurations.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Those that apply at once.
    pub(crate) now: Vec<String>,
    /// Those that apply after a restart.
    pub(crate) after_restart: Vec<String>,
}

impl Changes {
    fn between(old: &Resolved, new: &Resolved) -> Self {
        let pairs = old.settings.iter().zip(&new.settings);
        let changed = pairs.filter(|(old, new)| old.values != new.values);
        let (now, after_restart) = changed
            .map(|(_, new)| new.key.clone())
            .partition(|key| RELOADED.contains(&key.as_str()));
        Self { now, after_restart }
    }
}

/// Checks or shows the configuration that `serve` with the same flags would have.
///
/// # Errors
/// The first mistake in any layer.
pub fn run(arguments: &ConfigArgs, flags: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let resolved = Configuration::load(flags)?.resolved;
    match arguments.verb {
        ConfigVerb::Check(_) => {
            let files: Vec<_> =
                resolved.files.iter().map(|path| path.display().to_string()).collect();
            let files = if files.is_empty() { "no file".to_owned() } else { files.join(", ") };
            print(&format!("the configuration is valid ({files})\n"))?;
            for path in &resolved.out_of_reach {
                tell(out_of_reach(path));
            }
            for variable in &resolved.unknown_variables {
                tell(variable);
            }
        }
        ConfigVerb::Show(_) => print(&resolved.to_string())?,
    }
    Ok(ExitCode::SUCCESS)
}
