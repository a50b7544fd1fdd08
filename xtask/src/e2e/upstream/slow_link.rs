//! A network with a delay and losses inside of one network namespace; `e2e/slow-link.py` tells how.
//!
//! Linux has `netem` for that, which many kernels are built without.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{setup::Need, workspace};

/// All that it needs.
pub(super) const NEEDS: [Need; 2] = [
    Need { program: "python3", package: "python3-minimal", why: "delays and loses packets" },
    Need { program: "ip", package: "iproute2", why: "configures the devices they pass" },
];

/// The address of a server that listens everywhere, beyond the link.
pub(super) const BEYOND: &str = "192.0.2.2";

/// How slow it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quality {
    pub(super) round_trip_ms: u32,
    pub(super) loss_percent: u32,
}

/// The link; gone when dropped.
pub(super) struct SlowLink(Child);

impl SlowLink {
    pub(super) fn start(quality: Quality) -> Result<Self> {
        let mut command = Command::new("python3");
        command.arg(workspace::root().join("e2e/slow-link.py"));
        command.arg(format!("--round-trip-ms={}", quality.round_trip_ms));
        command.arg(format!("--loss-percent={}", quality.loss_percent));
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut link = Self(child.context("cannot start python3")?);
        let mut ready = String::new();
        let output = link.0.stdout.take().context("it has an output")?;
        BufReader::new(output).read_line(&mut ready)?;
        ensure!(ready == "ready\n", "the slow link says {ready:?}");
        Ok(link)
    }

    /// Every packet is lost from now on, and no sender is told.
    pub(super) fn swallow_everything(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::STOP).context("cannot stop it")
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
