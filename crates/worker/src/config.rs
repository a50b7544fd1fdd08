//! The worker's bounds.

use std::num::NonZeroUsize;
use std::time::Duration;

use model::{TreeLimits, WorkerPlatform};

use crate::queue::Demand;

/// The bounds on the work that the worker accepts. The defaults say why.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Actions that run at the same time; one thread and at least one sandbox
    /// helper each. Default: the number of cores, for build actions are
    /// CPU-bound and more of them only evict each other's caches.
    pub jobs: NonZeroUsize,
    /// Actions that may wait for a slot. More are refused with
    /// RESOURCE_EXHAUSTED, which clients retry. Default 10,000: far above the
    /// `--jobs` of any build tool, at about 1 KiB each.
    pub queue_limit: usize,
    /// Actions that are elsewhere at the same time, where there is an engine that takes them; a thread each, which
    /// waits. Default 32: several times the slots of most machines.
    pub overflow_jobs: NonZeroUsize,
    /// The time that an action waits for a slot before it goes elsewhere. Default 1 s: sending an action and its
    /// blobs away costs about as much.
    pub overflow_wait: Duration,
    /// Memory of the actions that wait, in bytes. More are refused like those over `queue_limit`.
    /// Default 32 MiB: three times what 10,000 usual actions take.
    pub queue_bytes: u64,
    /// Memory that running actions may declare together, in bytes (`limits_memory`). An action that does not
    /// fit beside the others waits for them, and what declares more runs alone. Default: the machine's.
    pub memory_bytes: u64,
    /// The time that an action goes on with nobody listening. Default 60 s: Bazel
    /// breaks and re-makes its stream once a minute at most.
    pub orphan_grace: Duration,
    /// Finished operations that `WaitExecution` still finds. Default 1,000: a
    /// client asks for them within seconds of a broken stream.
    pub finished_operations: usize,
    /// Memory of the finished operations, in bytes; the oldest are forgotten over it. Default
    /// 16 MiB: 1,000 results with some output in them.
    pub finished_bytes: u64,
    /// Timeout of an action that asks for none. Default: none.
    pub default_timeout: Option<Duration>,
    /// The longest timeout an action may ask for, and that of actions that name none unless
    /// `default_timeout` is shorter. Default: none.
    pub max_timeout: Option<Duration>,
    /// Standard output and error up to this many bytes are sent inside the
    /// result as well as stored. Default 64 KiB each: two of them stay far
    /// below the 4 MiB that gRPC clients accept in a message.
    pub inline_bytes: usize,
    /// An action that writes more than this to its standard output or to its
    /// standard error is stopped. Default 1 GiB.
    pub stream_limit_bytes: u64,
    /// Bounds of what one action may leave behind.
    pub outputs: OutputLimits,
    /// Bounds of one input tree.
    pub tree: TreeLimits,
    /// The platform that actions find here. Default: the one that this program was built for.
    pub platform: WorkerPlatform,
    /// Memory for parsed directories and assembled trees, in bytes. Default
    /// 32 MiB: some 300,000 entries, the working set of a large build.
    pub tree_cache_bytes: u64,
    /// The value of `ExecutedActionMetadata.worker`. Bazel shows the phases of an
    /// action in its profile only if this is not empty.
    pub worker_name: String,
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

impl Default for OutputLimits {
    fn default() -> Self {
        Self { file_bytes: 64 << 30, total_bytes: 64 << 30, entries: 1_000_000, depth: 128 }
    }
}

impl WorkerConfig {
    /// The resources that the running actions may take together. An action that declares none takes a core.
    pub(crate) fn machine(&self) -> Demand {
        let cpu_cores = u32::try_from(self.jobs.get()).unwrap_or(u32::MAX);
        Demand { cpu_cores, memory_bytes: self.memory_bytes }
    }

    /// The timeout of actions that name none: the default, and never more than the maximum.
    pub(crate) fn timeout_of_others(&self) -> Option<Duration> {
        [self.default_timeout, self.max_timeout].into_iter().flatten().min()
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            queue_limit: 10_000,
            overflow_jobs: NonZeroUsize::new(32).unwrap_or(NonZeroUsize::MIN),
            overflow_wait: Duration::from_secs(1),
            queue_bytes: 32 << 20,
            memory_bytes: machine_memory_bytes(),
            orphan_grace: Duration::from_secs(60),
            finished_operations: 1_000,
            finished_bytes: 16 << 20,
            default_timeout: None,
            max_timeout: None,
            inline_bytes: 64 << 10,
            stream_limit_bytes: 1 << 30,
            outputs: OutputLimits::default(),
            tree: TreeLimits::default(),
            platform: WorkerPlatform::default(),
            tree_cache_bytes: 32 << 20,
            worker_name: String::from("actiond"),
        }
    }
}

/// The memory of the machine, in bytes; without bound where the kernel does not tell.
fn machine_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit).max(1))
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
            let config = WorkerConfig {
                default_timeout: default.map(seconds),
                max_timeout: max.map(seconds),
                ..WorkerConfig::default()
            };
            assert_eq!(config.timeout_of_others(), expected.map(seconds));
        }
    }
}
