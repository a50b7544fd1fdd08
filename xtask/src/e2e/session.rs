//! A shell inside a client's root, in which the client's programs and background servers live.
//!
//! The root is read-only; the client writes to one folder, mounted at [`CLIENT_FOLDER`]. It shares the
//! host's network, and has a PID namespace of its own: when the session goes, all of it goes, also
//! when the test is killed.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result};

use super::debian_root::CLIENT_FOLDER;

/// Runs each line it reads as a script of its own, and answers with the exit code.
const LOOP: &str = r#"while IFS= read -r script; do
  bash -c "$script" < /dev/null > /client/stdout 2> /client/stderr
  echo "$?"
done"#;

/// No command of a client may take longer, in seconds.
const TIME_LIMIT: u32 = 900;

pub(super) struct Session {
    shell: Child,
    scripts: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
    /// The signal for a command at the end of its time, 10 s before it is killed.
    signal: &'static str,
}

/// The outcome of a command.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) exit_code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Session {
    /// `folder` appears at [`CLIENT_FOLDER`].
    pub(super) fn open(root: &Path, folder: &Path) -> Result<Self> {
        Self::open_through(Command::new("bwrap"), None, root, folder)
    }

    /// The same with a command that ends with `bwrap`, to which the arguments of that are added. A `shared` folder
    /// below `/tmp` appears under its own name.
    pub(super) fn open_through(
        mut command: Command,
        shared: Option<&Path>,
        root: &Path,
        folder: &Path,
    ) -> Result<Self> {
        fs::create_dir_all(folder.join("home"))?;
        command.args(["--die-with-parent", "--unshare-pid", "--new-session"]);
        command.arg("--ro-bind").arg(root).arg("/");
        command.args([
            "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/run", "--tmpfs",
            "/var/tmp",
        ]);
        if let Some(shared) = shared {
            command.arg("--bind").args([shared, shared]);
        }
        command.arg("--bind").arg(folder).arg(CLIENT_FOLDER).args(["--chdir", CLIENT_FOLDER]);
        command.args([
            "--clearenv",
            "--setenv",
            "PATH",
            "/usr/bin:/bin",
            "--setenv",
            "LANG",
            "C.UTF-8",
        ]);
        command.args(["--setenv", "HOME", "/client/home", "bash", "-c", LOOP]);
        let mut shell = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start bwrap")?;
        let scripts = shell.stdin.take().context("the shell reads scripts")?;
        let answers = BufReader::new(shell.stdout.take().context("the shell answers")?);
        let scripts = Some(scripts);
        Ok(Self { shell, scripts, answers, folder: folder.to_owned(), signal: "TERM" })
    }

    /// Has commands that take too long get that signal first.
    pub(super) fn stop_with(mut self, signal: &'static str) -> Self {
        self.signal = signal;
        self
    }

    /// Ends it in order, and gives what its command ended with.
    pub(super) fn close(self) -> Result<ExitStatus> {
        let mut this = self;
        // The end of its input ends the loop.
        this.scripts = None;
        this.shell.wait().context("waiting for the session")
    }

    pub(super) fn run(&mut self, working_directory: &str, words: &[String]) -> Result<Finished> {
        self.start(working_directory, words)?;
        self.finish()
    }

    /// Starts a command; [`Session::finish`] must follow before the next.
    pub(super) fn start(&mut self, working_directory: &str, words: &[String]) -> Result<()> {
        let command: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        let directory = quoted(working_directory);
        let scripts = self.scripts.as_mut().context("the session is closed")?;
        writeln!(
            scripts,
            "cd {directory} && exec timeout --signal={} --kill-after=10 {TIME_LIMIT} {}",
            self.signal,
            command.join(" ")
        )?;
        scripts.flush().context("the session is gone")
    }

    pub(super) fn finish(&mut self) -> Result<Finished> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let exit_code =
            answer.trim().parse().context("the session ended in the middle of a command")?;
        let read = |name: &str| -> Result<String> {
            Ok(String::from_utf8_lossy(&fs::read(self.folder.join(name))?).into_owned())
        };
        Ok(Finished { exit_code, stdout: read("stdout")?, stderr: read("stderr")? })
    }
}

impl Finished {
    /// Whether it took too long: `timeout` says 124, or 137 when it had to kill the command.
    pub(super) fn is_late(&self) -> bool {
        matches!(self.exit_code, 124 | 137)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Killing bwrap kills PID 1 of the session's namespace, and with it everything inside.
        let _already_gone = self.shell.kill();
        let _reaped = self.shell.wait();
    }
}

/// One word for a shell, whatever is in it but a line break.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let word = r#"it's "$HOME" \ *"#;
        let printed = Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {}", quoted(word)))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(printed.stdout).unwrap(), word);
    }
}
