//! `linux-actiond worker` as a child process.

use std::ffi::OsString;
use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use testkit::Kit;

/// The bound on the wait for an end. It only ends waits that would never end.
const PATIENCE: Duration = Duration::from_secs(300);

/// A worker with a store of its own; killed when dropped.
pub(crate) struct WorkerProcess {
    child: Child,
    directory: tempfile::TempDir,
}

impl WorkerProcess {
    /// Starts a worker of that name for the scheduler, with the storage at these addresses.
    pub(crate) fn start(
        kit: &Kit,
        name: &str,
        scheduler: &str,
        storage: &str,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let directory = kit.daemon().directory()?;
        let log = fs::File::create(directory.path().join("log"))?;
        let own = ["worker", "--scheduler", scheduler, "--cas", storage, "--ac", storage];
        let own = own.iter().map(OsString::from);
        let mut command = Command::new(kit.binary());
        command.args(own).args(["--name", name, "--allow-host-rootfs"]);
        if !flags.iter().any(|flag| flag.starts_with("--http=")) {
            command.arg("--http=off");
        }
        command.args(["--upstream-timeout=1s", "--jobs=1", "--log=info"]);
        command.arg("--root").arg(directory.path().join("root")).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, directory })
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("sending a signal")
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the worker did not end; its log:\n{}", self.log())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of the worker:\n{}", self.log());
        }
    }
}
