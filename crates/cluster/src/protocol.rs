//! The part of a slot that depends on the kind of scheduler.
//!
//! A slot asks its protocol for the next message, sends it, and does what the protocol makes of the answer. So a protocol
//! never runs or stops anything itself.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

use model::proto::ExecuteResponse;
use tonic::Status;
use upstream::{reason, was_not_sent};

use crate::assignment::{Assignment, AssignmentError};

/// The part of an action's way that it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its inputs are brought together.
    Fetching,
    /// Its command runs.
    Running,
    /// Its outputs are copied.
    Uploading,
}

/// A call that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question<M> {
    pub(crate) message: M,
    /// Whether the answer can take until there is an action.
    pub(crate) may_wait: bool,
}

/// The wish of the scheduler.
#[derive(Debug)]
pub(crate) enum Order {
    Continue,
    Stop,
    /// Stop what runs, and start this. One that can't be run is completed at once.
    Start(Box<Result<Assignment, AssignmentError>>),
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{}", reason(.0))]
    Failed(Box<Status>),
}

impl CallError {
    /// Whether the scheduler may know of the call.
    pub(crate) fn was_sent(&self) -> bool {
        match self {
            Self::TimedOut(_) => true,
            Self::Failed(status) => !was_not_sent(status),
        }
    }
}

/// One slot's conversation with the scheduler.
pub(crate) trait Protocol: Send {
    /// A message to the scheduler.
    type Message: Send;
    /// Its answer.
    type Answer: Send;

    /// When the scheduler is to be called, if nothing happens before.
    fn due(&self) -> Instant;

    /// Whether the next call asks for an action and nothing else. It is not made while no action can run.
    fn would_wait(&self) -> bool;

    /// Whether the next call repeats a result that the scheduler has answered, but not taken.
    fn would_repeat(&self) -> bool;

    /// Whether a worker that wants to end can do so without an action being lost.
    fn may_end(&self, now: Instant) -> bool;

    /// The call to make now. `is_ready` says whether an action could run.
    fn question(&self, phase: Phase, is_ready: bool, is_draining: bool) -> Question<Self::Message>;

    /// Makes the call.
    fn call(
        &self,
        question: Question<Self::Message>,
    ) -> impl Future<Output = Result<Self::Answer, CallError>> + Send;

    /// The scheduler answered, at `now` by the monotonic clock and `clock` by the one of the machine.
    fn answered(&mut self, now: Instant, clock: SystemTime, answer: Self::Answer) -> Order;

    /// The call failed, or was given up without an error. The scheduler may have given an action all the same.
    fn failed(&mut self, now: Instant, error: Option<&CallError>) -> Order;

    /// The action that was started is over, or did not even begin.
    fn completed(&mut self, response: ExecuteResponse);
}
