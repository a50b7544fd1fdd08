//! The guest's side of the control protocol.

mod memory;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, Timespec};
use tokio::sync::{Notify, Semaphore, mpsc};
use vm::control::{self, MemoryRelease, ReleasedMemory, SetTime, TimeSet};

use crate::transport::Connection;

/// The kernel's counters of actiondfs, in a kernel that keeps them.
const ACTIONDFS_STATS: &str = "/proc/actiondfs_stats";

/// Connections at a time. The host has one; more are somebody's mistake.
const MAX_CONNECTIONS: usize = 32;

/// Serves the control protocol.
pub struct Control {
    counters: Box<dyn Fn() -> String + Send + Sync>,
    shutdown: Notify,
}

impl Control {
    /// A service that adds `counters`, lines of a name and a number, to those of the kernel.
    pub fn new(counters: impl Fn() -> String + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { counters: Box::new(counters), shutdown: Notify::new() })
    }

    /// Waits until the host asks for the end.
    pub async fn shutdown_asked(&self) {
        self.shutdown.notified().await;
    }

    /// Serves connections until there are no more.
    pub async fn serve(self: Arc<Self>, mut connections: mpsc::Receiver<Connection>) {
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Some(mut connection) = connections.recv().await {
            // Never closed, so never an error.
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
            let control = Arc::clone(&self);
            tokio::spawn(async move {
                if let Err(error) = control::serve_connection(&mut connection, &*control).await {
                    tracing::warn!(%error, "a control connection");
                }
                drop(permit);
            });
        }
    }
}

impl control::Handler for Control {
    async fn actiondfs_stats(&self) -> Result<Vec<u8>, String> {
        let kernel = match std::fs::read(ACTIONDFS_STATS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        };
        let mut stats = kernel.map_err(|error| format!("{ACTIONDFS_STATS}: {error}"))?;
        stats.extend_from_slice((self.counters)().as_bytes());
        Ok(stats)
    }

    async fn shutdown(&self) -> Result<(), String> {
        tracing::info!("the host asks for the end");
        self.shutdown.notify_one();
        Ok(())
    }

    async fn set_time(&self, request: SetTime) -> Result<TimeSet, String> {
        let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let moved_ns = signed_difference_ns(request.since_epoch, before);
        let time = Timespec::try_from(request.since_epoch).map_err(|error| error.to_string())?;
        rustix::time::clock_settime(ClockId::Realtime, time)
            .map_err(|errno| format!("setting the clock: {errno}"))?;
        Ok(TimeSet { moved_ns })
    }

    async fn memory_pressure(&self, request: MemoryRelease) -> Result<ReleasedMemory, String> {
        // Reclaiming a gigabyte takes a while, in the kernel.
        tokio::task::spawn_blocking(move || memory::release(request.wanted_bytes))
            .await
            .map_err(|error| error.to_string())?
    }
}

/// `to` minus `from`, cut to what 64 bits hold: 292 years.
fn signed_difference_ns(to: Duration, from: Duration) -> i64 {
    let ns = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    if to >= from { ns(to - from) } else { -ns(from - to) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm::control::Handler as _;

    #[test]
    fn differences_have_signs_and_bounds() {
        let second = Duration::from_secs(1);
        assert_eq!(signed_difference_ns(3 * second, second), 2_000_000_000);
        assert_eq!(signed_difference_ns(second, 3 * second), -2_000_000_000);
        assert_eq!(signed_difference_ns(Duration::MAX, Duration::ZERO), i64::MAX);
        assert_eq!(signed_difference_ns(Duration::ZERO, Duration::MAX), -i64::MAX);
    }

    #[tokio::test]
    async fn counters_follow_those_of_the_kernel() {
        let control = Control::new(|| "cas_blobs 7\n".to_owned());
        let stats = control.actiondfs_stats().await.unwrap();
        assert!(stats.ends_with(b"cas_blobs 7\n"));
    }

    #[tokio::test]
    async fn the_end_is_noticed_also_by_who_waits_later() {
        let control = Control::new(String::new);
        control.shutdown().await.unwrap();
        control.shutdown_asked().await;
    }

    #[tokio::test]
    async fn times_that_no_clock_shows_are_refused() {
        let control = Control::new(String::new);
        let request = SetTime { since_epoch: Duration::from_secs(u64::MAX) };
        control.set_time(request).await.unwrap_err();
    }
}
