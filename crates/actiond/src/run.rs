//! The verb `run`: one command with a server of its own, or with one that runs already.
//!
//! ```text
//!  linux-actiond run ─┬─ starts ──► linux-actiond serve   (a process group of its own)
//!                     │               standard error ──► lines, "serving on …"
//!                     │               standard input ◄── open for as long as this runs
//!                     └─ starts ──► the command, with ACTIOND_ENDPOINT
//! ```
//!
//! The server is a child process of the same executable: what `serve` needs and how it sets itself up
//! is not known here. It ends when the command does, and also when this process is killed, for its standard
//! input then ends. By default its store is in a temporary directory, and it listens on a socket there,
//! which only the user who runs this can connect to.
//!
//! The exit status is that of the command, or as shells and `timeout` have it: 128 and the number of the
//! signal that killed it, 127 for a command that is not there, 126 for one that can't be executed, and
//! 125 when this verb itself fails.
//!
//! - [`arguments`]: the flags, and those that the server gets.
//! - [`child`]: a child process that can be waited for along with other things.
//! - [`server`]: the server as a child process.
//! - [`signals`]: the signals that are passed on.
//!
//! [`tally`](crate::tally) is the server's side: what it counts, and when it ends.

mod arguments;
mod child;
mod server;
mod signals;

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Instant;

use anyhow::Context as _;

use self::arguments::Words;
use self::child::ChildProcess;
use self::server::Server;
use self::signals::Signals;
use crate::cli::RunArgs;
use crate::configuration::Configuration;
use crate::doors::{self, OpenEndpoint};
use crate::output::tell;
use crate::{bazelrc, cli};

/// The exit code when the verb fails, and not the command.
const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The variable of the command's environment with the endpoint of the server, as Bazel's
/// `--remote_executor` takes it.
const ENDPOINT: &str = "ACTIOND_ENDPOINT";

/// Runs the verb, given its words on the command line.
pub fn run(arguments: &RunArgs, words: Vec<OsString>) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting to wait for events")
        .and_then(|runtime| runtime.block_on(run_command(arguments, Words::split(words))));
    outcome.unwrap_or_else(|error| {
        tell(format_args!("linux-actiond: {error:#}"));
        ExitCode::from(FAILED)
    })
}

async fn run_command(arguments: &RunArgs, words: Words) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let mut signals = Signals::listen()?;
    if arguments.shared {
        let settings = Configuration::load(words.of_serve)?.arguments;
        let endpoint = doors::first_place(&settings)?;
        bazelrc::connect(&endpoint.endpoint)
            .with_context(|| {
                format!(
                    "--shared: no server is at {}; start one with `linux-actiond serve`, name the place of another with \
                     --listen, or leave out --shared for a server of this command's own",
                    endpoint.endpoint
                )
            })?;
        let session = Session::begin(arguments, &endpoint, &settings)?;
        let status = session.run(&mut signals, None).await?;
        let seconds = began.elapsed().as_secs_f64();
        summarize(&format!("on the server at {}", endpoint.endpoint), seconds, status);
        return Ok(status.code());
    }
    let mut server = match Server::start(words.of_serve, &mut signals).await? {
        Ok(server) => server,
        // Somebody does not want it any more.
        Err(signal) => return Ok(ExitCode::from(signals::exit_code(signal))),
    };
    let session = Session::begin(arguments, &server.endpoint, &server.settings);
    let status = match &session {
        Ok(session) => session.run(&mut signals, Some(&mut server)).await,
        Err(_) => Ok(Status::Failed),
    };
    let seconds = began.elapsed().as_secs_f64();
    let tally = server.end(&mut signals).await;
    session?;
    let status = status?;
    summarize(&tally, seconds, status);
    Ok(status.code())
}

/// The end of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ended(ExitStatus),
    NotFound,
    NotExecutable,
    Failed,
}

impl Status {
    fn number(self) -> u8 {
        match self {
            Self::Ended(status) => match (status.code(), status.signal()) {
                (Some(code), _) => code as u8,
                (None, Some(signal)) => signals::exit_code(signal),
                (None, None) => FAILED,
            },
            Self::NotFound => NOT_FOUND,
            Self::NotExecutable => NOT_EXECUTABLE,
            Self::Failed => FAILED,
        }
    }

    fn code(self) -> ExitCode {
        ExitCode::from(self.number())
    }
}

/// The command beside a server that serves.
struct Session<'a> {
    command: &'a [OsString],
    endpoint: String,
}

impl<'a> Session<'a> {
    /// Writes the lines for Bazel, if they are wanted.
    fn begin(
        arguments: &'a RunArgs,
        endpoint: &OpenEndpoint,
        settings: &cli::ServeArgs,
    ) -> anyhow::Result<Self> {
        if let Some(path) = &arguments.bazelrc_out {
            write_bazelrc(path, endpoint, settings)?;
        }
        let endpoint = bazelrc::executor(endpoint);
        Ok(Self { command: &arguments.command, endpoint })
    }

    /// Runs the command to its end, and passes signals on to it. The end of the server is told, and the
    /// command goes on: it knows best what to do without.
    async fn run(
        &self,
        signals: &mut Signals,
        mut server: Option<&mut Server>,
    ) -> anyhow::Result<Status> {
        let [program, arguments @ ..] = self.command else { return Ok(Status::Failed) };
        let mut command = Command::new(program);
        command.args(arguments).env(ENDPOINT, &self.endpoint);
        let mut command = match ChildProcess::start(&mut command) {
            Ok(command) => command,
            Err(error) => {
                tell(format_args!("linux-actiond: {}: {error}", program.display()));
                let is_missing = is_missing(&error, program, std::env::var_os("PATH").as_deref());
                return Ok(if is_missing { Status::NotFound } else { Status::NotExecutable });
            }
        };
        loop {
            tokio::select! {
                status = command.wait() => return Ok(Status::Ended(status.context("waiting for the command")?)),
                signal = signals.next() => command.signal(signal),
                ended = server::end_of(&mut server) => {
                    server = None;
                    tell(format_args!("linux-actiond: the server has ended before the command: {ended}"));
                }
            }
        }
    }
}

/// Whether a command could not be executed because it is not there. For a name in `PATH`, execvp(3) says
/// EACCES as soon as one directory can't be searched, such as one of another user.
fn is_missing(error: &std::io::Error, program: &OsStr, path: Option<&OsStr>) -> bool {
    match error.kind() {
        ErrorKind::NotFound => true,
        ErrorKind::PermissionDenied if !program.as_encoded_bytes().contains(&b'/') => {
            let directories = path.into_iter().flat_map(std::env::split_paths);
            !directories.map(|directory| directory.join(program)).any(|file| file.exists())
        }
        _ => false,
    }
}

/// Prints the line at the end. The seconds are those until the end of the command, with the start of the
/// server.
fn summarize(of_server: &str, seconds: f64, status: Status) {
    let status = status.number();
    tell(format_args!("linux-actiond: {of_server}; {seconds:.1} s, exit status {status}"));
}

fn write_bazelrc(
    path: &Path,
    endpoint: &OpenEndpoint,
    settings: &cli::ServeArgs,
) -> anyhow::Result<()> {
    let lines = bazelrc::lines(endpoint, settings);
    std::fs::write(path, lines + "\n").with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_can_not_be_searched_does_not_have_the_command() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("there"), "").unwrap();
        let path = std::env::join_paths(["/nowhere".as_ref(), directory.path()]).unwrap();
        let check = |kind: ErrorKind, program: &str, expected: bool| {
            let found = is_missing(&kind.into(), program.as_ref(), Some(&path));
            assert_eq!(found, expected, "{kind}: {program}");
        };
        check(ErrorKind::NotFound, "absent", true);
        check(ErrorKind::PermissionDenied, "absent", true);
        check(ErrorKind::PermissionDenied, "there", false);
        check(ErrorKind::PermissionDenied, "/nowhere/absent", false);
        check(ErrorKind::InvalidInput, "absent", false);
    }

    #[test]
    fn exit_codes_are_those_of_shells() {
        let ended = |raw| Status::Ended(ExitStatus::from_raw(raw)).number();
        assert_eq!([ended(0), ended(3 << 8), ended(255 << 8)], [0, 3, 255]);
        assert_eq!([ended(2), ended(9), ended(15)], [130, 137, 143]);
        let others = [Status::NotFound, Status::NotExecutable, Status::Failed].map(Status::number);
        assert_eq!(others, [127, 126, 125]);
    }
}
