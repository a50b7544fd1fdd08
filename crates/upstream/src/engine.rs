//! An engine of others that runs actions: their blobs go there, and what it answers is here before it is used.
//!
//! ```text
//!  upload what it lacks ─► Execute ─► follow the stream ─► fetch what the result names ─► the answer
//!          ▲                               │
//!          └───────────────────────────────┘
//!            the stream broke and cannot be found again, or the engine lost a blob; a few times
//! ```
//!
//! An action is the same whenever it is asked for, and engines merge equal ones, so asking again is safe.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::proto::{self, ExecuteRequest, ExecuteResponse, ExecutionPolicy};
use model::{Chain, Digest, Printable};
use parking_lot::Mutex;
use store::Store;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

use crate::address::Address;
use crate::call_error::CallError;
use crate::config::{Config, Security, Writes};
use crate::connect::connect;
use crate::counters::Counts;
use crate::error::UpstreamError;
use crate::execution::{Answer, Busy, Execution};
use crate::fetch::Fetcher;
use crate::headers::Headers;
use crate::link::{ENGINE, Link};
use crate::place::Place;
use crate::upload::{Uploaded, Uploader};

/// Threads that drive the connections.
const THREADS: usize = 2;

/// Threads that read and store blobs.
const DISK_THREADS: usize = 48;

/// Tries of an action at an engine that is up.
const TRIES: u32 = 3;

/// The wait between them.
const PAUSE: Duration = Duration::from_millis(500);

/// The time for what is under way at the end, such as telling the engine to cancel.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is looked at whether that is done.
const CLOSE_PERIOD: Duration = Duration::from_millis(10);

/// An engine, and how it is reached.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Its address. The instance name is the first part of that of actions there, and that of blobs.
    pub address: Address,
    /// The headers of every call.
    pub headers: Headers,
    /// TLS of a `grpcs` address.
    pub security: Security,
    /// The time for an answer about blobs. That of an action may take as long as it runs.
    pub timeout: Duration,
}

/// An action for an engine.
#[derive(Debug, Clone)]
pub struct Order {
    /// The instance name here.
    pub instance: String,
    /// The Action blob.
    pub action: Digest,
    /// Every blob that the action needs, the Action among them.
    pub blobs: Vec<Digest>,
    /// Run it even when its result is known.
    pub skip_cache_lookup: bool,
    /// The priority that the client gave it.
    pub priority: i32,
    /// The encoded `RequestMetadata` of the request.
    pub caller: Bytes,
}

/// Why an engine has no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine is away, busy or broken, or a blob of the action is not here any more.
    #[error("{0}")]
    Unavailable(String),
    /// The engine does not take this action.
    #[error("{0}")]
    Refused(String),
}

impl From<CallError> for EngineError {
    fn from(error: CallError) -> Self {
        let text = Printable::message(Chain(&error)).as_str().to_owned();
        match error {
            CallError::Refused(_) => Self::Refused(text),
            _ => Self::Unavailable(text),
        }
    }
}

/// An engine of others.
pub struct Engine {
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
    orders: Arc<Orders>,
}

/// The parts that all orders share.
struct Orders {
    address: Address,
    channel: Channel,
    headers: Headers,
    uploader: Uploader,
    fetcher: Fetcher,
    handle: Handle,
    /// Orders under way, and cancellations that the engine is told of.
    busy: Busy,
}

/// Work that ends when nobody waits for it.
struct Work<T>(JoinHandle<T>);

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Engine {
    /// The engine for the actions of a store. It connects in the background.
    ///
    /// # Errors
    /// When a file that the configuration names can't be used.
    pub fn open(config: &EngineConfig, store: &Store) -> Result<Arc<Self>, UpstreamError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(DISK_THREADS)
            .thread_name("engine")
            .enable_all()
            .build()
            .map_err(UpstreamError::Threads)?;
        let handle = runtime.handle().clone();
        // Connections belong to the runtime in which they are made.
        let _inside = handle.enter();
        let EngineConfig { address, headers, security, timeout } = config.clone();
        let channel = connect(&address, &security, timeout)?;
        let of_blobs = Config {
            cas: Place::Server(address.clone()),
            action_cache: None,
            headers: headers.clone(),
            security,
            timeout,
            writes: Writes::Off,
            while_down: "actions stay here",
        };
        let blobs = Link::new(ENGINE, &of_blobs.cas, &of_blobs)?;
        let watched = Arc::clone(&blobs);
        handle.spawn(async move { watched.watch().await });
        let (cas, action_cache) = (store.cas().clone(), store.action_cache().clone());
        let uploader = Uploader { cas: cas.clone(), blobs: Arc::clone(&blobs) };
        let fetcher = Fetcher::new(cas, action_cache, blobs, None);
        let (handle_of_orders, busy) = (handle.clone(), Busy::default());
        let orders =
            Orders { address, channel, headers, uploader, fetcher, handle: handle_of_orders, busy };
        let runtime = Mutex::new(Some(runtime));
        Ok(Arc::new(Self { runtime, handle: handle.clone(), orders: Arc::new(orders) }))
    }

    /// Whether the engine answered when it was last asked.
    pub fn is_up(&self) -> bool {
        self.orders.fetcher.blobs.is_up()
    }

    /// The counters of the calls about blobs since the start.
    pub fn counts(&self) -> Counts {
        self.orders.fetcher.blobs.counts()
    }

    /// Runs an action there, and brings all that its result names into the store. `news` is called when the engine says
    /// that the action runs. The action is cancelled when the future is dropped.
    pub fn execute(
        &self,
        order: Order,
        news: Arc<dyn Fn() + Send + Sync>,
    ) -> impl Future<Output = Result<ExecuteResponse, EngineError>> + Send + use<> {
        let orders = Arc::clone(&self.orders);
        let busy = Arc::clone(&orders.busy);
        let mut work = Work(self.handle.spawn(async move {
            let answered = orders.run(&order, &*news).await;
            drop(busy);
            answered
        }));
        async move {
            // An error means that the task panicked, which is logged, or that the daemon ends.
            let lost = |_| Err(EngineError::Unavailable("the daemon ends".to_owned()));
            (&mut work.0).await.unwrap_or_else(lost)
        }
    }

    /// Ends all work, once the engine was told what nobody wants any more. Must not be called inside of a runtime.
    pub fn close(&self) {
        let Some(runtime) = self.runtime.lock().take() else { return };
        let is_busy = || Arc::strong_count(&self.orders.busy) > 1;
        let idle = async {
            while is_busy() {
                sleep(CLOSE_PERIOD).await;
            }
        };
        // A longer answer is left to the engine, which notices that the client is gone.
        let _ = runtime.block_on(async { timeout(CLOSE_TIMEOUT, idle).await });
        runtime.shutdown_timeout(CLOSE_TIMEOUT);
    }
}

impl Orders {
    async fn run(
        &self,
        order: &Order,
        news: &(dyn Fn() + Send + Sync),
    ) -> Result<ExecuteResponse, EngineError> {
        let request = self.request(order)?;
        let mut last = EngineError::from(CallError::Down);
        for _ in 0..TRIES {
            match self.run_once(order, &request, news).await {
                Ok(response) => return Ok(response),
                Err(error @ EngineError::Refused(_)) => return Err(error),
                Err(error) => last = error,
            }
            if !self.fetcher.blobs.is_up() {
                break;
            }
            sleep(PAUSE).await;
        }
        Err(last)
    }

    async fn run_once(
        &self,
        order: &Order,
        request: &ExecuteRequest,
        news: &(dyn Fn() + Send + Sync),
    ) -> Result<ExecuteResponse, EngineError> {
        let link = &self.fetcher.blobs;
        let abilities = link.abilities().await.ok_or(CallError::Down)?;
        if !abilities.knows(order.action.function()) {
            return Err(EngineError::Refused("it does not know digests of that function".into()));
        }
        let blobs = order.blobs.clone();
        if self.uploader.upload(blobs, &abilities, &order.caller).await? == Uploaded::Gone {
            return Err(EngineError::Unavailable("a blob is not in the store any more".into()));
        }
        let execution = Execution::new(
            self.channel.clone(),
            self.headers.clone(),
            order.caller.clone(),
            self.handle.clone(),
            Arc::clone(&self.busy),
        );
        match execution.run(request.clone(), link, news).await? {
            Answer::Done(response) => match went_away(&response) {
                Some(text) => Err(EngineError::Unavailable(text)),
                None => self.bring(order, *response).await,
            },
            // It had them a moment ago.
            Answer::LacksBlobs => Err(EngineError::Unavailable("it lost a blob".into())),
        }
    }

    fn request(&self, order: &Order) -> Result<ExecuteRequest, EngineError> {
        let too_long = || EngineError::Refused("its instance name would be too long".into());
        Ok(ExecuteRequest {
            instance_name: self.address.instance_of(&order.instance).ok_or_else(too_long)?,
            skip_cache_lookup: order.skip_cache_lookup,
            action_digest: Some(order.action.to_proto()),
            execution_policy: (order.priority != 0)
                .then_some(ExecutionPolicy { priority: order.priority }),
            digest_function: order.action.function().to_proto(),
            ..Default::default()
        })
    }

    /// The answer once all that its result names is in the store.
    async fn bring(
        &self,
        order: &Order,
        response: ExecuteResponse,
    ) -> Result<ExecuteResponse, EngineError> {
        let result = match response.result {
            Some(result) => {
                let function = order.action.function();
                let brought = self.fetcher.bring(function, result, &order.caller).await;
                let action = &order.action;
                Some(brought.inspect_err(|error| {
                    tracing::warn!(address = %self.address, %action, error = %Chain(error), "the result of another engine can't be used");
                })?)
            }
            None => None,
        };
        // Its logs are not here.
        let server_logs: HashMap<String, proto::LogFile> = HashMap::new();
        Ok(ExecuteResponse { result, server_logs, ..response })
    }
}

/// The words of an engine that has stopped an action for reasons of its own, such as that it ends.
fn went_away(response: &ExecuteResponse) -> Option<String> {
    let status = response.status.as_ref()?;
    match Code::from_i32(status.code) {
        code @ (Code::Cancelled | Code::Aborted | Code::Unavailable) => {
            Some(format!("{code}: {}", Printable::message(&status.message).as_str()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::proto::google::rpc::Status;

    #[test]
    fn an_engine_that_ends_is_told_from_an_action_that_fails() {
        let check = |code: Code, expected: bool| {
            let status = Status { code: code as i32, message: "why".into(), details: Vec::new() };
            let response = ExecuteResponse { status: Some(status), ..Default::default() };
            assert_eq!(went_away(&response).is_some(), expected, "{code:?}");
        };
        check(Code::Unavailable, true);
        check(Code::Cancelled, true);
        check(Code::Ok, false);
        check(Code::InvalidArgument, false);
        check(Code::DeadlineExceeded, false);
        assert_eq!(went_away(&ExecuteResponse::default()), None);
    }
}
