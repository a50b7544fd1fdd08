//! The worker, wired: what a request meets, and what ends it all.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use events::{Caller, Event, Listeners, Miss, Origin};
use inputroot::InputRoots;
use model::{ActionMessage, Chain, Digest, EncodedResult, InstanceName, proto};
use parking_lot::{Mutex, RwLock};
use runtimes::Runtimes;
use sandbox::ActionStreams;
use store::{Store, StoreError, StoreView};

use crate::cache::{self, Lookup};
use crate::cancel::StopEvent;
use crate::config::WorkerConfig;
use crate::disk::DiskReserve;
use crate::elsewhere::Elsewhere;
use crate::error::{ActionError, CacheError, StartError, SubmitError};
use crate::ignored_properties::IgnoredProperties;
use crate::inputs::Inputs;
use crate::limits::Limits;
use crate::operation::{Done, Leaving, Operation, OperationState, Subscription};
use crate::overflow::OverflowSlot;
use crate::queue::{self, Demand, PushError, Queue, Rank};
use crate::reading::Reading;
use crate::registry::{Admission, Forgotten, Registry};
use crate::report::{self, Described};
use crate::slot::{Job, Journey, Shared, Slot};
use crate::timeline::Timeline;

/// A request to run an action, as far as the worker cares.
#[derive(Debug, Clone)]
pub struct ExecuteRequest {
    /// The instance name; results of one are not served to another.
    pub instance: InstanceName,
    /// The Action blob.
    pub action: Digest,
    /// The Action as the scheduler of a cluster sends it, which can have another timeout than the blob. The
    /// blob is not read then, and the result is not cached here, for nothing proves that the two belong together.
    pub assigned: Option<Bytes>,
    /// Run it even when its result is known.
    pub skip_cache_lookup: bool,
    /// The priority among waiting actions: the lower, the sooner. It is cut to [`PRIORITIES`].
    pub priority: i32,
    /// It comes from another engine whose actions go elsewhere, and is run here whatever it waits: two engines that name
    /// each other would send it back and forth.
    pub is_forwarded: bool,
    /// Names that the client gave the request.
    pub origin: Arc<Origin>,
}

/// The priorities that are told apart, 0 being that of most actions. More only make more lists.
pub const PRIORITIES: RangeInclusive<i32> = -1_000..=1_000;

/// Runs actions. Clones are the same worker.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>,
}

/// The interval at which the janitor looks for actions that nobody waits for.
const JANITOR_PERIOD: Duration = Duration::from_secs(1);

/// The interval at which [`Worker::drain`] checks whether all is done.
const DRAIN_PERIOD: Duration = Duration::from_millis(10);

impl Worker {
    /// Starts the slots, and those for actions that run `elsewhere`.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start(
        config: WorkerConfig,
        store: Arc<Store>,
        input_roots: Arc<dyn InputRoots>,
        runtimes: Runtimes,
        sandbox: sandbox::Config,
        listeners: Listeners,
        elsewhere: Option<Arc<dyn Elsewhere>>,
    ) -> Result<Self, StartError> {
        let work = store.work_dirfd().try_clone_to_owned().map_err(StartError::Disk)?;
        let shared = Arc::new(Shared {
            disk: Box::new(DiskReserve::of(work)),
            destination: Arc::<Store>::clone(&store),
            inputs: Inputs::new(config.tree, config.tree_cache_bytes),
            ignored_properties: IgnoredProperties::default(),
            sandboxes: Box::new(Arc::new(sandbox::Pool::new(sandbox))),
            reading: Reading::default(),
            registry: Registry::new(config.finished_operations, config.finished_bytes),
            queue: Queue::new(queue::Limits {
                items: config.limits.queue,
                bytes: config.queue_bytes,
                machine: config.machine(),
            }),
            elsewhere,
            is_ending: AtomicBool::new(false),
            listeners,
            limits: RwLock::new(config.limits),
            config,
            store,
            input_roots: Box::new(input_roots),
            runtimes,
        });
        let worker = Self { shared, threads: Arc::default() };
        for slot in 0..worker.shared.config.jobs.get() {
            worker.start_slot(slot)?;
        }
        if let Some(elsewhere) = &worker.shared.elsewhere {
            for slot in 0..worker.shared.config.overflow_jobs.get() {
                worker.start_overflow_slot(slot, Arc::clone(elsewhere))?;
            }
        }
        worker.start_janitor()?;
        Ok(worker)
    }

    /// Actions that run at the same time.
    pub fn jobs(&self) -> NonZeroUsize {
        self.shared.config.jobs
    }

    /// Ends the idle sandboxes of images that are gone or were replaced, and with them what is left of those images.
    /// Waits for processes.
    pub fn end_retired_sandboxes(&self) {
        self.shared.sandboxes.end_retired();
    }

    /// Changes the limits. Actions that run already keep theirs, and actions that wait stay in the queue.
    pub fn set_limits(&self, limits: Limits) {
        *self.shared.limits.write() = limits;
        self.shared.queue.set_items_max(limits.queue);
    }

    fn start_slot(&self, number: usize) -> Result<(), StartError> {
        let stop = StopEvent::new().map_err(StartError::Event)?;
        let slot = Slot { shared: Arc::clone(&self.shared), stop };
        let thread = std::thread::Builder::new()
            .name(format!("slot-{number}"))
            .spawn(move || slot.serve())
            .map_err(|source| StartError::Thread { slot: number, source })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn start_overflow_slot(
        &self,
        number: usize,
        elsewhere: Arc<dyn Elsewhere>,
    ) -> Result<(), StartError> {
        let stop = StopEvent::new().map_err(StartError::Event)?;
        let slot =
            OverflowSlot { slot: Slot { shared: Arc::clone(&self.shared), stop }, elsewhere };
        let thread = std::thread::Builder::new()
            .name(format!("overflow-{number}"))
            .spawn(move || slot.serve())
            .map_err(|source| StartError::Thread { slot: number, source })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Stops actions that nobody has listened to for the grace time.
    fn start_janitor(&self) -> Result<(), StartError> {
        let shared = Arc::downgrade(&self.shared);
        let watch = move || {
            while let Some(shared) = shared.upgrade() {
                for operation in shared.registry.orphans(shared.limits().orphan_grace) {
                    tracing::info!(
                        operation = operation.name,
                        "stopped: no client waits for it any more"
                    );
                    shared.cancel(&operation);
                }
                drop(shared);
                std::thread::sleep(JANITOR_PERIOD);
            }
        };
        std::thread::Builder::new()
            .name("janitor".into())
            .spawn(watch)
            .map(drop)
            .map_err(|source| StartError::Thread { slot: self.shared.config.jobs.get(), source })
    }

    /// Answers from the cache, joins an equal action in flight, or queues the action. Reads a few
    /// small blobs through `view`.
    ///
    /// # Errors
    /// When the worker does not accept the action, or the view would have to wait. An error of the action
    /// itself comes as the operation's answer.
    pub fn execute(
        &self,
        view: &impl StoreView,
        request: &ExecuteRequest,
    ) -> Result<Subscription, SubmitError> {
        let timeline = Timeline::queued_now(&self.shared.config.worker_name);
        match self.prepare(view, request) {
            Ok(Prepared::Cached(result)) => {
                Ok(self.answer_at_once(request, timeline, cached(result)))
            }
            Ok(Prepared::ToRun(action, miss)) => {
                self.enqueue(request, *action, miss, timeline, None)
            }
            Err(NotPrepared::WouldWait) => Err(SubmitError::WouldWait),
            Err(NotPrepared::Failed(error)) => {
                Ok(self.answer_at_once(request, timeline, Done::failed(error)))
            }
        }
    }

    /// As [`Worker::execute`], for an action that someone talks to by these streams. It is not answered from the
    /// cache, joins no other one, and its result is not cached.
    ///
    /// # Errors
    /// As for [`Worker::execute`].
    pub fn execute_with_streams(
        &self,
        view: &impl StoreView,
        request: &ExecuteRequest,
        streams: ActionStreams,
    ) -> Result<Subscription, SubmitError> {
        let timeline = Timeline::queued_now(&self.shared.config.worker_name);
        let request = ExecuteRequest { skip_cache_lookup: true, ..request.clone() };
        match self.prepare(view, &request) {
            Ok(Prepared::Cached(result)) => {
                Ok(self.answer_at_once(&request, timeline, cached(result)))
            }
            Ok(Prepared::ToRun(action, miss)) => {
                let mut action = *action;
                action.do_not_cache = true;
                self.enqueue(&request, action, miss, timeline, Some(streams))
            }
            Err(NotPrepared::WouldWait) => Err(SubmitError::WouldWait),
            Err(NotPrepared::Failed(error)) => {
                Ok(self.answer_at_once(&request, timeline, Done::failed(error)))
            }
        }
    }

    fn prepare(
        &self,
        view: &impl StoreView,
        request: &ExecuteRequest,
    ) -> Result<Prepared, NotPrepared> {
        let mut miss = Miss::Skipped;
        if !request.skip_cache_lookup {
            match self.lookup(view, &request.instance, &request.action) {
                Ok(Lookup::Hit(result)) => return Ok(Prepared::Cached(result)),
                Ok(Lookup::Miss(reason)) => miss = reason,
                Err(CacheError::WouldWait) => return Err(NotPrepared::WouldWait),
                Err(error) => {
                    // The action can still be run.
                    miss = Miss::Failed;
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the action cache failed"
                    );
                }
            }
        }
        if let Some(message) = &request.assigned {
            let action = self.to_run(request.action, Some(message.clone()));
            return Ok(Prepared::ToRun(Box::new(action.map_err(NotPrepared::Failed)?), miss));
        }
        // Larger ones are not even read.
        ActionMessage::check_size(request.action, request.action.size_bytes())
            .map_err(|error| NotPrepared::Failed(invalid(&error)))?;
        let action = view.blob(&request.action).map_err(|error| match error {
            StoreError::WouldWait => NotPrepared::WouldWait,
            error => NotPrepared::Failed(ActionError::of_store("reading the Action", &error)),
        })?;
        let action = self.to_run(request.action, action).map_err(NotPrepared::Failed)?;
        Ok(Prepared::ToRun(Box::new(action), miss))
    }

    /// Parses the Action blob; fails if it is missing or malformed.
    fn to_run(&self, action: Digest, bytes: Option<Bytes>) -> Result<ActionMessage, ActionError> {
        let bytes = bytes.ok_or_else(|| ActionError::MissingBlobs(vec![action]))?;
        let action = ActionMessage::parse(action, &bytes).map_err(|error| invalid(&error))?;
        self.check_timeout(action.timeout)?;
        Ok(action)
    }

    /// REAPI: a timeout above the server's maximum must be rejected.
    fn check_timeout(&self, timeout: Option<Duration>) -> Result<(), ActionError> {
        match (timeout, self.shared.limits().max_timeout) {
            (Some(asked), Some(max)) if asked > max => Err(ActionError::Invalid(format!(
                "the timeout of {} s is above this server's maximum of {} s",
                asked.as_secs_f64(),
                max.as_secs_f64(),
            ))),
            _ => Ok(()),
        }
    }

    fn answer_at_once(
        &self,
        request: &ExecuteRequest,
        timeline: Timeline,
        done: Done,
    ) -> Subscription {
        let registry = &self.shared.registry;
        let first = OperationState::looked_up(request.action);
        let admission = registry.admit(request.instance.clone(), first, false);
        let (Admission::New(ticket) | Admission::Joined(ticket)) = admission;
        let subscription = ticket.subscribe();
        let (operation, described) = (&ticket.operation, Described::default());
        let finished = report::finished(operation, &request.origin, &described, &timeline, &done);
        self.shared.listeners.tell(&finished);
        operation.complete(timeline.metadata().clone(), done);
        registry.finish(operation);
        subscription
    }

    fn enqueue(
        &self,
        request: &ExecuteRequest,
        mut action: ActionMessage,
        miss: Miss,
        timeline: Timeline,
        conversation: Option<ActionStreams>,
    ) -> Result<Subscription, SubmitError> {
        let shared = &*self.shared;
        // An action that went to an engine and came back must not join itself.
        let is_back = request.is_forwarded && shared.elsewhere.is_some();
        let shareable = !action.do_not_cache && !request.skip_cache_lookup && !is_back;
        let first = OperationState::queued(request.action, timeline.metadata().clone());
        let ticket = match shared.registry.admit(request.instance.clone(), first, shareable) {
            Admission::Joined(ticket) => return Ok(ticket.subscribe()),
            Admission::New(ticket) => ticket,
        };
        let subscription = ticket.subscribe();
        let operation = Arc::clone(&ticket.operation);
        // Before a slot can have it: it may be answered before the push returns.
        shared.listeners.tell(&report::queued(&operation, &request.origin));
        let origin = Arc::clone(&request.origin);
        // Its streams are this machine's.
        let may_leave =
            shared.elsewhere.is_some() && !request.is_forwarded && conversation.is_none();
        let rank = Rank { may_leave, ..rank(request, &action) };
        let described = Described::to_run(&action, miss);
        action.do_not_cache |= request.assigned.is_some();
        let job = Job {
            operation: Arc::clone(&operation),
            origin,
            action,
            described,
            timeline,
            skip_cache_lookup: request.skip_cache_lookup,
            rank: rank.clone(),
            journey: Journey::default(),
            conversation,
        };
        let bytes = job.memory_bytes();
        match shared.queue.push(job, bytes, rank) {
            Ok(()) => Ok(subscription),
            Err(refused) => {
                // Somebody may have joined it in the meantime.
                shared.cancel(&operation);
                shared.registry.withdraw(&operation);
                let operation = operation.name.as_str().into();
                shared.listeners.tell(&Event::Withdrawn { operation });
                Err(match refused {
                    PushError::Full => SubmitError::QueueFull { limit: shared.limits().queue },
                    PushError::TooManyBytes => {
                        SubmitError::QueueTooLarge { limit_bytes: shared.config.queue_bytes }
                    }
                    PushError::ClientFull => SubmitError::ClientFull,
                    PushError::Closed => SubmitError::Draining,
                })
            }
        }
    }

    /// Listens to an operation that a client knows by name, from now on.
    pub fn attach(&self, operation_name: &str) -> Option<Subscription> {
        self.shared.registry.find(operation_name).map(|ticket| ticket.subscribe_from_now())
    }

    /// The latest state of an operation that a client knows by name. To look is not to wait: the action of an
    /// operation that clients only look at is stopped like one that they left.
    pub fn latest(&self, operation_name: &str) -> Option<Arc<OperationState>> {
        self.shared.registry.find(operation_name).and_then(|ticket| ticket.latest())
    }

    /// Ends a client's operation with CANCELLED. The execution behind it is stopped unless another client
    /// wants it. Returns whether there is an operation of that name.
    pub fn cancel(&self, operation_name: &str) -> bool {
        let Some(ticket) = self.shared.registry.find(operation_name) else { return false };
        if self.shared.registry.leave(&ticket) == Leaving::IsLast {
            self.shared.cancel(&ticket.operation);
        }
        true
    }

    /// Forgets an operation that is over.
    pub fn forget(&self, operation_name: &str) -> Forgotten {
        self.shared.registry.forget(operation_name)
    }

    /// The instance name of an operation, if there is one of that name.
    pub fn instance_of(&self, operation_name: &str) -> Option<InstanceName> {
        let ticket = self.shared.registry.find(operation_name);
        ticket.map(|ticket| ticket.operation.instance.clone())
    }

    /// The names of all operations that can still be asked for, in no order.
    pub fn operation_names(&self) -> Vec<String> {
        self.shared.registry.names()
    }

    /// The cached result of an action, if every blob that it names is in the store.
    ///
    /// # Errors
    /// When the store cannot be read, or the view would have to wait.
    pub fn cached_result(
        &self,
        view: &impl StoreView,
        instance: &InstanceName,
        action: &Digest,
        caller: &Caller,
    ) -> Result<Option<EncodedResult>, CacheError> {
        let (miss, found) = match self.lookup(view, instance, action)? {
            Lookup::Hit(result) => (None, Some(result)),
            Lookup::Miss(miss) => (Some(miss), None),
        };
        self.shared.listeners.tell(&report::looked_up(instance, action, caller, miss));
        Ok(found)
    }

    fn lookup(
        &self,
        view: &impl StoreView,
        instance: &InstanceName,
        action: &Digest,
    ) -> Result<Lookup, CacheError> {
        let Shared { reading, runtimes, .. } = &*self.shared;
        let found = cache::lookup(view, reading, runtimes, instance, action)?;
        if matches!(found, Lookup::Miss(Miss::OtherEnvironment)) {
            tracing::debug!(%action, "the cached result is of another root file system");
        }
        Ok(found)
    }

    /// Whether [`Worker::cached_result`] has a result. Listeners are told nothing.
    ///
    /// # Errors
    /// When the store cannot be read, or the view would have to wait.
    pub fn has_result(
        &self,
        view: &impl StoreView,
        instance: &InstanceName,
        action: &Digest,
    ) -> Result<bool, CacheError> {
        let found = self.lookup(view, instance, action)?;
        Ok(matches!(found, Lookup::Hit(_)))
    }

    /// Takes nothing new and waits, for `bound` at most, until all that was
    /// taken on is answered and put away; cancels what is left then. Returns
    /// whether all came to its own end.
    pub async fn drain(&self, bound: Duration) -> bool {
        self.shared.queue.close();
        let in_time = self.idle_within(bound).await;
        if !in_time {
            self.kill_all();
        }
        in_time
    }

    /// Cancels everything, and takes nothing new.
    pub fn kill_all(&self) {
        self.shared.queue.close();
        self.shared.is_ending.store(true, Ordering::Release);
        for operation in self.shared.registry.unfinished() {
            self.shared.cancel(&operation);
        }
    }

    async fn idle_within(&self, bound: Duration) -> bool {
        let deadline = Instant::now() + bound;
        while !self.shared.queue.is_idle() {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(DRAIN_PERIOD).await;
        }
        true
    }

    /// Waits for the slots to end; to be called after [`Worker::drain`] or
    /// [`Worker::kill_all`]. Blocks until every action is dead and put away.
    pub fn join(&self) {
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a slot ended by a panic");
            }
        }
    }
}

impl Shared {
    /// The limits of what comes next.
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.read()
    }

    /// Why an action was told to stop. A client tries again elsewhere what a dying server stopped.
    pub(crate) fn cancelled(&self) -> ActionError {
        match self.is_ending.load(Ordering::Acquire) {
            true => ActionError::ShuttingDown,
            false => ActionError::Cancelled,
        }
    }

    /// Stops an operation: at once if it waits, soon if it runs.
    fn cancel(&self, operation: &Arc<Operation>) {
        if operation.cancellation.request() {
            return;
        }
        let done = Done::failed(self.cancelled());
        if operation.complete(proto::ExecutedActionMetadata::default(), done) {
            self.registry.finish(operation);
        }
    }
}

/// An error of a request that led neither to a result nor to an action to run.
enum NotPrepared {
    WouldWait,
    Failed(ActionError),
}

enum Prepared {
    Cached(EncodedResult),
    ToRun(Box<ActionMessage>, Miss),
}

/// Where the action stands in the queue. One client is one run of a build tool, as its `RequestMetadata`
/// names it; without one, all of a principal's requests.
fn rank(request: &ExecuteRequest, action: &ActionMessage) -> Rank {
    let Origin { principal, invocation, .. } = &*request.origin;
    let limits = action.declared_limits();
    Rank {
        priority: request.priority.clamp(*PRIORITIES.start(), *PRIORITIES.end()),
        client: format!("{principal}\0{invocation}").into(),
        demand: Demand {
            cpu_cores: limits.cpu_cores.unwrap_or(1),
            memory_bytes: limits.memory_bytes.unwrap_or(0),
        },
        may_leave: false,
    }
}

fn invalid(error: &model::ActionError) -> ActionError {
    ActionError::Invalid(Chain(error).to_string())
}

fn cached(result: EncodedResult) -> Done {
    let (error, message) = (None, String::new());
    Done { result: Some(result), cached: true, error, message, server_log: None }
}
