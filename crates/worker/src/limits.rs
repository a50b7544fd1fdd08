//! The limits of the queue and of single actions, which can change while the worker runs.
//!
//! An action has the limits of the moment at which it starts; those of running actions stay as they are.

use std::time::Duration;

/// Limits that [`crate::Worker::set_limits`] changes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Actions that may wait for a slot. More are refused with
    /// RESOURCE_EXHAUSTED, which clients retry. Default 10,000: far above the
    /// `--jobs` of any build tool, at about 1 KiB each.
    pub queue: usize,
    /// The time that an action goes on with nobody listening. Default 60 s: Bazel
    /// breaks and re-makes its stream once a minute at most.
    pub orphan_grace: Duration,
    /// Timeout of an action that asks for none. Default: none.
    pub default_timeout: Option<Duration>,
    /// The longest timeout an action may ask for, and that of actions that name none unless
    /// `default_timeout` is shorter. Default: none.
    pub max_timeout: Option<Duration>,
    /// An action that writes more than this to its standard output or to its
    /// standard error is stopped. Default 1 GiB.
    pub stream_bytes: u64,
    /// Bounds of what one action may leave behind.
    pub outputs: OutputLimits,
}

/// Bounds of what one action may leave behind.
#[derive(Debug, Clone, Copy)]
pub struct OutputLimits {
    /// Apparent size of one output file. Default 64 GiB: a sparse file of
    /// exabytes costs an action nothing and would take years to hash.
    pub file_bytes: u64,
    /// Apparent size of all outputs together, hard links counted each time.
    /// Default 64 GiB, as for one: hashing them is the server's time, which no
    /// timeout of the action's ends.
    pub total_bytes: u64,
    /// Files, directories and symlinks in all outputs together. Default
    /// 1,000,000.
    pub entries: u64,
    /// Directories below an output directory. Default 128, as for inputs.
    pub depth: usize,
}

impl Limits {
    /// The timeout of an action that asks for this one. Where it asks for none: the default, and never more
    /// than the maximum.
    pub(crate) fn timeout(&self, asked: Option<Duration>) -> Option<Duration> {
        asked.or_else(|| [self.default_timeout, self.max_timeout].into_iter().flatten().min())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 10_000,
            orphan_grace: Duration::from_secs(60),
            default_timeout: None,
            max_timeout: None,
            stream_bytes: 1 << 30,
            outputs: OutputLimits::default(),
        }
    }
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { file_bytes: 64 << 30, total_bytes: 64 << 30, entries: 1_000_000, depth: 128 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_holds_for_actions_without_a_timeout() {
        let seconds = Duration::from_secs;
        for (default, max, expected) in [
            (None, None, None),
            (Some(5), None, Some(5)),
            (None, Some(9), Some(9)),
            (Some(5), Some(9), Some(5)),
            (Some(9), Some(5), Some(5)),
        ] {
            let limits = Limits {
                default_timeout: default.map(seconds),
                max_timeout: max.map(seconds),
                ..Limits::default()
            };
            assert_eq!(limits.timeout(None), expected.map(seconds));
            assert_eq!(limits.timeout(Some(seconds(1))), Some(seconds(1)));
        }
    }
}
