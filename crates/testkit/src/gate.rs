//! Actions that run until the test ends them.
//!
//! A test that looks at the server while an action runs can't know how long that takes on a busy
//! machine. An action that sleeps for a fixed time may be over too early. An action behind a gate ends
//! when the test says so.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::outcome::Outcome;
use crate::wait::eventually;

/// The time that a gate stays closed where the test can't see the processes of actions.
const SECONDS_IN_VM: u64 = 10;

/// A gate that actions wait at. Dropping it does not open it.
#[derive(Debug)]
pub struct Gate {
    /// The argument of `sleep`, which no other process has.
    seconds: u64,
    in_vm: bool,
}

impl Gate {
    /// A gate for actions of processes on this machine that are not a [`crate::Daemon`].
    pub fn on_this_machine() -> Self {
        Self::new(false)
    }

    pub(crate) fn new(in_vm: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unique = u64::from(std::process::id()) * 100_000 + number;
        Self { seconds: if in_vm { SECONDS_IN_VM } else { unique }, in_vm }
    }

    /// A shell command that returns when the gate opens.
    pub fn wait(&self) -> String {
        // The shell would tell of the signal on standard error.
        format!("{{ sleep {} || :; }} 2>/dev/null", self.seconds)
    }

    /// Waits until `count` processes wait here.
    ///
    /// # Errors
    /// When there are never that many.
    pub async fn reached(&self, count: usize) -> Outcome {
        if self.in_vm {
            return Ok(());
        }
        let is_reached = || Ok(self.waiting()?.len() >= count);
        eventually("the actions wait at their gate", is_reached).await
    }

    /// Waits until `count` processes wait here, and lets them go on.
    ///
    /// # Errors
    /// When there are never that many.
    pub async fn open(&self, count: usize) -> Outcome {
        if self.in_vm {
            return Ok(());
        }
        self.reached(count).await?;
        for pid in self.waiting()? {
            // An error means that the process has ended.
            let _ = kill_process(pid, Signal::TERM);
        }
        Ok(())
    }

    fn waiting(&self) -> anyhow::Result<Vec<Pid>> {
        let sleep = format!("sleep\0{}\0", self.seconds);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let process: PathBuf = entry?.path();
            let name = process.file_name().and_then(|name| name.to_str());
            let pid = name.and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
            found.extend(pid.filter(|_| command == sleep.as_bytes()));
        }
        Ok(found)
    }
}
