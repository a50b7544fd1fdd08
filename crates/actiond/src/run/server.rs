//! The server of `run`, as a child process.

use std::ffi::OsString;
use std::future::pending;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use access::Endpoint;
use anyhow::{Context as _, bail};
use rustix::process::Signal;
use sandbox::Leaf;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::arguments::has_flag;
use super::child::ChildProcess;
use super::signals::Signals;
use crate::cli::ServeArgs;
use crate::configuration::Configuration;
use crate::doors::{self, OpenEndpoint};
use crate::output::tell;
use crate::tally::{CGROUP, Counts, TALLY};

/// The time that actions have which still run when the command has ended: nobody waits for them.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The time that the server then has to end. It only ends a wait that would never end.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// The time to print the last lines of a server that has ended.
const LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// The variables that service managers set for the processes that they start; the server must not see them.
const OF_SERVICE_MANAGERS: [&str; 5] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"];

/// A server that serves.
pub(super) struct Server {
    process: ChildProcess,
    ended: Option<ExitStatus>,
    pub(super) endpoint: OpenEndpoint,
    pub(super) settings: ServeArgs,
    /// Closed when the last line of the server is printed.
    lines: oneshot::Receiver<()>,
    /// Has the store, the socket and the counts, where nobody wants them elsewhere.
    directory: tempfile::TempDir,
    /// The cgroup of this process and of the command, beside the server's. It is left last.
    _leaf: Option<Leaf>,
}

impl Server {
    /// Starts a server with these flags of `serve`, and waits until it serves. Gives the number of a
    /// signal that came before.
    pub(super) async fn start(
        mut flags: Vec<OsString>,
        signals: &mut Signals,
    ) -> anyhow::Result<Result<Self, i32>> {
        let directory = tempfile::Builder::new().prefix("actiond-run-").tempdir();
        let directory = directory.context("making a temporary directory")?;
        add_flags(&mut flags, directory.path());
        let settings = Configuration::load(flags.clone())?.arguments;
        let protection = doors::first_place(&settings)?.protection;

        let mut command = Command::new("/proc/self/exe");
        command.arg0("linux-actiond").arg("serve").args(flags);
        command.env(TALLY, directory.path().join("tally"));
        for name in OF_SERVICE_MANAGERS {
            command.env_remove(name);
        }
        // Before the server starts: it comes along into the leaf, and moves on to one of its own.
        let leaf = Leaf::for_starter();
        match &leaf {
            Some(leaf) => command.env(CGROUP, leaf.divided()),
            None => command.env_remove(CGROUP),
        };
        // The terminal's signals are for the command alone.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = ChildProcess::start(&mut command).context("starting the server")?;
        let stderr = process.streams().stderr.take().context("the server's lines")?;
        let (serves, serving) = oneshot::channel();
        let (last_line, lines) = oneshot::channel();
        std::thread::Builder::new()
            .name("server's lines".into())
            .spawn(move || {
                pass_lines_on(stderr, serves);
                drop(last_line);
            })
            .context("starting a thread")?;
        let endpoint = tokio::select! {
            endpoint = serving => endpoint.ok(),
            signal = signals.any() => {
                let endpoint = doors::first_place(&settings)?;
                let server = Self { process, ended: None, endpoint, settings, lines, directory, _leaf: leaf };
                server.end(signals).await;
                return Ok(Err(signal.as_raw()));
            }
        };
        let Some(endpoint) = endpoint else {
            let status = process.wait().await.context("waiting for the server")?;
            bail!("the server did not start: {status}");
        };
        let endpoint = OpenEndpoint { endpoint, protection };
        Ok(Ok(Self { process, ended: None, endpoint, settings, lines, directory, _leaf: leaf }))
    }

    /// Ends the server, and tells what it did.
    pub(super) async fn end(mut self, signals: &mut Signals) -> String {
        for (signal, time) in [
            (Signal::TERM, DRAIN_TIMEOUT),
            (Signal::TERM, END_TIMEOUT),
            (Signal::KILL, END_TIMEOUT),
        ] {
            if self.ended.is_some() {
                break;
            }
            self.process.signal(signal);
            tokio::select! {
                ended = timeout(time, self.process.wait()) => {
                    self.ended = ended.ok().and_then(Result::ok);
                }
                // Somebody can't wait any longer.
                _ = signals.any() => {}
            }
        }
        // Its last words; what it started may hold the pipe open for longer.
        let _ = timeout(LINES_TIMEOUT, self.lines).await;
        let counts = Counts::read(&self.directory.path().join("tally"));
        let directory = self.directory.path().to_owned();
        if let Err(error) = self.directory.close() {
            tell(format_args!("linux-actiond: deleting {}: {error}", directory.display()));
        }
        counts.map_or_else(
            || "the server did not say what it did".to_owned(),
            |counts| counts.to_string(),
        )
    }
}

/// Waits for the end of the server and returns its status. Never returns if no server was started or an earlier
/// call has returned its end.
pub(super) async fn end_of(server: &mut Option<&mut Server>) -> String {
    let Some(server) = server else { return pending().await };
    match server.process.wait().await {
        Ok(status) => {
            server.ended = Some(status);
            status.to_string()
        }
        Err(error) => error.to_string(),
    }
}

/// Adds the flags that differ from those of a long-running server: it has a store and an address of its own
/// whatever the machine's configuration says, unless a flag overrides them.
fn add_flags(flags: &mut Vec<OsString>, directory: &std::path::Path) {
    let path = |name: &str| directory.join(name).into_os_string();
    let mut add = |flag: &str, value: OsString| {
        if !has_flag(flags, flag) {
            flags.extend([flag.into(), value]);
        }
    };
    add("--root", path("root"));
    let mut socket = OsString::from("unix:");
    socket.push(path("socket"));
    add("--listen", socket);
    add("--http", "off".into());
    if std::env::var_os("ACTIOND_LOG").is_none() {
        add("--log", "warn".into());
    }
}

/// Reads the server's lines to their end, prints them but for those about places, and tells the first
/// endpoint.
fn pass_lines_on(stderr: impl Read, serves: oneshot::Sender<Endpoint>) {
    let mut serves = Some(serves);
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Some(Ok(line)) = lines.next() {
        let line = String::from_utf8_lossy(&line);
        match place_in(&line) {
            Some(endpoint) => drop(serves.take().map(|serves| serves.send(endpoint))),
            None => tell(line),
        }
    }
}

/// The endpoint in the server's line "serving on ENDPOINT".
fn place_in(line: &str) -> Option<Endpoint> {
    let endpoint = line.strip_prefix("linux-actiond: serving on ")?;
    let endpoint = endpoint.split(" with TLS").next().unwrap_or(endpoint);
    endpoint.parse::<access::Listen>().ok().map(|listen| listen.endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_in_the_line() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(
                place_in(line).map(|endpoint| endpoint.to_string()).as_deref(),
                expected,
                "{line}"
            );
        };
        check("linux-actiond: serving on 127.0.0.1:8980", Some("127.0.0.1:8980"));
        check("linux-actiond: serving on 127.0.0.1:1 with TLS", Some("127.0.0.1:1"));
        check(
            "linux-actiond: serving on [::1]:1 with TLS and client certificates",
            Some("[::1]:1"),
        );
        check("linux-actiond: serving on unix:/tmp/a b/socket", Some("unix:/tmp/a b/socket"));
        check("linux-actiond: no page and no metrics", None);
        check("INFO serving on 127.0.0.1:1", None);
    }
}
