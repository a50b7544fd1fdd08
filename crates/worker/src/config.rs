//! The worker's bounds.

use std::num::NonZeroUsize;
use std::time::Duration;

use model::{TreeLimits, WorkerPlatform};

use crate::limits::Limits;
use crate::queue::Demand;

/// The bounds on the work that the worker accepts. The defaults say why.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Actions that run at the same time; one thread and at least one sandbox
    /// helper each. Default: the number of cores, for build actions are
    /// CPU-bound and more of them only evict each other's caches.
    pub jobs: NonZeroUsize,
    /// The limits at the start, which can change.
    pub limits: Limits,
    /// Actions that are elsewhere at the same time, where there is an engine that takes them; a thread each, which
    /// waits. Default 32: several times the slots of most machines.
    pub overflow_jobs: NonZeroUsize,
    /// The time that an action waits for a slot before it goes elsewhere. Default 1 s: sending an action and its
    /// blobs away costs about as much.
    pub overflow_wait: Duration,
    /// Memory of the actions that wait, in bytes. More are refused like those over [`Limits::queue`].
    /// Default 32 MiB: three times what 10,000 usual actions take.
    pub queue_bytes: u64,
    /// Memory that running actions may declare together, in bytes (`limits_memory`). An action that does not
    /// fit beside the others waits for them, and what declares more runs alone. Default: the machine's.
    pub memory_bytes: u64,
    /// Finished operations that `WaitExecution` still finds. Default 1,000: a
    /// client asks for them within seconds of a broken stream.
    pub finished_operations: usize,
    /// Memory of the finished operations, in bytes; the oldest are forgotten over it. Default
    /// 16 MiB: 1,000 results with some output in them.
    pub finished_bytes: u64,
    /// Standard output and error up to this many bytes are sent inside the
    /// result as well as stored. Default 64 KiB each: two of them stay far
    /// below the 4 MiB that gRPC clients accept in a message.
    pub inline_bytes: usize,
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

impl WorkerConfig {
    /// The resources that the running actions may take together. An action that declares none takes a core.
    pub(crate) fn machine(&self) -> Demand {
        let cpu_cores = u32::try_from(self.jobs.get()).unwrap_or(u32::MAX);
        Demand { cpu_cores, memory_bytes: self.memory_bytes }
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            limits: Limits::default(),
            overflow_jobs: NonZeroUsize::new(32).unwrap_or(NonZeroUsize::MIN),
            overflow_wait: Duration::from_secs(1),
            queue_bytes: 32 << 20,
            memory_bytes: machine_memory_bytes(),
            finished_operations: 1_000,
            finished_bytes: 16 << 20,
            inline_bytes: 64 << 10,
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
