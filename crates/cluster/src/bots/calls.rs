//! The calls to the scheduler.

use std::time::Duration;

use model::proto;
use proto::google::devtools::remoteworkers::v1test2::bots_client::BotsClient;
use proto::google::devtools::remoteworkers::v1test2::{
    BotSession, CreateBotSessionRequest, Device, UpdateBotSessionRequest, Worker, device,
};
use tokio::time::timeout;
use tonic::Request;
use tonic::transport::Channel;
use upstream::Headers;

use crate::config::Config;
use crate::protocol::{CallError, Question};

use super::session::{Answer, Report};

/// The longest wait for a lease. BuildGrid answers an idle bot after four fifths of it, or of the time after which it
/// takes a silent bot for dead, if that is shorter.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// The scheduler, as one slot calls it.
pub(super) struct Calls {
    client: BotsClient<Channel>,
    headers: Headers,
    timeout: Duration,
    parent: String,
    /// The session without what changes.
    template: BotSession,
}

impl Calls {
    /// The scheduler for the slot of that number.
    pub(super) fn new(channel: Channel, config: &Config, slot: usize) -> Self {
        Self {
            client: BotsClient::new(channel),
            headers: config.headers.clone(),
            timeout: config.timeout,
            parent: config.instance.as_str().to_owned(),
            template: BotSession {
                bot_id: format!("{}/{slot}", config.name),
                worker: Some(worker(config)),
                ..BotSession::default()
            },
        }
    }

    /// Creates the session, or tells the scheduler its state.
    pub(super) async fn call(&self, question: Question<Report>) -> Result<Answer, CallError> {
        let bound = if question.may_wait { LONGEST_WAIT } else { self.timeout };
        let Report { name, version, status, leases } = question.message;
        let session = BotSession {
            status: status.into(),
            version,
            leases,
            name: name.clone().unwrap_or_default(),
            ..self.template.clone()
        };
        let mut client = self.client.clone();
        let answer = async {
            match name {
                None => {
                    let parent = self.parent.clone();
                    let request = CreateBotSessionRequest { parent, bot_session: Some(session) };
                    client.create_bot_session(self.request(request, bound)).await
                }
                Some(name) => {
                    let paths = ["status", "leases", "version"].map(str::to_owned).to_vec();
                    let request = UpdateBotSessionRequest {
                        name,
                        bot_session: Some(session),
                        update_mask: Some(prost_types::FieldMask { paths }),
                    };
                    client.update_bot_session(self.request(request, bound)).await
                }
            }
        };
        match timeout(bound, answer).await {
            Ok(Ok(session)) => Ok(Answer { told: status, session: session.into_inner() }),
            Ok(Err(status)) => Err(CallError::Failed(Box::new(status))),
            Err(_) => Err(CallError::TimedOut(bound)),
        }
    }

    fn request<T>(&self, message: T, bound: Duration) -> Request<T> {
        let mut request = Request::new(message);
        self.headers.add_to(request.metadata_mut());
        request.set_timeout(bound);
        request
    }
}

/// This machine, with the properties that actions may ask for.
fn worker(config: &Config) -> Worker {
    let properties = config.platform.iter();
    let properties = properties
        .map(|it| device::Property { key: it.name.clone(), value: it.value.clone() })
        .collect();
    let device = Device { handle: config.name.clone(), properties };
    Worker { devices: vec![device], ..Worker::default() }
}
