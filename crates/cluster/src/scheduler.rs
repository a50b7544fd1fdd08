//! The calls to the scheduler.

use std::collections::HashMap;
use std::time::Duration;

use model::proto::{Platform, platform};
use proto::buildbarn::remoteworker::operation_queue_client::OperationQueueClient;
use proto::buildbarn::remoteworker::{SynchronizeRequest, SynchronizeResponse};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Request, Status};
use upstream::{Headers, UpstreamError};

use crate::config::Config;
use crate::session::Question;

/// The longest wait for an action. Buildbarn answers an idle worker after two minutes at most.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The scheduler, as one slot calls it.
pub(crate) struct Scheduler {
    client: OperationQueueClient<Channel>,
    headers: Headers,
    timeout: Duration,
    /// The request without what changes.
    template: SynchronizeRequest,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{}: {}", .0.code(), .0.message())]
    Failed(Box<Status>),
}

impl Scheduler {
    /// A connection that all slots share. To be called inside of a runtime.
    pub(crate) fn connect(config: &Config) -> Result<Channel, UpstreamError> {
        upstream::connect(&config.scheduler, &config.security, config.timeout)
    }

    /// The scheduler for the slot of that number.
    pub(crate) fn new(channel: Channel, config: &Config, slot: usize) -> Self {
        let worker_id =
            [("node", config.name.clone()), ("thread", slot.to_string())].map(|(key, value)| {
                let key: String = key.to_owned();
                (key, value)
            });
        Self {
            client: OperationQueueClient::new(channel),
            headers: config.headers.clone(),
            timeout: config.timeout,
            template: SynchronizeRequest {
                worker_id: HashMap::from(worker_id),
                instance_name_prefix: config.instance.as_str().to_owned(),
                platform: Some(platform(config)),
                size_class: config.size_class,
                ..Default::default()
            },
        }
    }

    /// Tells the scheduler the state of the slot.
    pub(crate) async fn synchronize(
        &self,
        question: Question,
    ) -> Result<SynchronizeResponse, CallError> {
        let bound = if question.may_wait { LONGEST_WAIT } else { self.timeout };
        let mut request = Request::new(SynchronizeRequest {
            current_state: Some(question.state),
            prefer_being_idle: question.prefer_being_idle,
            ..self.template.clone()
        });
        self.headers.add_to(request.metadata_mut());
        request.set_timeout(bound);
        let mut client = self.client.clone();
        match timeout(bound, client.synchronize(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(CallError::Failed(Box::new(status))),
            Err(_) => Err(CallError::TimedOut(bound)),
        }
    }
}

/// The properties, sorted as REAPI demands.
fn platform(config: &Config) -> Platform {
    let mut properties: Vec<_> = config
        .platform
        .iter()
        .map(|it| platform::Property { name: it.name.clone(), value: it.value.clone() })
        .collect();
    properties.sort_by(|a, b| (&a.name, &a.value).cmp(&(&b.name, &b.value)));
    Platform { properties }
}
