//! The Remote Workers API between a worker and a scheduler, as BuildGrid speaks it: bot sessions with leases.
//!
//! Each slot is a bot of its own, so that a session has at most one lease. A scheduler assigns leases to sessions and not
//! to calls: one that was assigned while a call broke off comes with the next call.

mod calls;
mod lease;
mod session;

use std::time::{Instant, SystemTime};

use model::proto::ExecuteResponse;
use model::{DigestFunctions, InstanceName};
use tonic::transport::Channel;

use crate::config::Config;
use crate::protocol::{CallError, Order, Phase, Protocol, Question};
use calls::Calls;
use session::{Answer, Report, Session, Wish};

/// One slot's conversation with a scheduler that speaks the Remote Workers API.
pub(crate) struct Bots {
    session: Session,
    calls: Calls,
    instance: InstanceName,
    functions: DigestFunctions,
}

impl Bots {
    /// The conversation of the slot of that number.
    pub(crate) fn new(channel: Channel, config: &Config, slot: usize) -> Self {
        Self {
            session: Session::new(Instant::now()),
            calls: Calls::new(channel, config, slot),
            instance: config.instance.clone(),
            functions: config.functions,
        }
    }

    fn order(&self, wish: Wish) -> Order {
        match wish {
            Wish::Continue => Order::Continue,
            Wish::Stop => Order::Stop,
            Wish::Start(payload) => {
                let assignment = lease::parse(payload, &self.instance, &self.functions);
                Order::Start(Box::new(assignment))
            }
        }
    }
}

impl Protocol for Bots {
    type Message = Report;
    type Answer = Answer;

    fn due(&self) -> Instant {
        self.session.due()
    }

    fn would_wait(&self) -> bool {
        self.session.would_wait()
    }

    fn would_repeat(&self) -> bool {
        self.session.would_repeat()
    }

    fn may_end(&self, now: Instant) -> bool {
        self.session.may_end(now)
    }

    fn question(&self, _: Phase, is_ready: bool, is_draining: bool) -> Question<Self::Message> {
        self.session.question(is_ready, is_draining)
    }

    async fn call(&self, question: Question<Self::Message>) -> Result<Self::Answer, CallError> {
        self.calls.call(question).await
    }

    fn answered(&mut self, now: Instant, clock: SystemTime, answer: Self::Answer) -> Order {
        let wish = self.session.answered(now, clock, answer);
        self.order(wish)
    }

    fn failed(&mut self, now: Instant, error: Option<&CallError>) -> Order {
        let wish = self.session.failed(now, error);
        self.order(wish)
    }

    fn completed(&mut self, response: ExecuteResponse) {
        self.session.completed(response);
    }
}
