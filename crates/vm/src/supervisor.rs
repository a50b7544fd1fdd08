//! The guest, from boot to stop, and back when it went away.
//!
//! ```text
//!               answers                    ended by itself
//!  Booting ────────────────► Ready ──────────────────────────► (back-off) ──► Booting
//!     │                        │      or no answer: killed         │
//!     │ the first time:        │ stop asked for,                   │ too often in a row:
//!     │ an error               │ at any time                       │ an error
//!     ▼                        ▼                                   ▼
//!  Stopped ◄──── Shutdown call, then, after a while, kill ──── Stopped
//! ```
//! One task owns all of that; others see [`Guest`] through a `watch` channel. The disk is the same
//! before and after a restart, so all that is lost with a guest is what ran in it.

mod backoff;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chain::Chain;
use tokio::sync::watch;

use crate::control::{CallError, Client};
use crate::guest::{Guest, Running};
use crate::keeper;
use crate::vmm::{Boot, StartError, Vmm};
use backoff::Backoff;

/// The time that a guest has to stop by itself: it lets running actions go, syncs a disk of any
/// size, and unmounts. After this it is killed, which costs nothing that was synced.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The wait between questions whether a booting guest answers.
const READY_PAUSE: Duration = Duration::from_millis(20);

/// The time that each step may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the VMM to come up.
    pub start: Duration,
    /// From then on, for the guest to answer.
    pub connect: Duration,
}

/// Errors of starting and keeping a guest.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The VMM does not come up.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The VMM did not come up in time.
    #[error("the VM did not start within {0:?}")]
    StartTimeout(Duration),
    /// The machine ended before the guest answered.
    #[error("the VM ended while booting: {0}")]
    EndedBooting(String),
    /// The guest does not answer. Its last words are in the log.
    #[error("the guest did not answer within {timeout:?}")]
    NoAnswer {
        /// The time that it had.
        timeout: Duration,
        /// The outcome of the last call.
        #[source]
        last: Option<CallError>,
    },
    /// It went away too often to be worth another try.
    #[error("the guest went away {0} times in a row")]
    GaveUp(u32),
}

/// Boots a guest and keeps it.
pub struct Supervisor {
    vmm: Arc<dyn Vmm>,
    boot: Boot,
    timeouts: Timeouts,
    guest: watch::Sender<Guest>,
}

/// The end of a guest's life.
enum Outcome {
    StopAsked,
    WentAway,
}

impl Supervisor {
    /// A supervisor of a guest that is not booted yet.
    pub fn new(vmm: Arc<dyn Vmm>, boot: Boot, timeouts: Timeouts) -> Self {
        Self { vmm, boot, timeouts, guest: watch::Sender::new(Guest::Booting) }
    }

    /// The guest as it is at any time.
    pub fn guest(&self) -> watch::Receiver<Guest> {
        self.guest.subscribe()
    }

    /// Boots the guest, boots it again when it goes away, and stops it when `stop` is ready.
    ///
    /// # Errors
    /// When the first boot fails, or too many later ones in a row; no guest is left running.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), SuperviseError> {
        let result = self.keep(stop).await;
        self.guest.send_replace(Guest::Stopped);
        result
    }

    async fn keep(&mut self, stop: impl Future<Output = ()>) -> Result<(), SuperviseError> {
        tokio::pin!(stop);
        let mut backoff = Backoff::default();
        let mut booted_before = false;
        loop {
            let booted = tokio::select! {
                booted = self.boot() => booted,
                // Dropping the boot's future kills what it had started.
                () = &mut stop => return Ok(()),
            };
            let since = Instant::now();
            match booted {
                Ok(running) => {
                    booted_before = true;
                    // The guest has made the file system on the disk, so the next boot must not make it again.
                    self.boot.format_cas = false;
                    self.guest.send_replace(Guest::Ready(Arc::clone(&running)));
                    if let Outcome::StopAsked = watch_over(&running, stop.as_mut()).await {
                        self.guest.send_replace(Guest::Stopped);
                        stop_cleanly(&running).await;
                        return Ok(());
                    }
                    self.guest.send_replace(Guest::Booting);
                }
                Err(error) if !booted_before => return Err(error),
                Err(error) => tracing::error!(error = %Chain(&error), "the guest did not boot"),
            }
            let wait = backoff.next(since.elapsed()).map_err(SuperviseError::GaveUp)?;
            tracing::info!(wait_ms = wait.as_millis() as u64, "booting the guest again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = &mut stop => return Ok(()),
            }
        }
    }

    /// Boots a machine and waits until the guest answers.
    async fn boot(&self) -> Result<Arc<Running>, SuperviseError> {
        let begun = Instant::now();
        tracing::info!(
            vmm = self.vmm.name(),
            memory_mib = self.boot.memory_mib,
            cpus = self.boot.cpus,
            "booting"
        );
        let machine = tokio::time::timeout(self.timeouts.start, self.vmm.start(&self.boot))
            .await
            .map_err(|_| SuperviseError::StartTimeout(self.timeouts.start))??;
        let running = Arc::new(Running { machine, control: Client::new() });
        let mut last = None;
        let answer = tokio::time::timeout(self.timeouts.connect, answers(&running, &mut last));
        tokio::select! {
            answer = answer => answer.map_err(|_| {
                SuperviseError::NoAnswer { timeout: self.timeouts.connect, last }
            })?,
            ended = running.machine.ended() => {
                return Err(SuperviseError::EndedBooting(ended.description));
            }
        }
        tracing::info!("guest ready in {} ms", begun.elapsed().as_millis());
        Ok(running)
    }
}

/// Asks until the guest answers. The question sets its clock, so that nothing it does has a wrong
/// time.
async fn answers(running: &Running, last: &mut Option<CallError>) {
    loop {
        match running.control.set_time(&*running.machine).await {
            Ok(_) => return,
            Err(error) => *last = Some(error),
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}

/// Until the guest goes away, stops to answer, or has to stop.
async fn watch_over(
    running: &Running,
    stop: std::pin::Pin<&mut impl Future<Output = ()>>,
) -> Outcome {
    tokio::select! {
        () = stop => return Outcome::StopAsked,
        ended = running.machine.ended() => {
            tracing::error!(reason = ended.description, "the guest went away");
        }
        () = keeper::keep(running) => {
            tracing::error!("the guest does not answer any more: it is killed");
            running.machine.kill();
            // Its disk must be let go before the next guest gets it.
            running.machine.ended().await;
        }
    }
    Outcome::WentAway
}

/// Asks the guest to stop, and makes it stop if it does not.
async fn stop_cleanly(running: &Running) {
    let begun = Instant::now();
    let stopped = tokio::time::timeout(STOP_TIMEOUT, async {
        if let Err(error) = running.control.shutdown(&*running.machine).await {
            tracing::warn!(error = %Chain(&error), "the guest can't be asked to stop");
            running.machine.kill();
        }
        running.machine.ended().await
    });
    if stopped.await.is_err() {
        tracing::warn!(after = ?STOP_TIMEOUT, "the guest did not stop: it is killed");
        running.machine.kill();
        running.machine.ended().await;
    }
    tracing::info!("guest stopped in {} ms", begun.elapsed().as_millis());
}

#[cfg(test)]
mod tests;
