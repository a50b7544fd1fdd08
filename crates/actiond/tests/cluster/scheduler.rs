//! A scheduler that speaks Buildbarn's worker protocol, for tests: one queue, and no more of the real one's behaviour
//! than workers see.
//!
//! As the real one does, it sends an action again to a worker that says it is idle, ignores results of other actions than
//! the worker's, and takes a worker for dead that does not call in time: then the client of its action is told
//! UNAVAILABLE, and asks again.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use proto::buildbarn::remoteworker::current_state::WorkerState;
use proto::buildbarn::remoteworker::current_state::executing::ExecutionState;
use proto::buildbarn::remoteworker::desired_state::{self, Executing};
use proto::buildbarn::remoteworker::{
    CurrentState, DesiredState, SynchronizeRequest, SynchronizeResponse,
};
use testkit::proto::{Action, ExecuteResponse};
use testkit::{Digest, eventually, eventually_async};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The time until a busy worker has to call again.
const CHECK_IN: Duration = Duration::from_millis(500);

/// The time after that until it is taken for dead. A worker on a busy machine must not be.
const GRACE: Duration = Duration::from_secs(300);

/// The same where a test waits for it.
const SHORT_GRACE: Duration = Duration::from_secs(3);

/// The longest wait of an idle worker.
const IDLE_WAIT: Duration = Duration::from_secs(2);

/// A scheduler; when dropped, its connections break.
pub(crate) struct Scheduler {
    queue: Arc<Queue>,
    address: SocketAddr,
    /// All of the server's tasks, with those of its connections.
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    pushed: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Task>>,
    workers: BTreeMap<String, Known>,
    requests: Vec<SynchronizeRequest>,
    gives_up_soon: bool,
}

/// A worker that has called.
#[derive(Default)]
struct Known {
    task: Option<Arc<Task>>,
    /// The end of its last call. `None` while it calls.
    called_at: Option<Instant>,
}

struct Task {
    executing: Executing,
    answer: Mutex<Option<oneshot::Sender<Answer>>>,
}

/// The answers for the client of an action.
#[derive(Debug)]
pub(crate) enum Answer {
    Done(Box<ExecuteResponse>),
    /// The worker did not call any more.
    WorkerLost,
}

impl Scheduler {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn start_at(unbound: SocketAddr) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let queue = Arc::new(Queue::default());
        let (service, of_reaper) = (Synchronizing(Arc::clone(&queue)), Arc::clone(&queue));
        let address = runtime.spawn(async move {
            let listener = TcpListener::bind(unbound).await?;
            let address = listener.local_addr()?;
            let incoming = tonic::transport::server::TcpIncoming::from(listener);
            tokio::spawn(async move {
                let server = tonic::transport::Server::builder().add_service(service);
                server.serve_with_incoming(incoming).await.expect("the scheduler serves");
            });
            tokio::spawn(async move {
                loop {
                    of_reaper.reap();
                    tokio::time::sleep(CHECK_IN / 5).await;
                }
            });
            anyhow::Ok(address)
        });
        // A runtime must not be dropped inside of another one.
        let mut scheduler = Self { queue, address: unbound, runtime: Some(runtime) };
        scheduler.address = address.await??;
        Ok(scheduler)
    }

    /// From now on a worker that does not call is taken for dead after seconds. For tests that wait for that, and
    /// whose other workers may be taken for dead by mistake.
    pub(crate) fn give_up_soon(&self) {
        self.queue.lock().gives_up_soon = true;
    }

    /// Whether a worker of that name waits for an action.
    pub(crate) fn is_called_by(&self, name: &str) -> bool {
        let node = format!("{:?}", BTreeMap::from([("node", name)]));
        self.queue.lock().workers.get(&node).is_some_and(|known| known.called_at.is_none())
    }

    /// Forgets everything and listens at the same address again.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        let address = self.address;
        let restarted = async || {
            // The port is free when the old server is gone.
            match Self::start_at(address).await {
                Ok(new) => *self = new,
                Err(_) => return Ok(false),
            }
            Ok(true)
        };
        eventually_async("the scheduler listens again", restarted).await
    }

    /// Breaks all connections and forgets everything.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // Clients of the real one lose their streams.
        let mut state = self.queue.lock();
        state.waiting.clear();
        state.workers.clear();
    }

    pub(crate) fn address(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub(crate) fn socket_address(&self) -> SocketAddr {
        self.address
    }

    /// Queues an action.
    pub(crate) fn push(&self, executing: Executing) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let task = Arc::new(Task { executing, answer: Mutex::new(Some(sender)) });
        self.queue.lock().waiting.push_back(task);
        self.queue.pushed.notify_waiters();
        receiver
    }

    /// Runs an action, and asks again when its worker is lost, as Bazel does.
    pub(crate) async fn run(&self, executing: Executing) -> anyhow::Result<ExecuteResponse> {
        loop {
            match self.push(executing.clone()).await? {
                Answer::Done(response) => return Ok(*response),
                Answer::WorkerLost => {}
            }
        }
    }

    /// Takes the action away from the worker that has it.
    pub(crate) fn drop_action(&self, action: &Digest) {
        let digest = Some(action.to_proto());
        for known in self.queue.lock().workers.values_mut() {
            known.task = known.task.take().filter(|task| task.executing.action_digest != digest);
        }
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<SynchronizeRequest> {
        self.queue.lock().requests.clone()
    }

    /// Waits until a worker has told that the command of the action runs.
    pub(crate) async fn running(&self, action: &Digest) -> anyhow::Result<()> {
        self.running_on(action, None).await
    }

    /// The same for a worker of that name.
    pub(crate) async fn running_on(
        &self,
        action: &Digest,
        name: Option<&str>,
    ) -> anyhow::Result<()> {
        let digest = action.to_proto();
        let is_of = |request: &SynchronizeRequest| {
            name.is_none_or(|name| request.worker_id.get("node").is_some_and(|node| node == name))
        };
        eventually("the action runs", || {
            Ok(self.requests().iter().any(|request| {
                let state = executing(request.current_state.as_ref());
                let runs = state.is_some_and(|(of, state)| {
                    of == Some(&digest) && matches!(state, ExecutionState::Running(()))
                });
                runs && is_of(request)
            }))
        })
        .await
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The order for an action.
pub(crate) fn order(digest: &Digest, action: Action) -> Executing {
    Executing {
        action_digest: Some(digest.to_proto()),
        action: Some(action),
        digest_function: digest.function().to_proto(),
        queued_timestamp: Some(SystemTime::now().into()),
        ..Default::default()
    }
}

fn executing(
    state: Option<&CurrentState>,
) -> Option<(Option<&testkit::proto::Digest>, &ExecutionState)> {
    match state?.worker_state.as_ref()? {
        WorkerState::Idle(()) => None,
        WorkerState::Executing(executing) => {
            Some((executing.action_digest.as_ref(), executing.execution_state.as_ref()?))
        }
    }
}

/// A worker that calls. Dropped, also when the call breaks, its time to call again begins.
struct Calling<'a> {
    queue: &'a Queue,
    worker: String,
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if let Some(known) = self.queue.lock().workers.get_mut(&self.worker) {
            known.called_at = Some(Instant::now());
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reap(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let grace = if state.gives_up_soon { SHORT_GRACE } else { GRACE };
        let is_dead = |known: &Known| known.called_at.is_some_and(|at| at + CHECK_IN + grace < now);
        let lost: Vec<_> = state.workers.extract_if(.., |_, known| is_dead(known)).collect();
        for (_, known) in lost {
            if let Some(task) = known.task {
                task.answer(Answer::WorkerLost);
            }
        }
    }

    async fn synchronize(
        &self,
        request: SynchronizeRequest,
    ) -> Result<SynchronizeResponse, Status> {
        let worker: BTreeMap<_, _> = request.worker_id.iter().collect();
        let worker = format!("{worker:?}");
        {
            let mut state = self.lock();
            state.requests.push(request.clone());
            let is_new = !state.workers.contains_key(&worker);
            let known = state.workers.entry(worker.clone()).or_default();
            if !is_new && known.called_at.is_none() {
                let text = "A worker with the same worker ID is already synchronizing";
                return Err(Status::resource_exhausted(text));
            }
            known.called_at = None;
        }
        let _calling = Calling { queue: self, worker: worker.clone() };
        let is_of_task = |digest| {
            let state = self.lock();
            let task = state.workers.get(&worker).and_then(|known| known.task.clone());
            task.filter(|task| task.executing.action_digest.as_ref() == digest)
        };
        match executing(request.current_state.as_ref()) {
            None => {}
            Some((digest, ExecutionState::Completed(response))) => {
                if let Some(task) = is_of_task(digest) {
                    task.answer(Answer::Done(Box::new(response.clone())));
                    self.with(&worker, |known| known.task = None);
                }
            }
            Some((digest, _)) => {
                if is_of_task(digest).is_some() {
                    return Ok(answer(CHECK_IN, None));
                }
                // As the real one: it does not block a worker that is busy with something else.
                return Ok(self.next(&worker, request.prefer_being_idle, false).await);
            }
        }
        Ok(self.next(&worker, request.prefer_being_idle, true).await)
    }

    fn with<T>(&self, worker: &str, change: impl FnOnce(&mut Known) -> T) -> Option<T> {
        self.lock().workers.get_mut(worker).map(change)
    }

    /// The action that the worker has, or the next one, for which it waits if it may.
    async fn next(&self, worker: &str, prefers_idle: bool, may_wait: bool) -> SynchronizeResponse {
        let deadline = Instant::now() + IDLE_WAIT;
        loop {
            let pushed = self.pushed.notified();
            let task = {
                let mut state = self.lock();
                let has = state.workers.get(worker).and_then(|known| known.task.clone());
                let task = match has {
                    None if !prefers_idle => state.waiting.pop_front(),
                    has => has,
                };
                if let Some(known) = state.workers.get_mut(worker) {
                    known.task.clone_from(&task);
                }
                task
            };
            if let Some(task) = task {
                let executing = desired_state::WorkerState::Executing(task.executing.clone());
                return answer(CHECK_IN, Some(executing));
            }
            let waits = may_wait && !prefers_idle;
            if !waits || tokio::time::timeout_at(deadline, pushed).await.is_err() {
                return answer(Duration::ZERO, Some(desired_state::WorkerState::Idle(())));
            }
        }
    }
}

impl Task {
    fn answer(&self, answer: Answer) {
        let sender = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // An error means that nobody waits for it.
            let _ = sender.send(answer);
        }
    }
}

fn answer(call_again: Duration, state: Option<desired_state::WorkerState>) -> SynchronizeResponse {
    SynchronizeResponse {
        next_synchronization_at: Some((SystemTime::now() + call_again).into()),
        desired_state: state.map(|state| DesiredState { worker_state: Some(state) }),
    }
}

/// The service, as the code generator would make it for a server.
#[derive(Clone)]
struct Synchronizing(Arc<Queue>);

impl NamedService for Synchronizing {
    const NAME: &'static str = "buildbarn.remoteworker.OperationQueue";
}

impl Service<http::Request<Body>> for Synchronizing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<SynchronizeResponse, SynchronizeRequest>::default();
            Ok(Grpc::new(codec).unary(method, request).await)
        })
    }
}

impl UnaryService<SynchronizeRequest> for Synchronizing {
    type Response = SynchronizeResponse;
    type Future = BoxFuture<Response<SynchronizeResponse>, Status>;

    fn call(&mut self, request: Request<SynchronizeRequest>) -> Self::Future {
        let queue = Arc::clone(&self.0);
        Box::pin(async move { queue.synchronize(request.into_inner()).await.map(Response::new) })
    }
}
