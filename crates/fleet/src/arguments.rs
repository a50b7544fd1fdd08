//! The cluster and the actions as the command line has them. The defaults of costs were measured; `docs/scale.md` tells
//! how.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::cluster::{Action, Cluster};
use crate::simulation::Course;

/// Simulates clusters of actiond workers under Buildbarn.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Arguments {
    /// Numbers of workers, each a line of the table
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,10,1000,10000")]
    pub(crate) workers: Vec<usize>,
    /// Actions that a worker runs at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    slots: usize,
    /// The mean time for which a command runs, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    run_seconds: f64,
    /// Schedulers, each for the workers and clients of some instance names
    #[arg(long, value_name = "N", default_value_t = 1)]
    schedulers: usize,
    /// Cores that a scheduler can keep busy
    #[arg(long, value_name = "N", default_value_t = 4.0)]
    scheduler_cores: f64,
    /// Machines of the storage
    #[arg(long, value_name = "N", default_value_t = 1)]
    shards: usize,
    /// Cores of a machine of the storage
    #[arg(long, value_name = "N", default_value_t = 16.0)]
    shard_cores: f64,
    /// The link of a machine of the storage, in Gbit a second
    #[arg(long, value_name = "GBIT", default_value_t = 25.0)]
    shard_gbit: f64,
    /// The link of a worker, in Gbit a second
    #[arg(long, value_name = "GBIT", default_value_t = 10.0)]
    worker_gbit: f64,
    /// Bytes that all actions need and each worker fetches once, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 500)]
    common_mib: u64,
    /// Inputs of an action that its worker does not have, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 20)]
    input_kib: u64,
    /// Outputs of an action, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 20)]
    output_kib: u64,
    /// Bytes between an action's client and the storage, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 40)]
    client_kib: u64,
    /// Processor time of the scheduler for an action, in microseconds of one core
    #[arg(long, value_name = "US", default_value_t = 1_000)]
    scheduler_us: u64,
    /// Processor time of the scheduler for a call amid an action, in microseconds of one core
    #[arg(long, value_name = "US", default_value_t = 140)]
    check_in_us: u64,
    /// Processor time of the storage for the calls of an action, in microseconds of one core
    #[arg(long, value_name = "US", default_value_t = 6_000)]
    storage_us: u64,
    /// Processor time of the storage for a MiB, in microseconds of one core
    #[arg(long, value_name = "US", default_value_t = 1_700)]
    storage_mib_us: u64,
    /// The time for which the schedulers are away, in seconds
    #[arg(long, value_name = "S", default_value_t = 10)]
    outage_seconds: u64,
    /// The start of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Bytes a second of a link.
fn link(gbit: f64) -> u64 {
    (gbit * 1e9 / 8.0) as u64
}

impl Arguments {
    /// The cluster with that number of workers.
    ///
    /// # Errors
    /// When it has a number that no cluster has.
    pub(crate) fn cluster(&self, workers: usize) -> Result<Cluster> {
        let counts = [workers, self.slots, self.schedulers, self.shards];
        ensure!(counts.iter().all(|count| *count > 0), "a cluster has at least one of each part");
        ensure!(workers.saturating_mul(self.slots) <= 10_000_000, "give at most 10,000,000 slots");
        let sizes = [
            self.run_seconds,
            self.scheduler_cores,
            self.shard_cores,
            self.shard_gbit,
            self.worker_gbit,
        ];
        let is_plain = |size: &f64| (0.001..=100_000.0).contains(size);
        ensure!(sizes.iter().all(is_plain), "give times, cores and links from 0.001 to 100000");
        let micros = Duration::from_micros;
        Ok(Cluster {
            workers,
            slots: self.slots,
            schedulers: self.schedulers.min(workers),
            scheduler_cores: self.scheduler_cores,
            shards: self.shards,
            shard_cores: self.shard_cores,
            shard_link: link(self.shard_gbit),
            worker_link: link(self.worker_gbit),
            common_bytes: self.common_mib << 20,
            action: Action {
                run: Duration::from_secs_f64(self.run_seconds),
                scheduler: micros(self.scheduler_us),
                check_in: micros(self.check_in_us),
                check_in_every: Duration::from_secs(10),
                storage: micros(self.storage_us),
                storage_mib: micros(self.storage_mib_us),
                input_bytes: self.input_kib << 10,
                output_bytes: self.output_kib << 10,
                client_bytes: self.client_kib << 10,
            },
        })
    }

    pub(crate) fn course(&self) -> Course {
        Course {
            warm_up: Duration::from_secs(60),
            measured: Duration::from_secs(60),
            outage: Duration::from_secs(self.outage_seconds),
            seed: self.seed,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The cluster of the defaults.
    pub(crate) fn cluster(workers: usize) -> Cluster {
        Arguments::parse_from(["actiond-fleet"]).cluster(workers).unwrap()
    }

    #[test]
    fn no_cluster_is_without_a_part() {
        let refused = |words: &[&str]| {
            let words = ["actiond-fleet"].iter().chain(words);
            Arguments::try_parse_from(words).unwrap().cluster(1).is_err()
        };
        for flag in
            ["--slots=0", "--shards=0", "--schedulers=0", "--shard-gbit=0", "--run-seconds=NaN"]
        {
            assert!(refused(&[flag]), "{flag}");
        }
        assert!(!refused(&[]));
    }
}
