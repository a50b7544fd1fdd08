//! One loop between the scheduler and the worker: at most one action at a time.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::Chain;
use model::proto::ExecuteResponse;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};

use crate::assignment::{Assignment, AssignmentError};
use crate::protocol::{CallError, Order, Phase, Protocol};
use crate::run::{self, Reins, Runner};

/// The pause after the first call that failed; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The shortest time between two calls that wait for an action, in case a scheduler answers at once without one,
/// and between two that tell of the same result.
const WAIT_MIN: Duration = Duration::from_millis(500);

/// The time without a failure after which the scheduler has come back. One that refuses every second call, such as that
/// of two workers with the same name, is called less and less often.
const STEADY: Duration = Duration::from_secs(10);

/// One slot.
pub(crate) struct Slot<P> {
    pub(crate) number: usize,
    pub(crate) runner: Arc<Runner>,
    protocol: P,
    pub(crate) draining: watch::Receiver<bool>,
    running: Option<Running>,
    failures: u32,
    failed_at: Instant,
}

/// An action that runs.
struct Running {
    task: JoinHandle<ExecuteResponse>,
    stop: watch::Sender<bool>,
    phase: watch::Receiver<Phase>,
}

impl<P: Protocol> Slot<P> {
    pub(crate) fn new(
        number: usize,
        runner: Arc<Runner>,
        protocol: P,
        draining: watch::Receiver<bool>,
    ) -> Self {
        let failed_at = Instant::now();
        Self { number, runner, protocol, draining, running: None, failures: 0, failed_at }
    }

    /// Takes actions until the worker drains and has none.
    pub(crate) async fn serve(mut self) {
        while !self.may_end() {
            self.wait().await;
            if !self.may_end() {
                self.call().await;
            }
        }
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    fn may_end(&self) -> bool {
        self.is_draining() && self.protocol.may_end(Instant::now())
    }

    /// Waits until there is something to tell.
    async fn wait(&mut self) {
        let Some(running) = &mut self.running else {
            if self.protocol.would_wait() && !self.runner.storage.is_up() {
                // No action is taken that could not be run.
                let mut draining = self.draining.clone();
                tokio::select! {
                    () = self.runner.storage.until_up() => {}
                    _ = draining.wait_for(|is_draining| *is_draining) => {}
                }
            }
            return;
        };
        tokio::select! {
            response = &mut running.task => {
                // An error means that the task panicked, which is logged.
                self.protocol.completed(response.unwrap_or_else(|_| run::lost()));
                self.running = None;
            }
            () = sleep_until(self.protocol.due().into()) => {}
        }
    }

    /// Tells the scheduler the state, and does as it says.
    async fn call(&mut self) {
        let phase = self.running.as_ref().map_or(Phase::Fetching, |it| *it.phase.borrow());
        let (is_up, is_draining) = (self.runner.storage.is_up(), self.is_draining());
        let question = self.protocol.question(phase, is_up, is_draining);
        let (may_wait, asked) = (question.may_wait, Instant::now());
        let answer = {
            let mut answer = pin!(self.protocol.call(question));
            let mut draining = self.draining.clone();
            tokio::select! {
                answer = &mut answer => Some(answer),
                _ = draining.wait_for(|is_draining| *is_draining), if may_wait => None,
            }
        };
        match answer {
            Some(Ok(answer)) => {
                self.runner.counters.answered();
                if self.failures > 0 && self.failed_at.elapsed() > STEADY {
                    self.failures = 0;
                    tracing::info!(slot = self.number, "the scheduler answers again");
                }
                let order = self.protocol.answered(Instant::now(), SystemTime::now(), answer);
                let is_idle = !matches!(order, Order::Start(_));
                self.obey(order).await;
                let is_early = asked.elapsed() < WAIT_MIN;
                if is_early && is_idle && (may_wait || self.protocol.would_repeat()) {
                    sleep(WAIT_MIN).await;
                }
            }
            Some(Err(error)) => self.failed(&error).await,
            // The call that waited was given up.
            None => {
                let order = self.protocol.failed(Instant::now(), None);
                self.obey(order).await;
            }
        }
    }

    async fn failed(&mut self, error: &CallError) {
        self.runner.counters.failed();
        if self.failures == 0 {
            let text = Chain(error).to_string();
            tracing::warn!(slot = self.number, error = text, "the scheduler does not answer");
        }
        (self.failures, self.failed_at) = (self.failures.saturating_add(1), Instant::now());
        let order = self.protocol.failed(Instant::now(), Some(error));
        self.obey(order).await;
        let was_draining = self.is_draining();
        let mut draining = self.draining.clone();
        tokio::select! {
            () = sleep(pause(self.failures, chance())) => {}
            _ = draining.wait_for(|is_draining| *is_draining), if !was_draining => {}
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Continue => {}
            Order::Stop => self.stop().await,
            Order::Start(assignment) => {
                self.stop().await;
                self.start(*assignment);
            }
        }
    }

    /// Ends what runs, and forgets its answer.
    async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.runner.counters.stopped();
        tracing::info!(slot = self.number, "the scheduler does not want the action any more");
        running.stop.send_replace(true);
        // An error means that the task panicked, which is logged.
        let _ = running.task.await;
    }

    fn start(&mut self, assignment: Result<Assignment, AssignmentError>) {
        self.runner.counters.ordered();
        let assignment = match assignment {
            Ok(assignment) => assignment,
            Err(error) => {
                let text = Chain(&error).to_string();
                tracing::warn!(error = text, "the scheduler sent an action that can't be run");
                return self.protocol.completed(run::refused(&error));
            }
        };
        let (stop, is_stopped) = watch::channel(false);
        let (phase_sender, phase) = watch::channel(Phase::Fetching);
        let (runner, reins) = (Arc::clone(&self.runner), Reins { is_stopped, phase: phase_sender });
        let task = tokio::spawn(async move { runner.run(assignment, reins).await });
        self.running = Some(Running { task, stop, phase });
    }
}

/// The pause after that many calls failed: up to all of it by chance, so that the workers of a cluster do not call a
/// scheduler that comes back all at once.
fn pause(failures: u32, chance: u8) -> Duration {
    let longest = PAUSE_FIRST.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
    longest / 2 + longest.mul_f64(f64::from(chance) / 512.0)
}

/// A number that nobody foresees.
fn chance() -> u8 {
    uuid::Uuid::new_v4().as_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        for failures in [1, 2, 5, 1_000] {
            let (short, long) = (pause(failures, 0), pause(failures, 255));
            assert!(short < long && long <= PAUSE_MAX, "{failures}");
        }
        assert!(pause(1, 255) < pause(3, 0));
        assert!(pause(1_000, 0) >= PAUSE_MAX / 2);
    }
}
