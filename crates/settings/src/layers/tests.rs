//! Every setting in every layer, and mistakes in each.

use std::collections::HashMap;

use clap::Parser as _;

use super::*;

#[derive(Debug, clap::Parser, PartialEq, Eq)]
#[command(name = "serve")]
struct Example {
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, default_value_t = 10)]
    queue_limit: u32,
    #[arg(long, default_value = "/tmp/x")]
    root: PathBuf,
    #[arg(long)]
    platform: Vec<String>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "/")]
    allow_host_rootfs: Option<PathBuf>,
    #[arg(long)]
    print: bool,
    #[arg(long, conflicts_with = "image")]
    directory: Option<PathBuf>,
    #[arg(long)]
    image: Option<PathBuf>,
}

/// The settings from a file's text, variables and flags, or the error's text.
fn resolve(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[&str],
) -> Result<(Example, Resolved), String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let variables: HashMap<String, OsString> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
        .chain([("ACTIOND_CONFIG".to_owned(), path.clone().into())])
        .collect();
    let layers = Layers {
        command: <Example as clap::CommandFactory>::command(),
        flags: flags.iter().map(OsString::from).collect(),
        variable: &|name| variables.get(name).cloned(),
        variables: variables.keys().cloned().collect(),
        user: std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&path).unwrap()),
    };
    let resolved = layers
        .resolve()
        .map_err(|error| error.to_string().replace(&*path.to_string_lossy(), "FILE"))?;
    let words = std::iter::once(OsString::from("serve")).chain(resolved.words.iter().cloned());
    Ok((Example::try_parse_from(words).unwrap(), resolved))
}

fn origin(resolved: &Resolved, key: &str) -> Origin {
    resolved.settings.iter().find(|setting| setting.key == key).unwrap().origin.clone()
}

#[test]
fn a_flag_goes_before_a_variable_before_a_file_before_the_default() {
    let file = "queue_limit = 20\n";
    let variable = [("ACTIOND_QUEUE_LIMIT", "30")];
    let check = |file: &str, variables: &[(&str, &str)], flags: &[&str], expected, from: &str| {
        let (example, resolved) = resolve(file, variables, flags).unwrap();
        assert_eq!(example.queue_limit, expected);
        let origin = origin(&resolved, "queue_limit").to_string();
        assert!(origin.ends_with(from), "{origin}");
    };
    check("", &[], &[], 10, "default");
    check(file, &[], &[], 20, "config.toml:1");
    check(file, &variable, &[], 30, "variable ACTIOND_QUEUE_LIMIT");
    check(file, &variable, &["--queue-limit=40"], 40, "flag");
    check(file, &variable, &["--queue-limit", "40"], 40, "flag");
    check(file, &[], &["--queue-limit", "10"], 10, "flag");
}

#[test]
fn lists_are_replaced_and_not_joined() {
    let file = "platform = ['a=1', 'b=2']";
    let platform = |variables: &[(&str, &str)], flags: &[&str]| {
        resolve(file, variables, flags).unwrap().0.platform.join(" ")
    };
    assert_eq!(platform(&[], &[]), "a=1 b=2");
    assert_eq!(platform(&[("ACTIOND_PLATFORM", "c=3,d=4")], &[]), "c=3 d=4");
    assert_eq!(platform(&[], &["--platform=e=5"]), "e=5");
    assert_eq!(resolve("platform = 'a'", &[], &[]).unwrap().0.platform, ["a"]);
    assert!(resolve("platform = []", &[], &[]).unwrap().0.platform.is_empty());
}

#[test]
fn switches_and_optional_values() {
    let rootfs = |file: &str| resolve(file, &[], &[]).unwrap().0.allow_host_rootfs;
    assert_eq!(rootfs("allow_host_rootfs = true"), Some("/".into()));
    assert_eq!(rootfs("allow_host_rootfs = '/srv'"), Some("/srv".into()));
    assert_eq!(rootfs("allow_host_rootfs = false"), None);
    let print = |variables: &[(&str, &str)]| resolve("", variables, &[]).unwrap().0.print;
    assert!(print(&[("ACTIOND_PRINT", "true")]) && print(&[("ACTIOND_PRINT", "1")]));
    assert!(!print(&[("ACTIOND_PRINT", "false")]));
    let off = [("ACTIOND_ALLOW_HOST_ROOTFS", "0")];
    assert_eq!(resolve("allow_host_rootfs = true", &off, &[]).unwrap().0.allow_host_rootfs, None);
}

#[test]
fn what_excludes_another_setting_overrides_it() {
    let (example, resolved) = resolve("directory = '/d'", &[], &["--image=/i"]).unwrap();
    assert_eq!((example.directory, example.image), (None, Some("/i".into())));
    assert_eq!(origin(&resolved, "directory"), Origin::Default);
    let (example, _) = resolve("image = '/i'", &[("ACTIOND_DIRECTORY", "/d")], &[]).unwrap();
    assert_eq!((example.directory, example.image), (Some("/d".into()), None));
    // Of one layer, none goes before the other.
    assert!(resolve("directory = '/d'\nimage = '/i'", &[], &[]).is_err());
}

#[test]
fn mistakes_name_their_place() {
    let check = |file: &str, variables: &[(&str, &str)], expected: &[&str]| {
        let error = resolve(file, variables, &[]).unwrap_err();
        for part in expected {
            assert!(error.contains(part), "`{part}` in: {error}");
        }
    };
    check("\nqueue-limit = 1", &[], &["FILE:2", "queue-limit", "did you mean queue_limit?"]);
    check("queue_limits = 1", &[], &["FILE:1", "did you mean queue_limit?"]);
    check("zzz = 1", &[], &["FILE:1", "zzz: there is no such setting"]);
    check("config = '/other'", &[], &["config: there is no such setting"]);
    check("help = true", &[], &["help: there is no such setting"]);
    check("root = '/x'\nqueue_limit = 'many'", &[], &["FILE:2", "queue_limit", "many"]);
    check("queue_limit = [1, 2]", &[], &["FILE:1", "queue_limit", "one value"]);
    check("queue_limit = true", &[], &["FILE:1", "queue_limit", "expected a value"]);
    check("print = 'yes'", &[], &["FILE:1", "print", "true or false"]);
    check("queue_limit = -1", &[], &["FILE:1", "queue_limit"]);
    check("root = ", &[], &["FILE:1"]);
    check("", &[("ACTIOND_QUEUE_LIMIT", "x")], &["variable ACTIOND_QUEUE_LIMIT", "queue_limit"]);
    check("", &[("ACTIOND_QUEUE_LIMITS", "1")], &["did you mean ACTIOND_QUEUE_LIMIT?"]);
    check("", &[("ACTIOND_CONFGI", "/x")], &["did you mean ACTIOND_CONFIG?"]);
    let (_, resolved) = resolve("", &[("ACTIOND_VERSION", "1")], &[]).unwrap();
    assert_eq!(resolved.unknown_variables[0].name, "ACTIOND_VERSION");
    // A mistake is told although something else overrides it.
    assert!(resolve("queue_limit = 'x'", &[], &["--queue-limit=1"]).is_err());
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let resolve = |flags: &[&str]| {
        let layers = Layers {
            command: <Example as clap::CommandFactory>::command(),
            flags: flags.iter().map(OsString::from).collect(),
            variable: &|_| None,
            variables: Vec::new(),
            user: 0,
        };
        layers.resolve()
    };
    let error = resolve(&["--config=/nowhere/at/all.toml"]).unwrap_err();
    assert!(matches!(error, Error::File(FileError::Read { .. })), "{error}");
    assert!(matches!(resolve(&["--no-such-flag"]), Err(Error::Flag(_))));
}

/// As another user than root, for whom no mode closes anything; in a process of its own.
#[test]
fn a_home_of_another_user_is_left_out_and_a_closed_file_is_not() {
    const HOME: &str = "ACTIOND_TEST_HOME";
    let resolve = |home: &Path| {
        let home = home.to_owned();
        let layers = Layers {
            command: <Example as clap::CommandFactory>::command(),
            flags: Vec::new(),
            variable: &|name| (name == "XDG_CONFIG_HOME").then(|| home.clone().into()),
            variables: Vec::new(),
            user: 65534,
        };
        layers.resolve()
    };
    if let Some(home) = std::env::var_os(HOME).map(PathBuf::from) {
        let resolved = resolve(&home.join("closed")).unwrap();
        assert_eq!(resolved.out_of_reach, [home.join("closed/actiond/config.toml")]);
        let denied = resolve(&home.join("open")).unwrap_err();
        assert!(matches!(denied, Error::File(FileError::Denied(_))), "{denied}");
        assert!(denied.to_string().contains("--config"), "{denied}");
        return;
    }
    if !std::fs::metadata("/proc/self")
        .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
    {
        eprintln!("SKIPPED: only root can become another user");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let close = |path: &Path, mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    close(directory.path(), 0o755);
    for name in ["open", "closed"] {
        let folder = directory.path().join(name).join("actiond");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.toml");
        std::fs::write(&file, "queue_limit = 20").unwrap();
        close(&file, 0o600);
    }
    close(&directory.path().join("closed"), 0o700);
    let name = std::thread::current().name().unwrap().to_owned();
    // The other user may not be able to enter the directory of this program.
    let program = directory.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = std::process::Command::new(program);
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    let output = command.args(["--exact", &name]).env(HOME, directory.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    let file = "queue_limit = 20\nplatform = ['a=1', 'b=2']\nallow_host_rootfs = true\n";
    let variables = [("ACTIOND_ROOT", "/a \"b\"")];
    let (example, resolved) = resolve(file, &variables, &["--print"]).unwrap();
    let shown = resolved.to_string();
    for part in ["config.toml:1", "variable ACTIOND_ROOT", "# flag", "# default"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let (again, _) = resolve(&shown, &[], &[]).unwrap();
    assert_eq!(again, example);
}
