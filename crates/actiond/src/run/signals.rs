//! The signals that are passed on to the command.
//!
//! A terminal sends SIGINT and SIGQUIT to all processes of its foreground group, the command among them.
//! These must not be passed on: Bazel, for one, takes a second SIGINT as an order to give up at once.

use anyhow::Context as _;
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// Fields of `/proc/self/stat` after the name in parentheses, from 0 on.
const PROCESS_GROUP: usize = 2;
const FOREGROUND_GROUP: usize = 5;

/// The signals as they come.
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    quit: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| unix::signal(kind).context("listening for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next signal that is to be passed on to the command.
    pub(super) async fn next(&mut self) -> Signal {
        loop {
            let signal = self.any().await;
            let is_of_terminal = matches!(signal, Signal::INT | Signal::QUIT);
            if !(is_of_terminal && is_in_foreground()) {
                return signal;
            }
        }
    }

    /// The next signal.
    pub(super) async fn any(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.hang_up.recv() => Signal::HUP,
        }
    }
}

/// Whether this process is in the foreground group of a terminal.
fn is_in_foreground() -> bool {
    std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| is_foreground(&stat))
}

fn is_foreground(stat: &str) -> bool {
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<_> = fields.split(' ').collect();
    let groups = (fields.get(PROCESS_GROUP), fields.get(FOREGROUND_GROUP));
    matches!(groups, (Some(own), Some(foreground)) if own == foreground)
}

/// The exit code for an end by that signal, as shells have it.
pub(super) fn exit_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_foreground_is_told_by_the_kernel() {
        for (stat, expected) in [
            ("7 (run) S 1 7 7 34816 7 4194304", true),
            ("7 (run) S 1 7 7 34816 9 4194304", false),
            ("7 (a) b) S 1 7 7 34816 7 4194304", true),
            // No terminal.
            ("7 (run) S 1 7 7 0 -1 4194304", false),
            ("", false),
        ] {
            assert_eq!(is_foreground(stat), expected, "{stat}");
        }
    }
}
