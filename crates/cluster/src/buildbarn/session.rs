//! The messages of a slot to the scheduler, and their times: decisions only, no calls and no clocks.
//!
//! ```text
//!             an order                     the action is over
//! ┌──────┐               ┌───────────┐                        ┌───────────┐
//! │ IDLE ├──────────────►│ EXECUTING ├───────────────────────►│ COMPLETED │
//! └──▲───┘               └─────┬─────┘                        └─────┬─────┘
//!    │    told to be idle      │          the scheduler knows       │ the next order
//!    └─────────────────────────┴────────────────────────────────────┴─► EXECUTING
//! ```
//!
//! A scheduler gives an action to an idle worker, and if the answer with it is lost, it believes that the worker
//! executes it. So after a call that failed the worker asks without waiting, and does not end before the scheduler is
//! known to believe that it is idle, or has taken it for dead.

use std::time::{Duration, Instant, SystemTime};

use model::proto::{Digest, ExecuteResponse, Timestamp};
use proto::buildbarn::remoteworker::{
    CurrentState, SynchronizeResponse, current_state, desired_state,
};

use crate::protocol::{Phase, Question};

/// A scheduler that was not called for so long after the time that it gave has taken the worker for dead. Buildbarn's
/// default.
const TAKEN_FOR_DEAD: Duration = Duration::from_secs(60);

/// The longest wait between two calls while an action runs, for a scheduler whose clock goes wrong. Buildbarn asks for
/// 10 s, and a call that comes early costs nothing.
const LATEST_CALL: Duration = Duration::from_secs(30);

/// The shortest one.
const EARLIEST_CALL: Duration = Duration::from_millis(500);

/// The state of the slot, as the scheduler is told it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    Idle,
    Executing(Digest),
    Completed(Digest, Box<ExecuteResponse>),
}

/// The parts that change from call to call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    pub(crate) state: CurrentState,
    pub(crate) prefer_being_idle: bool,
}

/// The wish of the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wish {
    Continue,
    Stop,
    Start(Box<desired_state::Executing>),
}

/// The state of one slot and the scheduler's view of it.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    /// Until when the scheduler may believe that an action runs here; `None` if it does not.
    believed_busy_until: Option<Instant>,
    due: Instant,
}

impl Session {
    pub(crate) fn new(now: Instant) -> Self {
        Self { state: State::Idle, believed_busy_until: None, due: now }
    }

    /// When the scheduler is to be called, if nothing happens before.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Whether the next call asks for an action and nothing else. It is not made while no action can run.
    pub(crate) fn would_wait(&self) -> bool {
        self.state == State::Idle && self.believed_busy_until.is_none()
    }

    /// Whether a worker that wants to end can do so without an action being lost.
    pub(crate) fn may_end(&self, now: Instant) -> bool {
        match self.state {
            State::Idle => self.believed_busy_until.is_none_or(|until| now > until),
            State::Executing(_) => false,
            State::Completed(..) => self.believed_busy_until.is_some_and(|until| now > until),
        }
    }

    /// The action that was ordered is over, or did not even begin.
    pub(crate) fn completed(&mut self, response: ExecuteResponse) {
        if let State::Executing(action) = &self.state {
            self.state = State::Completed(action.clone(), Box::new(response));
        }
    }

    /// The call to make now. `is_ready` says whether an action could run.
    pub(crate) fn question(
        &self,
        phase: Phase,
        is_ready: bool,
        is_draining: bool,
    ) -> Question<Report> {
        use current_state::executing::ExecutionState;
        use current_state::{Executing, WorkerState};

        let executing = |digest: &Digest, state| {
            let action_digest = Some(digest.clone());
            WorkerState::Executing(Executing { action_digest, execution_state: Some(state) })
        };
        let (state, prefers_idle) = match &self.state {
            State::Idle => (WorkerState::Idle(()), self.believed_busy_until.is_some()),
            State::Executing(digest) => {
                let state = match phase {
                    Phase::Fetching => ExecutionState::FetchingInputs(()),
                    Phase::Running => ExecutionState::Running(()),
                    Phase::Uploading => ExecutionState::UploadingOutputs(()),
                };
                (executing(digest, state), false)
            }
            State::Completed(digest, response) => {
                let state = ExecutionState::Completed((**response).clone());
                (executing(digest, state), !is_ready)
            }
        };
        let prefer_being_idle = prefers_idle || is_draining;
        let may_wait = !prefer_being_idle && !matches!(self.state, State::Executing(_));
        let state = CurrentState { worker_state: Some(state) };
        Question { message: Report { state, prefer_being_idle }, may_wait }
    }

    /// Whether it is known by the scheduler that there is nothing to wait for: the answer is out.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// The call failed: the scheduler may have given an action all the same.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.believed_busy_until.get_or_insert(now.max(self.due) + TAKEN_FOR_DEAD);
    }

    /// The scheduler answered, at `now` by the monotonic clock and `clock` by the one of the machine.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        clock: SystemTime,
        answer: SynchronizeResponse,
    ) -> Wish {
        let delay = delay(clock, answer.next_synchronization_at);
        self.due = now + delay;
        let desired = answer.desired_state.and_then(|desired| desired.worker_state);
        match desired {
            Some(desired_state::WorkerState::Executing(executing)) => {
                self.believed_busy_until = Some(self.due + TAKEN_FOR_DEAD);
                self.state = State::Executing(executing.action_digest.clone().unwrap_or_default());
                Wish::Start(Box::new(executing))
            }
            Some(desired_state::WorkerState::Idle(())) => {
                self.state = State::Idle;
                self.believed_busy_until = None;
                Wish::Stop
            }
            None if matches!(self.state, State::Executing(_)) => {
                self.believed_busy_until = Some(self.due + TAKEN_FOR_DEAD);
                Wish::Continue
            }
            None => {
                self.state = State::Idle;
                self.believed_busy_until = None;
                Wish::Continue
            }
        }
    }
}

/// The time until a call is due. The clocks of two machines differ, so that it is kept within bounds.
fn delay(clock: SystemTime, at: Option<Timestamp>) -> Duration {
    let at = at.and_then(|at| SystemTime::try_from(at).ok());
    let delay = at.and_then(|at| at.duration_since(clock).ok()).unwrap_or_default();
    delay.clamp(EARLIEST_CALL, LATEST_CALL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::buildbarn::remoteworker::DesiredState;

    struct Fixture {
        session: Session,
        now: Instant,
    }

    fn fixture() -> Fixture {
        let now = Instant::now();
        Fixture { session: Session::new(now), now }
    }

    fn digest(name: &str) -> Digest {
        Digest { hash: name.to_owned(), size_bytes: 1 }
    }

    fn order(name: &str) -> Option<desired_state::WorkerState> {
        let action_digest = Some(digest(name));
        let executing = desired_state::Executing { action_digest, ..Default::default() };
        Some(desired_state::WorkerState::Executing(executing))
    }

    const IDLE: Option<desired_state::WorkerState> = Some(desired_state::WorkerState::Idle(()));

    impl Fixture {
        fn answer(&mut self, seconds: u64, state: Option<desired_state::WorkerState>) -> Wish {
            let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
            let next = clock + Duration::from_secs(seconds);
            let answer = SynchronizeResponse {
                next_synchronization_at: Some(next.into()),
                desired_state: state.map(|state| DesiredState { worker_state: Some(state) }),
            };
            self.session.answered(self.now, clock, answer)
        }

        fn question(&self) -> Question<Report> {
            self.session.question(Phase::Running, true, false)
        }

        fn start(&mut self, name: &str) {
            assert!(matches!(self.answer(10, order(name)), Wish::Start(_)));
        }
    }

    #[test]
    fn an_idle_worker_waits_for_an_action() {
        let fixture = fixture();
        let question = fixture.question();
        assert!(question.may_wait && !question.message.prefer_being_idle);
        assert!(fixture.session.would_wait() && fixture.session.may_end(fixture.now));
    }

    #[test]
    fn an_executing_worker_calls_when_the_scheduler_says() {
        let mut fixture = fixture();
        fixture.start("a");
        assert_eq!(fixture.session.due(), fixture.now + Duration::from_secs(10));
        let question = fixture.question();
        assert!(!question.may_wait && !question.message.prefer_being_idle);
        assert!(!fixture.session.may_end(fixture.now + Duration::from_secs(3_600)));
        assert_eq!(fixture.answer(5, None), Wish::Continue);
        assert_eq!(fixture.session.due(), fixture.now + Duration::from_secs(5));
        assert!(!fixture.session.is_idle());
    }

    #[test]
    fn a_clock_that_goes_wrong_does_no_harm() {
        let mut fixture = fixture();
        for (seconds, expected) in
            [(0, EARLIEST_CALL), (7, Duration::from_secs(7)), (100_000, LATEST_CALL)]
        {
            fixture.answer(seconds, order("a"));
            assert_eq!(fixture.session.due(), fixture.now + expected);
        }
        assert_eq!(delay(SystemTime::now(), None), EARLIEST_CALL);
        let never = Timestamp { seconds: i64::MIN, nanos: -1 };
        assert_eq!(delay(SystemTime::now(), Some(never)), EARLIEST_CALL);
    }

    #[test]
    fn the_answer_to_a_result_is_the_next_action() {
        let mut fixture = fixture();
        fixture.start("a");
        fixture.session.completed(ExecuteResponse::default());
        let question = fixture.question();
        assert!(question.may_wait && !question.message.prefer_being_idle);
        assert!(!fixture.session.may_end(fixture.now), "the scheduler does not know the result");
        fixture.start("b");
        assert!(!fixture.session.is_idle());
    }

    #[test]
    fn a_worker_that_can_run_nothing_reports_its_result_and_wants_no_other() {
        let mut fixture = fixture();
        fixture.start("a");
        fixture.session.completed(ExecuteResponse::default());
        for (is_ready, is_draining) in [(false, false), (true, true)] {
            let question = fixture.session.question(Phase::Uploading, is_ready, is_draining);
            assert!(question.message.prefer_being_idle && !question.may_wait);
        }
        assert_eq!(fixture.answer(0, IDLE), Wish::Stop);
        assert!(fixture.session.may_end(fixture.now));
    }

    #[test]
    fn a_lost_answer_may_have_been_an_order() {
        let mut fixture = fixture();
        fixture.session.failed(fixture.now);
        assert!(!fixture.session.may_end(fixture.now) && !fixture.session.would_wait());
        let question = fixture.question();
        assert!(
            question.message.prefer_being_idle && !question.may_wait,
            "the next call does not wait"
        );
        let much_later = fixture.now + TAKEN_FOR_DEAD + Duration::from_secs(1);
        assert!(fixture.session.may_end(much_later), "the scheduler has forgotten this worker");
        assert_eq!(fixture.answer(0, IDLE), Wish::Stop);
        assert!(fixture.session.would_wait() && fixture.session.may_end(fixture.now));
    }

    #[test]
    fn an_order_replaces_what_runs() {
        let mut fixture = fixture();
        fixture.start("a");
        fixture.session.failed(fixture.now);
        fixture.start("b");
        assert_eq!(fixture.session.state, State::Executing(digest("b")));
        assert_eq!(fixture.answer(0, IDLE), Wish::Stop);
        assert!(fixture.session.is_idle());
    }

    #[test]
    fn a_scheduler_without_a_wish_has_taken_the_result() {
        let mut fixture = fixture();
        fixture.start("a");
        fixture.session.completed(ExecuteResponse::default());
        assert_eq!(fixture.answer(0, None), Wish::Continue);
        assert!(fixture.session.would_wait());
    }
}
