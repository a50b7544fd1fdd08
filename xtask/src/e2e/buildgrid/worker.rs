//! `linux-actiond worker` as a process, and a gate at which its actions wait.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{daemon::FinishedAction, daemon_log, e2e::patience::within_patience};

/// A worker with a store of its own and one slot; killed when dropped.
pub(super) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    /// Starts a worker of that name, which shows actions the root of the client.
    pub(super) fn start(
        program: &Path,
        folder: &Path,
        name: &str,
        client_root: &Path,
        buildgrid: SocketAddr,
        drain_timeout_ms: u32,
    ) -> Result<Self> {
        let (state, log) = (folder.join(name), folder.join(format!("{name}.log")));
        let file = fs::File::create(&log)?;
        let mut command = Command::new("setsid");
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program).arg("worker");
        command.arg("--scheduler-protocol=bots").arg(format!("--scheduler=grpc://{buildgrid}"));
        command.arg(format!("--cas=grpc://{buildgrid}")).arg("--name").arg(name);
        command.arg(format!("--allow-host-rootfs={}", client_root.display()));
        command.args(["--jobs=1", "--http=off", "--log-format=json", "--platform=pool=e2e"]);
        command.arg(format!("--drain-timeout-ms={drain_timeout_ms}")).arg("--root").arg(state);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().context("cannot start the worker")?;
        let worker = Self { child, log };
        worker.wait_for("working for")?;
        Ok(worker)
    }

    /// Actions that it ran to their end.
    pub(super) fn executions(&self) -> Result<usize> {
        let log = self.log()?;
        Ok(daemon_log::events(&log).filter_map(|event| FinishedAction::of(&event)).count())
    }

    pub(super) fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }

    /// Waits until its log says these words.
    pub(super) fn wait_for(&self, words: &str) -> Result<()> {
        let says = within_patience(|| Ok(self.log()?.contains(words)))?;
        ensure!(says, "the worker never says {words:?}:\n{}", self.log()?);
        Ok(())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot send a signal")
    }

    /// Waits for its end, which must be with that exit code.
    pub(super) fn ends_with(mut self, exit_code: i32) -> Result<()> {
        let mut status = None;
        within_patience(|| {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        let is_right = status.is_some_and(|status| status.code() == Some(exit_code));
        ensure!(is_right, "the worker ended with {status:?}:\n{}", self.log()?);
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A gate: actions wait at it in a `sleep` that no other process has, until a signal ends that.
pub(super) struct Gate {
    seconds: u64,
}

impl Gate {
    /// The gate of that number.
    pub(super) fn new(number: u32) -> Self {
        Self { seconds: u64::from(std::process::id()) * 1_000 + u64::from(number) }
    }

    /// A command of the shell that returns when the gate opens.
    pub(super) fn wait(&self) -> String {
        // The shell would tell of the signal on standard error.
        format!("{{ sleep {} || :; }} 2>/dev/null", self.seconds)
    }

    /// Waits until an action waits here, and gives its process.
    pub(super) fn reached(&self) -> Result<Vec<Pid>> {
        self.reached_after(&[])
    }

    /// Waits until an action waits here, and none of these earlier ones any more.
    pub(super) fn reached_after(&self, earlier: &[Pid]) -> Result<Vec<Pid>> {
        let mut waiting = Vec::new();
        let is_reached = within_patience(|| {
            waiting = self.waiting()?;
            Ok(!waiting.is_empty() && !waiting.iter().any(|pid| earlier.contains(pid)))
        })?;
        ensure!(is_reached, "no action comes to its gate");
        Ok(waiting)
    }

    /// Waits until an action waits here beside these earlier ones.
    pub(super) fn reached_beside(&self, earlier: &[Pid]) -> Result<()> {
        let is_reached =
            within_patience(|| Ok(self.waiting()?.iter().any(|pid| !earlier.contains(pid))))?;
        ensure!(is_reached, "no other action comes to its gate");
        Ok(())
    }

    /// Waits until no action waits here any more.
    pub(super) fn left(&self) -> Result<()> {
        ensure!(within_patience(|| Ok(self.waiting()?.is_empty()))?, "the action goes on");
        Ok(())
    }

    /// Lets those go on that wait here.
    pub(super) fn open(&self) -> Result<()> {
        for pid in self.waiting()? {
            // An error means that the process has ended.
            let _gone = kill_process(pid, Signal::TERM);
        }
        Ok(())
    }

    fn waiting(&self) -> Result<Vec<Pid>> {
        let command_line = format!("sleep\0{}\0", self.seconds);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let process = entry?.path();
            let name = process.file_name().and_then(|name| name.to_str());
            let pid = name.and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            let words = fs::read(process.join("cmdline")).unwrap_or_default();
            if let Some(pid) = pid.filter(|_| words == command_line.as_bytes()) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}
