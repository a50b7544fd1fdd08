//! The parts of a cluster, what they can do in a second, and what an action asks of them.

use std::time::Duration;

use crate::clock::{Time, nanos};

/// The work that each action makes. The processor times are those of one core, as they were measured; `docs/scale.md`
/// tells how.
#[derive(Debug, Clone)]
pub(crate) struct Action {
    /// The mean time for which the command runs; single times have an exponential distribution.
    pub(crate) run: Duration,
    /// Processor time of the scheduler for one action: the client's `Execute` and the worker's `Synchronize`.
    pub(crate) scheduler: Duration,
    /// Processor time of the scheduler for a call of a worker that only says that it is still at work.
    pub(crate) check_in: Duration,
    /// The time between two such calls.
    pub(crate) check_in_every: Duration,
    /// Processor time of the storage for the calls of one action, those of the client among them.
    pub(crate) storage: Duration,
    /// Processor time of the storage for 1 MiB that it sends or receives.
    pub(crate) storage_mib: Duration,
    /// The bytes of inputs that the worker does not have yet.
    pub(crate) input_bytes: u64,
    /// The bytes of outputs, which the worker copies to the storage.
    pub(crate) output_bytes: u64,
    /// The bytes that the client sends and receives.
    pub(crate) client_bytes: u64,
}

/// A cluster whose clients always have another action waiting.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) workers: usize,
    /// Actions that one worker runs at a time.
    pub(crate) slots: usize,
    /// Schedulers, each for the workers and the clients of some instance names.
    pub(crate) schedulers: usize,
    /// Cores that one scheduler keeps busy. Its queue has one lock.
    pub(crate) scheduler_cores: f64,
    /// Machines of the storage, each with a part of the blobs.
    pub(crate) shards: usize,
    /// Cores of one machine of the storage.
    pub(crate) shard_cores: f64,
    /// Bytes a second of one machine of the storage, in each direction.
    pub(crate) shard_link: u64,
    /// Bytes a second of one worker, in each direction.
    pub(crate) worker_link: u64,
    /// The bytes that all actions need and each worker fetches once: compilers and libraries.
    pub(crate) common_bytes: u64,
    pub(crate) action: Action,
}

/// The time to move bytes over a link.
pub(crate) fn transfer(bytes: u64, bytes_a_second: u64) -> Time {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_a_second.max(1));
    Time::try_from(nanos).unwrap_or(Time::MAX)
}

impl Cluster {
    /// The time of one scheduler for work that costs a core that much.
    pub(crate) fn scheduler_time(&self, core: Duration) -> Time {
        (nanos(core) as f64 / self.scheduler_cores) as Time
    }

    /// The time of the processors of one machine of the storage for the calls of an action and that many bytes.
    pub(crate) fn shard_time(&self, calls: Duration, bytes: u64) -> Time {
        let core = calls + self.action.storage_mib.mul_f64(bytes as f64 / f64::from(1 << 20));
        (nanos(core) as f64 / self.shard_cores) as Time
    }

    /// The time until all workers have what all actions need, if they all start with empty stores: the longest of what
    /// the links and the processors of the storage and the link of a worker take.
    pub(crate) fn cold_start(&self) -> Duration {
        let shards = self.shards.max(1) as u64;
        let all = self.common_bytes.saturating_mul(self.workers as u64);
        let times = [
            transfer(all, self.shard_link.saturating_mul(shards)),
            self.shard_time(Duration::ZERO, all) / shards,
            transfer(self.common_bytes, self.worker_link),
        ];
        Duration::from_nanos(times.into_iter().max().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::tests::cluster;

    #[test]
    fn a_cold_start_is_bound_by_one_worker_or_by_the_storage() {
        let cluster = |workers, shards| Cluster {
            common_bytes: 1_000_000_000,
            worker_link: 1_000_000_000,
            shard_link: 2_000_000_000,
            shards,
            action: Action { storage_mib: Duration::ZERO, ..cluster(workers).action },
            ..cluster(workers)
        };
        for (workers, shards, seconds) in [(1, 1, 1), (2, 1, 1), (100, 1, 50), (100, 10, 5)] {
            let time = cluster(workers, shards).cold_start();
            assert_eq!(time, Duration::from_secs(seconds), "{workers} {shards}");
        }
    }
}
