//! One loop between the scheduler and the worker: at most one action at a time.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::Chain;
use model::proto::{Digest, ExecuteResponse};
use proto::buildbarn::remoteworker::desired_state::Executing;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};

use crate::assignment::Assignment;
use crate::run::{self, Reins, Runner};
use crate::scheduler::Scheduler;
use crate::session::{Order, Phase, Session};

/// The pause after the first call that failed; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The shortest time between two calls that wait for an action, should a scheduler answer at once that there is none.
const WAIT_MIN: Duration = Duration::from_millis(500);

/// One slot.
pub(crate) struct Slot {
    pub(crate) number: usize,
    pub(crate) runner: Arc<Runner>,
    pub(crate) scheduler: Scheduler,
    pub(crate) draining: watch::Receiver<bool>,
    running: Option<Running>,
    failures: u32,
}

/// An action that runs.
struct Running {
    action: Digest,
    task: JoinHandle<ExecuteResponse>,
    stop: watch::Sender<bool>,
    phase: watch::Receiver<Phase>,
}

impl Slot {
    pub(crate) fn new(
        number: usize,
        runner: Arc<Runner>,
        scheduler: Scheduler,
        draining: watch::Receiver<bool>,
    ) -> Self {
        Self { number, runner, scheduler, draining, running: None, failures: 0 }
    }

    /// Takes actions until the worker drains and has none.
    pub(crate) async fn serve(mut self) {
        let mut session = Session::new(Instant::now());
        while !(self.is_draining() && session.may_end(Instant::now())) {
            self.wait(&mut session).await;
            self.call(&mut session).await;
        }
    }

    fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Waits until there is something to tell.
    async fn wait(&mut self, session: &mut Session) {
        let Some(running) = &mut self.running else {
            if session.would_wait() && !self.runner.storage.is_up() {
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
                let response = response.unwrap_or_else(|_| run::lost());
                session.completed(running.action.clone(), response);
                self.running = None;
            }
            () = sleep_until(session.due().into()) => {}
        }
    }

    /// Tells the scheduler the state, and does as it says.
    async fn call(&mut self, session: &mut Session) {
        let is_draining = self.is_draining();
        if is_draining && session.may_end(Instant::now()) {
            return;
        }
        let phase = self.running.as_ref().map_or(Phase::Fetching, |it| *it.phase.borrow());
        let question = session.question(phase, self.runner.storage.is_up(), is_draining);
        let (may_wait, asked) = (question.may_wait, Instant::now());
        let answer = {
            let mut answer = pin!(self.scheduler.synchronize(question));
            let mut draining = self.draining.clone();
            tokio::select! {
                answer = &mut answer => Some(answer),
                _ = draining.wait_for(|is_draining| *is_draining), if may_wait => None,
            }
        };
        match answer {
            Some(Ok(answer)) => {
                if self.failures > 0 {
                    self.failures = 0;
                    tracing::info!(slot = self.number, "the scheduler answers again");
                }
                let order = session.answered(Instant::now(), SystemTime::now(), answer);
                let is_idle = !matches!(order, Order::Start(_));
                self.obey(order, session).await;
                if may_wait && is_idle && asked.elapsed() < WAIT_MIN {
                    sleep(WAIT_MIN).await;
                }
            }
            Some(Err(error)) => {
                session.failed(Instant::now());
                if self.failures == 0 {
                    let error = Chain(&error).to_string();
                    tracing::warn!(slot = self.number, error, "the scheduler does not answer");
                }
                self.failures = self.failures.saturating_add(1);
                sleep(pause(self.failures, chance())).await;
            }
            // The call that waited was given up.
            None => session.failed(Instant::now()),
        }
    }

    async fn obey(&mut self, order: Order, session: &mut Session) {
        match order {
            Order::Continue => {}
            Order::Stop => self.stop().await,
            Order::Start(executing) => {
                self.stop().await;
                self.start(*executing, session);
            }
        }
    }

    /// Ends what runs, and forgets its answer.
    async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        tracing::info!(slot = self.number, "the scheduler does not want the action any more");
        running.stop.send_replace(true);
        // An error means that the task panicked, which is logged.
        let _ = running.task.await;
    }

    fn start(&mut self, executing: Executing, session: &mut Session) {
        let action = executing.action_digest.clone().unwrap_or_default();
        let config = &self.runner.config;
        let assignment = match Assignment::parse(executing, &config.instance, &config.functions) {
            Ok(assignment) => assignment,
            Err(error) => {
                let refused = run::refused(&error);
                let error = Chain(&error).to_string();
                tracing::warn!(error, "the scheduler sent an action that can't be run");
                return session.completed(action, refused);
            }
        };
        session.started(action.clone());
        let (stop, is_stopped) = watch::channel(false);
        let (phase_sender, phase) = watch::channel(Phase::Fetching);
        let (runner, reins) = (Arc::clone(&self.runner), Reins { is_stopped, phase: phase_sender });
        let task = tokio::spawn(async move { runner.run(assignment, reins).await });
        self.running = Some(Running { action, task, stop, phase });
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
