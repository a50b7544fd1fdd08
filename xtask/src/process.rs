//! Runs other programs: says what failed, and becomes root for what needs it.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

/// The caller's variables that a program needs when it runs as root through sudo. sudo clears the
/// environment; only these come along. `PATH` is handled on its own.
const KEPT_VARIABLES: [&str; 2] = ["HOME", "CI"];
const KEPT_PREFIXES: [&str; 4] = ["CARGO", "RUST", "ACTIOND_", "XDG_"];

/// Where Debian keeps mkfs, losetup and the like, which is not in a user's `PATH`.
const ADMINISTRATORS_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// This program, for the parts of a verb that go on in a process of their own.
///
/// The path is that of the first call, which `main` makes at once: cargo may replace the file while a
/// verb runs, and the kernel then calls the running one deleted.
pub fn this_program() -> Result<&'static Path> {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PATH.get() {
        return Ok(path);
    }
    let path = env::current_exe().context("cannot tell which program this is")?;
    Ok(PATH.get_or_init(|| path))
}

/// The cargo that runs this verb.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// `program` as root: itself where we are root already, else through sudo.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    let path = format!("PATH={}:{ADMINISTRATORS_PATH}", env::var("PATH").unwrap_or_default());
    let mut command = if is_root() { Command::new("env") } else { Command::new("sudo") };
    if !is_root() {
        command.arg("env");
    }
    command.arg(path);
    for (name, value) in env::vars_os() {
        let kept = name.to_str().is_some_and(|name| {
            KEPT_VARIABLES.contains(&name)
                || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        });
        if kept {
            let mut assignment = name;
            assignment.push("=");
            assignment.push(value);
            command.arg(assignment);
        }
    }
    command.arg(program);
    command
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    // This crate's library has few dependencies, and the standard library tells no user: the folder of a
    // process in /proc belongs to its effective user.
    fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0)
}

/// Runs to the end with the terminal as it is; another exit code than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    ensure!(status.success(), "{} failed: {status}", shown(command));
    Ok(())
}

/// Runs to the end and gives what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    ensure!(output.status.success(), "{} failed: {}", shown(command), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", shown(command)))
}

/// Becomes the program. Returns only the reason why it could not.
pub fn become_program(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    anyhow::Error::new(error).context(format!("cannot become {}", shown(command)))
}

/// Whether `program` is in `PATH`, or where administrators keep theirs.
pub fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

/// The path of `program` in `PATH`, or where administrators keep theirs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(ADMINISTRATORS_PATH.split(':'));
    folders.map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

/// The program and its arguments, near enough for a message: without the environment that
/// [`as_root`] spells out.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(OsStr::to_string_lossy);
    let told = words.filter(|word| word.starts_with('-') || !word.contains('='));
    told.collect::<Vec<_>>().join(" ")
}
