//! The side of the server that `run` started: it counts what it does, and ends with who started it.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use events::{Event, Listener};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

/// The variable by which `run` tells the server which file the counts go to. Not one of the settings, which
/// begin with `ACTIOND_`.
pub(crate) const TALLY: &str = "LINUX_ACTIOND_RUN_TALLY";

/// The variable by which `run` tells the server which cgroup is free to be divided.
pub(crate) const CGROUP: &str = "LINUX_ACTIOND_RUN_CGROUP";

/// Counts events, and writes the counts to a file when it is dropped.
#[derive(Debug)]
pub(crate) struct Tally {
    file: OsString,
    actions: AtomicU64,
    failures: AtomicU64,
    hits: AtomicU64,
    output_bytes: AtomicU64,
}

impl Tally {
    /// The counter, in a server that `run` started.
    pub(crate) fn if_wanted() -> Option<Self> {
        let file = std::env::var_os(TALLY)?;
        let [actions, failures, hits, output_bytes] = Default::default();
        Some(Self { file, actions, failures, hits, output_bytes })
    }

    fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            actions: count(&self.actions),
            failures: count(&self.failures),
            hits: count(&self.hits),
            output_bytes: count(&self.output_bytes),
        }
    }
}

impl Listener for Tally {
    fn tell(&self, event: &Event) {
        let add = |counter: &AtomicU64, number| {
            counter.fetch_add(number, Ordering::Relaxed);
        };
        match event {
            Event::LookedUp(lookup) if lookup.miss.is_none() => add(&self.hits, 1),
            Event::Finished(finished) if finished.cached => add(&self.hits, 1),
            Event::Finished(finished) => {
                let is_good = finished.error.is_none() && finished.exit_code == Some(0);
                add(&self.actions, 1);
                add(&self.failures, u64::from(!is_good));
                add(&self.output_bytes, finished.output_bytes);
            }
            Event::LookedUp(_)
            | Event::Queued(_)
            | Event::Withdrawn { .. }
            | Event::Started { .. } => {}
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let Counts { actions, failures, hits, output_bytes } = self.counts();
        let text = format!("{actions} {failures} {hits} {output_bytes}\n");
        if let Err(error) = std::fs::write(&self.file, text) {
            tracing::warn!(%error, "the counts for `run` could not be written");
        }
    }
}

/// The counts of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Actions that were run.
    actions: u64,
    /// Those of them that gave no good result.
    failures: u64,
    /// Results from the action cache.
    hits: u64,
    /// The sizes of the output files of actions that were run.
    output_bytes: u64,
}

impl Counts {
    /// Reads what a server wrote at its end.
    pub(crate) fn read(file: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(file).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<_> =
            text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [actions, failures, hits, output_bytes] = numbers[..] else { return None };
        Some(Self { actions, failures, hits, output_bytes })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actions, failures, hits, output_bytes } = *self;
        let plural = if actions == 1 { "" } else { "s" };
        write!(f, "{actions} action{plural}")?;
        if failures > 0 {
            write!(f, " ({failures} failed)")?;
        }
        write!(f, ", {hits} from the cache, {output_bytes} bytes of outputs")
    }
}

/// Ends when the process is gone that started this server by `run`: it holds the other end of standard
/// input. Never ends in any other server.
pub(crate) async fn starter_is_gone() {
    if std::env::var_os(TALLY).is_some()
        && let Ok(stdin) = std::io::stdin().as_fd().try_clone_to_owned()
        && let Ok(mut pipe) = Receiver::from_owned_fd(stdin)
    {
        let mut nothing = [0];
        while let Ok(1) = pipe.read(&mut nothing).await {}
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_told() {
        let check = |text, expected| {
            assert_eq!(Counts::parse(text).map(|counts| counts.to_string()).as_deref(), expected);
        };
        check("1 0 2 3\n", Some("1 action, 2 from the cache, 3 bytes of outputs"));
        check("12 3 0 0\n", Some("12 actions (3 failed), 0 from the cache, 0 bytes of outputs"));
        check("1 2 3\n", None);
        check("", None);
        check("a b c d", None);
    }
}
