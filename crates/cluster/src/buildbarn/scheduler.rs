//! The calls to the scheduler.

use std::collections::HashMap;
use std::time::Duration;

use model::proto::{Platform, platform};
use proto::buildbarn::remoteworker::operation_queue_client::OperationQueueClient;
use proto::buildbarn::remoteworker::{SynchronizeRequest, SynchronizeResponse};
use tokio::time::timeout;
use tonic::Request;
use tonic::transport::Channel;
use upstream::Headers;

use crate::config::Config;
use crate::protocol::{CallError, Question};

use super::session::Report;

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

impl Scheduler {
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
        question: Question<Report>,
    ) -> Result<SynchronizeResponse, CallError> {
        let bound = if question.may_wait { LONGEST_WAIT } else { self.timeout };
        let mut request = Request::new(SynchronizeRequest {
            current_state: Some(question.message.state),
            prefer_being_idle: question.message.prefer_being_idle,
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
