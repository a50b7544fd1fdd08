//! The scheduler of these tests beside what the real one answered.
//!
//! `recording.txt` has the answers of Buildbarn's `bb_scheduler` to a worker that says the things below. The test says
//! them to the scheduler of these tests, which must answer the same. Where `ACTIOND_TEST_BUILDBARN` names a real one, as
//! `WORKERS_ADDRESS,FRONTEND_ADDRESS`, the test says them to that one too: so the recording was made, and can be made
//! anew.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use proto::buildbarn::remoteworker::current_state::executing::ExecutionState;
use proto::buildbarn::remoteworker::operation_queue_client::OperationQueueClient;
use proto::buildbarn::remoteworker::{
    CurrentState, SynchronizeRequest, SynchronizeResponse, current_state, desired_state,
};
use testkit::proto::{ExecuteResponse, Platform, platform};
use testkit::{Action, Client, Kit, Outcome, eventually};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::scheduler::Scheduler;
use crate::{Cluster, ordered};

/// The variable with the addresses of the real scheduler.
const BUILDBARN: &str = "ACTIOND_TEST_BUILDBARN";

/// The answers of the real scheduler.
const RECORDING: &str = include_str!("recording.txt");

/// The property of the worker and the actions, so that nobody else's come between.
const PROPERTY: (&str, &str) = ("pool", "recording");

/// The time in which a call that does not wait is answered. A call that is not is taken for one that waits.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn the_scheduler_of_the_tests_answers_as_the_real_one(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let channel = connect(&cluster.scheduler.address())?;
    let of_double = Side::Double(&cluster.scheduler, cluster.storage.client());
    let answers = conversation(channel, of_double).await?;
    ensure!(answers == RECORDING, "the scheduler of the tests answered:\n{answers}");
    Ok(())
}

pub(crate) async fn the_real_scheduler_answers_as_it_was_recorded(_: Kit) -> Outcome {
    let Ok(addresses) = std::env::var(BUILDBARN) else {
        return testkit::skip(format!("{BUILDBARN} names no scheduler"));
    };
    let (workers, frontend) = addresses.split_once(',').context("two addresses")?;
    let frontend: SocketAddr = frontend.parse()?;
    let channel = connect(&format!("http://{workers}"))?;
    let answers = conversation(channel, Side::Real(Client::new(frontend))).await?;
    ensure!(answers == RECORDING, "the real scheduler answered:\n{answers}");
    Ok(())
}

fn connect(address: &str) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(address.replace("grpc://", "http://"))?.connect_lazy())
}

/// Where actions are given to the scheduler.
enum Side<'a> {
    Double(&'a Scheduler, Client),
    Real(Client),
}

impl Side<'_> {
    fn client(&self) -> &Client {
        let (Self::Double(_, client) | Self::Real(client)) = self;
        client
    }

    /// An action of that name, which is new in every run.
    fn action(&self, name: &str) -> Action {
        let salt = format!("{:?}", SystemTime::now());
        let (key, value) = PROPERTY;
        self.client().bare_action([name]).property(key, value).salt(&salt).do_not_cache()
    }

    /// Queues the action, until what is returned is dropped.
    async fn queue(&self, action: &Action) -> anyhow::Result<Queued> {
        match self {
            Self::Double(scheduler, _) => {
                Ok(Queued { _answer: Some(scheduler.push(ordered(action).await?)), task: None })
            }
            Self::Real(_) => {
                let mut operations = action.start().await?;
                // The first message says that it is queued.
                operations.message().await?.context("an operation")?;
                let task =
                    tokio::spawn(
                        async move { while let Ok(Some(_)) = operations.message().await {} },
                    );
                Ok(Queued { _answer: None, task: Some(task) })
            }
        }
    }
}

struct Queued {
    _answer: Option<tokio::sync::oneshot::Receiver<crate::scheduler::Answer>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The states that a worker tells.
#[derive(Clone, Copy)]
enum Tells<'a> {
    Idle,
    Running(&'a Action),
    Completed(&'a Action),
}

impl Tells<'_> {
    fn state(self) -> CurrentState {
        use current_state::{Executing, WorkerState};

        let executing = |action: &Action, state| {
            let action_digest = Some(action.encode().0.to_proto());
            WorkerState::Executing(Executing { action_digest, execution_state: Some(state) })
        };
        let state = match self {
            Self::Idle => WorkerState::Idle(()),
            Self::Running(action) => executing(action, ExecutionState::Running(())),
            Self::Completed(action) => {
                let response =
                    ExecuteResponse { result: Some(Default::default()), ..Default::default() };
                executing(action, ExecutionState::Completed(response))
            }
        };
        CurrentState { worker_state: Some(state) }
    }
}

/// A worker of that name, and its words.
struct Talk {
    client: OperationQueueClient<Channel>,
    names: Vec<(String, Action)>,
    text: String,
}

impl Talk {
    fn request(worker: &str, tells: Tells<'_>, prefer_being_idle: bool) -> SynchronizeRequest {
        let (name, value) = PROPERTY;
        let property = platform::Property { name: name.to_owned(), value: value.to_owned() };
        SynchronizeRequest {
            worker_id: HashMap::from([("node".to_owned(), worker.to_owned())]),
            platform: Some(Platform { properties: vec![property] }),
            current_state: Some(tells.state()),
            prefer_being_idle,
            ..Default::default()
        }
    }

    /// Says something that is answered without a wait, and writes down the answer.
    async fn says(&mut self, worker: &str, tells: Tells<'_>, prefers_idle: bool) -> Outcome {
        let request = Self::request(worker, tells, prefers_idle);
        let call = self.client.synchronize(Request::new(request));
        let answer = tokio::time::timeout(PATIENCE, call).await;
        let answer = match answer {
            Ok(answer) => self.in_words(answer.map(tonic::Response::into_inner)),
            Err(_) => "waits".to_owned(),
        };
        let of = self.told(tells);
        let idle = if prefers_idle { ", and prefers to be idle" } else { "" };
        writeln!(self.text, "{worker} {of}{idle}: {answer}")?;
        Ok(())
    }

    fn told(&self, tells: Tells<'_>) -> String {
        match tells {
            Tells::Idle => "is idle".to_owned(),
            Tells::Running(action) => format!("runs {}", self.name(action)),
            Tells::Completed(action) => format!("completed {}", self.name(action)),
        }
    }

    fn name(&self, action: &Action) -> &str {
        self.name_of(&action.encode().0.to_proto())
    }

    fn name_of(&self, digest: &testkit::proto::Digest) -> &str {
        let mut names = self.names.iter();
        let named = names.find(|(_, action)| action.encode().0.to_proto() == *digest);
        named.map_or("an action that nobody knows", |(name, _)| name)
    }

    fn in_words(&self, answer: Result<SynchronizeResponse, Status>) -> String {
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) => return format!("{:?}", status.code()),
        };
        let next = answer.next_synchronization_at.and_then(|time| SystemTime::try_from(time).ok());
        let is_later = next.is_some_and(|next| next > SystemTime::now());
        let desired = answer.desired_state.and_then(|state| state.worker_state);
        let wish = match desired {
            None => "go on".to_owned(),
            Some(desired_state::WorkerState::Idle(())) => "be idle".to_owned(),
            Some(desired_state::WorkerState::Executing(executing)) => {
                let is_whole = executing.action.is_some() && executing.digest_function != 0;
                let digest = executing.action_digest.unwrap_or_default();
                let whole = if is_whole { "" } else { " without its Action" };
                format!("run {}{whole}", self.name_of(&digest))
            }
        };
        format!("{wish}, call again {}", if is_later { "later" } else { "at once" })
    }
}

fn is_idle(answer: &SynchronizeResponse) -> bool {
    let desired = answer.desired_state.as_ref().and_then(|state| state.worker_state.as_ref());
    matches!(desired, Some(desired_state::WorkerState::Idle(())))
}

/// All that is said, with the answers.
async fn conversation(channel: Channel, side: Side<'_>) -> anyhow::Result<String> {
    let names = ["A", "B", "C", "D"];
    let [a, b, c, d] = names.map(|name| side.action(name));
    let actions = [a.clone(), b.clone(), c.clone(), d.clone()];
    let names = names.map(str::to_owned).into_iter().zip(actions);
    let client = OperationQueueClient::new(channel);
    let mut talk = Talk { client, names: names.collect(), text: String::new() };
    let (first, second) = ("first", "second");

    talk.says(first, Tells::Idle, true).await?;
    let _a = side.queue(&a).await?;
    talk.says(first, Tells::Idle, true).await?;
    talk.says(first, Tells::Idle, false).await?;
    talk.says(first, Tells::Running(&a), false).await?;
    talk.says(first, Tells::Running(&a), true).await?;
    // The answer with the order was lost.
    talk.says(first, Tells::Idle, false).await?;
    talk.says(first, Tells::Idle, true).await?;
    // As after an order that replaced another one.
    talk.says(first, Tells::Running(&b), false).await?;
    talk.says(first, Tells::Completed(&b), false).await?;
    let _b = side.queue(&b).await?;
    talk.says(first, Tells::Completed(&a), false).await?;
    talk.says(first, Tells::Completed(&a), false).await?;
    talk.says(first, Tells::Completed(&b), true).await?;
    talk.says(first, Tells::Completed(&b), true).await?;
    // As to a scheduler that was restarted.
    talk.says(second, Tells::Running(&a), false).await?;
    talk.says(second, Tells::Completed(&a), true).await?;
    let _c = side.queue(&c).await?;
    talk.says(second, Tells::Running(&a), false).await?;
    talk.says(second, Tells::Completed(&c), true).await?;

    // Two workers of one name, of which one waits.
    d.upload().await?;
    let mut waiting = talk.client.clone();
    let waits = tokio::spawn(async move {
        loop {
            let answer = waiting.synchronize(Talk::request(first, Tells::Idle, false)).await;
            // A scheduler ends the wait now and then, and the worker calls again.
            if answer.as_ref().is_ok_and(|answer| is_idle(answer.get_ref())) {
                continue;
            }
            return answer;
        }
    });
    match side {
        Side::Double(scheduler, _) => {
            eventually("the worker waits", || Ok(scheduler.is_called_by(first))).await?;
        }
        // The real one does not show it.
        Side::Real(_) => tokio::time::sleep(Duration::from_secs(2)).await,
    }
    talk.says(first, Tells::Idle, false).await?;
    let _d = side.queue(&d).await?;
    let answer = waits.await?.map(tonic::Response::into_inner);
    let answer = talk.in_words(answer);
    writeln!(talk.text, "{first} waited: {answer}")?;
    talk.says(first, Tells::Completed(&d), true).await?;
    Ok(talk.text)
}
