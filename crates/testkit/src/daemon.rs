//! The daemon as a child process: its own root directory, its own port, its log.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use launch::{ORDINARY_USER, StartAs};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::Client;
use crate::gate::Gate;
use crate::outcome::Skipped;
use crate::vm::{self, Programs, Vm};
use crate::wait::PATIENCE;

/// Where tests keep the daemon's state; the system's directory for temporary
/// files where it is not set. It must be on a file system that can hold the
/// upper directories of overlayfs, which excludes overlayfs itself.
const STATE_DIRECTORY: &str = "ACTIOND_TEST_STATE_DIR";

/// Lines of the log that are kept.
const LOG_LINES: usize = 2000;

/// A daemon that is to be started.
#[derive(Debug)]
pub struct DaemonBuilder {
    binary: PathBuf,
    /// The program and its arguments that become the daemon, if it is not started as it is.
    through: Vec<OsString>,
    /// The way in which an ordinary user starts it, if one does.
    start_as: Option<StartAs>,
    verb: &'static str,
    /// Whether it is a VM that stands for a daemon on this machine, as no case knows.
    stands_for_serve: bool,
    listen: SocketAddr,
    /// Options of that place beside the rights of anonymous callers.
    listen_options: &'static str,
    flags: Vec<OsString>,
    root: Option<Arc<Root>>,
}

/// Any free port of the loopback device.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A root directory; a temporary one goes away with the last daemon on it.
#[derive(Debug)]
enum Root {
    Temporary(tempfile::TempDir),
    Given(PathBuf),
}

impl Root {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Given(path) => path,
        }
    }
}

impl DaemonBuilder {
    pub(crate) fn new(binary: &Path) -> Self {
        let binary = binary.to_owned();
        let (through, flags, root) = (Vec::new(), Vec::new(), None);
        Self {
            binary,
            through,
            start_as: None,
            verb: "serve",
            stands_for_serve: false,
            listen: LOOPBACK,
            listen_options: "",
            flags,
            root,
        }
    }

    /// Has an ordinary user start it in that way.
    pub(crate) fn started_as(self, start_as: Option<StartAs>) -> Self {
        Self { start_as, ..self }
    }

    /// A VM that stands for `serve`: its worker has the flags that are added from now on.
    pub(crate) fn standing_in(self, vm: &Vm) -> Self {
        let builder = self.in_vm(&vm.kernel, &vm.initramfs);
        let builder = builder.flag("--runtime-image").flag(&vm.runtimes);
        let builder = vm::FLAGS.into_iter().fold(builder, |builder, flag| builder.flag(flag));
        Self { stands_for_serve: true, ..builder }
    }

    /// Serves from a VM with that kernel and that initramfs.
    #[must_use]
    pub fn in_vm(self, kernel: &Path, initramfs: &Path) -> Self {
        let serve_vm = Self { verb: "serve-vm", ..self };
        let kernel = serve_vm.flag("--kernel").flag(kernel);
        kernel.flag("--initramfs").flag(initramfs)
    }

    /// Adds a flag of the verb.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<OsString>) -> Self {
        if self.stands_for_serve {
            self.flags.push("--worker-flag".into());
        }
        self.flags.push(flag.into());
        self
    }

    /// Has another program start the daemon: `program` executes what follows in its arguments.
    #[must_use]
    pub fn through<S: Into<OsString>>(mut self, program: impl IntoIterator<Item = S>) -> Self {
        self.through = program.into_iter().map(Into::into).collect();
        self
    }

    /// A directory beside which daemons keep their state, removed when dropped.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn directory(self) -> anyhow::Result<tempfile::TempDir> {
        self.temporary_directory()
    }

    /// A directory of the user who starts the daemon.
    fn temporary_directory(&self) -> anyhow::Result<tempfile::TempDir> {
        let directory = temporary_root()?;
        if self.start_as.is_some() {
            chown(directory.path(), Some(ORDINARY_USER), Some(ORDINARY_USER))
                .with_context(|| format!("giving {} away", directory.path().display()))?;
        }
        Ok(directory)
    }

    /// Listens on another address than the loopback device's.
    #[must_use]
    pub fn listen(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// Speaks no TLS at its first place, whatever the flags say.
    #[must_use]
    pub fn without_tls(self) -> Self {
        Self { listen_options: "&tls=off", ..self }
    }

    /// Lets actions use the toolchains of this machine; those of a VM have its runtimes.
    #[must_use]
    pub fn host_rootfs(self) -> Self {
        if self.stands_for_serve { self } else { self.flag("--allow-host-rootfs") }
    }

    /// Uses a root directory that the test brings.
    #[must_use]
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(Arc::new(Root::Given(root.into())));
        self
    }

    /// The command that would be run, for tests of its failures.
    ///
    /// # Errors
    /// When no root directory can be made.
    pub fn command(mut self) -> anyhow::Result<(Command, tempfile::TempDir)> {
        let directory = self.temporary_directory()?;
        self.root = Some(Arc::new(Root::Given(directory.path().join("root"))));
        Ok((self.serve_command()?, directory))
    }

    fn serve_command(&mut self) -> anyhow::Result<Command> {
        let root = match &self.root {
            Some(root) => Arc::clone(root),
            None => Arc::new(Root::Temporary(self.temporary_directory()?)),
        };
        self.root = Some(Arc::clone(&root));
        let mut words = self.through.clone();
        words.extend(self.start_as.into_iter().flat_map(|way| way.words(ORDINARY_USER)));
        words.push(self.binary.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        // Tests delete blobs, which anonymous callers may not do by default.
        let rights = match (self.verb, self.listen.ip().is_loopback()) {
            ("serve", true) => "?anonymous=all",
            ("serve", false) => "?anonymous=client",
            _ => "",
        };
        let options = self.listen_options;
        command.arg(self.verb).arg(format!("--listen={}{rights}{options}", self.listen));
        command.arg("--root").arg(root.path());
        command.args(&self.flags);
        // Not what the machine's or the user's file says.
        command.env("ACTIOND_CONFIG", "/dev/null");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command)
    }

    /// Starts the daemon, and waits until it says that it serves.
    ///
    /// # Errors
    /// When it ends before, with its log.
    pub async fn start(mut self) -> anyhow::Result<Daemon> {
        let mut command = self.serve_command()?;
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().context("stderr is piped")?;
        let reader = Arc::clone(&log);
        std::thread::spawn(move || reader.collect(BufReader::new(stderr)));
        let mut daemon = Daemon {
            child,
            log,
            address: LOOPBACK,
            root: self.root.clone().context("the command was made")?,
            builder: self,
        };
        daemon.address = daemon.wait_until_ready()?;
        Ok(daemon)
    }
}

fn temporary_root() -> anyhow::Result<tempfile::TempDir> {
    let parent = std::env::var_os(STATE_DIRECTORY).map_or_else(std::env::temp_dir, PathBuf::from);
    let mut builder = tempfile::Builder::new();
    builder.prefix("actiond-test-").tempdir_in(&parent).with_context(|| {
        format!("making a directory in {}; {STATE_DIRECTORY} names another", parent.display())
    })
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
    address: SocketAddr,
    root: Arc<Root>,
    builder: DaemonBuilder,
}

impl Daemon {
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its root directory. That of a VM has no store in it; see [`Self::store`].
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The directory of its store, which is its root directory.
    ///
    /// # Errors
    /// A reason to skip the case where the store is inside of a VM.
    pub fn store(&self) -> anyhow::Result<&Path> {
        self.ensure_seen().map(|()| self.root())
    }

    /// Fails with a reason to skip the case where the processes and mounts of actions can't be seen
    /// from here.
    ///
    /// # Errors
    /// When the daemon is in a VM.
    pub fn ensure_seen(&self) -> anyhow::Result<()> {
        if self.builder.stands_for_serve {
            return Err(Skipped("what is looked at is inside of the VM".to_owned()).into());
        }
        Ok(())
    }

    /// A new connection to it.
    pub fn client(&self) -> Client {
        let in_vm = self.builder.stands_for_serve;
        let programs = if in_vm { Programs::Runtime } else { Programs::Host };
        Client::new(self.address).with_programs(programs)
    }

    /// A gate that its actions can wait at.
    pub fn gate(&self) -> Gate {
        Gate::new(self.builder.stands_for_serve)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// The value of `actiond_NAME` on its page `/metrics`; the name ends with the labels. The daemon has to serve the page,
    /// such as with the flag `--http=127.0.0.1:0`.
    ///
    /// # Errors
    /// When the page can't be read or has no such value.
    pub fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let log = self.log();
        let address =
            log.split("page and metrics on http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.context("the log names the page")?;
        let mut connection = TcpStream::connect(address)?;
        write!(
            connection,
            "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let text = std::io::read_to_string(connection)?;
        let line = text.lines().find(|line| line.starts_with(&format!("actiond_{name} ")));
        let line = line.with_context(|| format!("{name} is in:\n{text}"))?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()? as u64)
    }

    /// Asks it to end; it may take its time.
    ///
    /// # Errors
    /// When the signal can't be sent.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Kills it at once.
    ///
    /// # Errors
    /// When the signal can't be sent.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait()
    }

    /// Sends it `signal`.
    ///
    /// # Errors
    /// When the signal can't be sent.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("sending {signal:?} to {pid:?}"))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the daemon did not end within {PATIENCE:?}; its log:\n{}", self.log())
    }

    /// A daemon with the same flags on the same root; this one must have ended.
    pub fn successor(&self) -> DaemonBuilder {
        DaemonBuilder {
            through: self.builder.through.clone(),
            start_as: self.builder.start_as,
            binary: self.builder.binary.clone(),
            verb: self.builder.verb,
            stands_for_serve: self.builder.stands_for_serve,
            listen: self.builder.listen,
            listen_options: self.builder.listen_options,
            flags: self.builder.flags.clone(),
            root: Some(Arc::clone(&self.root)),
        }
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<SocketAddr> {
        match self.log.wait_for("serving on ", PATIENCE) {
            Some(line) => {
                let address = line.rsplit("serving on ").next().unwrap_or_default();
                address.trim().parse().with_context(|| format!("the address in `{line}`"))
            }
            None => bail!("the daemon did not start; its log:\n{}", self.log()),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines on the daemon's standard error.
#[derive(Debug, Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LogState {
    lines: VecDeque<String>,
    ended: bool,
}

impl Log {
    fn collect(&self, stderr: impl BufRead) {
        for line in stderr.lines().map_while(Result::ok) {
            let mut state = self.lock();
            if state.lines.len() == LOG_LINES {
                state.lines.pop_front();
            }
            state.lines.push_back(line);
            drop(state);
            self.changed.notify_all();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// The first line that contains `text`; `None` when the log ends before.
    fn wait_for(&self, text: &str, patience: Duration) -> Option<String> {
        let more = |state: &mut LogState| {
            !state.ended && !state.lines.iter().any(|line| line.contains(text))
        };
        let waited = self.changed.wait_timeout_while(self.lock(), patience, more);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.lines.iter().find(|line| line.contains(text)).cloned()
    }

    fn text(&self) -> String {
        self.lock().lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
