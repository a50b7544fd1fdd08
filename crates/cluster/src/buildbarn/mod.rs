//! Buildbarn's protocol between a worker and its scheduler: one call, `Synchronize`.

mod order;
mod scheduler;
mod session;

use std::time::{Instant, SystemTime};

use model::proto::ExecuteResponse;
use model::{DigestFunctions, InstanceName};
use proto::buildbarn::remoteworker::SynchronizeResponse;
use tonic::transport::Channel;

use crate::config::Config;
use crate::protocol::{CallError, Order, Phase, Protocol, Question};
use scheduler::Scheduler;
use session::{Session, Wish};

/// One slot's conversation with Buildbarn's scheduler.
pub(crate) struct Buildbarn {
    session: Session,
    scheduler: Scheduler,
    prefix: InstanceName,
    functions: DigestFunctions,
}

impl Buildbarn {
    /// The conversation of the slot of that number.
    pub(crate) fn new(channel: Channel, config: &Config, slot: usize) -> Self {
        Self {
            session: Session::new(Instant::now()),
            scheduler: Scheduler::new(channel, config, slot),
            prefix: config.instance.clone(),
            functions: config.functions,
        }
    }
}

impl Protocol for Buildbarn {
    type Message = session::Report;
    type Answer = SynchronizeResponse;

    fn due(&self) -> Instant {
        self.session.due()
    }

    fn would_wait(&self) -> bool {
        self.session.would_wait()
    }

    fn would_repeat(&self) -> bool {
        // Every answer of the scheduler ends the action.
        false
    }

    fn may_end(&self, now: Instant) -> bool {
        self.session.may_end(now)
    }

    fn question(&self, phase: Phase, is_ready: bool, is_draining: bool) -> Question<Self::Message> {
        self.session.question(phase, is_ready, is_draining)
    }

    async fn call(&self, question: Question<Self::Message>) -> Result<Self::Answer, CallError> {
        self.scheduler.synchronize(question).await
    }

    fn answered(&mut self, now: Instant, clock: SystemTime, answer: Self::Answer) -> Order {
        match self.session.answered(now, clock, answer) {
            Wish::Continue => Order::Continue,
            Wish::Stop => Order::Stop,
            Wish::Start(executing) => {
                let assignment = order::parse(*executing, &self.prefix, &self.functions);
                Order::Start(Box::new(assignment))
            }
        }
    }

    fn failed(&mut self, now: Instant, error: Option<&CallError>) -> Order {
        if error.is_none_or(CallError::was_sent) {
            self.session.failed(now);
        }
        Order::Continue
    }

    fn completed(&mut self, response: ExecuteResponse) {
        self.session.completed(response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use tonic::Status;
    use upstream::{Headers, Security};

    use crate::config::SchedulerProtocol;

    fn config() -> Config {
        Config {
            protocol: SchedulerProtocol::Buildbarn,
            // Nothing listens there.
            scheduler: "grpc://127.0.0.1:1".parse().unwrap(),
            security: Security::default(),
            headers: Headers::default(),
            timeout: Duration::from_secs(300),
            instance: InstanceName::default(),
            platform: Vec::new(),
            size_class: 0,
            name: "w".to_owned(),
            slots: NonZeroUsize::MIN,
            browser: None,
            functions: DigestFunctions::default(),
        }
    }

    #[tokio::test]
    async fn a_call_that_reached_nobody_brought_no_action() {
        let config = config();
        let channel =
            upstream::connect(&config.scheduler, &config.security, config.timeout).unwrap();
        let mut buildbarn = Buildbarn::new(channel, &config, 0);
        let question = buildbarn.question(Phase::Fetching, true, false);
        let error = buildbarn.call(question).await.unwrap_err();
        let now = Instant::now();
        buildbarn.failed(now, Some(&error));
        assert!(buildbarn.may_end(now), "{error}");
        let error = CallError::Failed(Box::new(Status::unavailable("the connection broke")));
        buildbarn.failed(now, Some(&error));
        assert!(!buildbarn.may_end(now), "an action may be on its way");
    }
}
