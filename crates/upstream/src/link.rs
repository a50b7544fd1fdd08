//! The connection to a server: deadlines, retries, and whether it is worth asking.
//!
//! ```text
//!            capabilities answered              several failures in a row
//! ┌─────────┐                     ┌────┐                                   ┌──────┐
//! │ UNKNOWN ├────────────────────►│ UP ├──────────────────────────────────►│ DOWN │
//! └────┬────┘                     └────┘◄──────────────────────────────────┴──▲───┘
//!      │ not answered                      capabilities answered, asked       │
//!      └───────────────────────────────────in the background, ever later──────┘
//! ```
//!
//! While the state is UNKNOWN, which is for one timeout after the start at most, calls wait. While it is DOWN,
//! they return at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::proto::capabilities_client::CapabilitiesClient;
use model::proto::{GetCapabilitiesRequest, ServerCapabilities, compressor};
use model::{Chain, DigestFunction};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::address::Address;
use crate::breaker::{Breaker, jittered};
use crate::config::Config;
use crate::connect;
use crate::counters::{Counters, Counts};
use crate::error::UpstreamError;
use crate::headers::Headers;

/// Connections to a server: one is a single TCP window and, with many servers, at most 100 streams.
const CONNECTIONS: usize = 4;

/// Tries of a call.
const TRIES: u32 = 3;

/// The wait before the second try; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The slowest transfer that is worth waiting for, in bytes a second: below it, running an action is faster
/// than fetching what it made.
const SLOWEST: u64 = 256 << 10;

/// The bytes of a batch without the digests and the status of its blobs, for servers that name no limit: gRPC's
/// default for a message is 4 MiB.
const BATCH_BYTES_MAX: u64 = (4 << 20) - (256 << 10);

/// The header with an encoded `RequestMetadata`.
const CALLER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// The longest such header that is passed on.
const CALLER_BYTES_MAX: usize = 4 << 10;

/// The capabilities that a server announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Abilities {
    pub(crate) batch_bytes: u64,
    pub(crate) has_zstd: bool,
    pub(crate) has_batch_zstd: bool,
    functions: Vec<i32>,
    pub(crate) takes_results: bool,
}

impl Abilities {
    /// Whether the server knows digests of that function.
    pub(crate) fn knows(&self, function: DigestFunction) -> bool {
        self.functions.contains(&function.to_proto())
    }

    fn of(capabilities: &ServerCapabilities) -> Self {
        let cache = capabilities.cache_capabilities.clone().unwrap_or_default();
        let zstd = compressor::Value::Zstd as i32;
        let announced = u64::try_from(cache.max_batch_total_size_bytes).unwrap_or(0);
        let updates = cache.action_cache_update_capabilities.unwrap_or_default();
        Self {
            batch_bytes: if announced == 0 {
                BATCH_BYTES_MAX
            } else {
                announced.min(BATCH_BYTES_MAX)
            },
            has_zstd: cache.supported_compressors.contains(&zstd),
            has_batch_zstd: cache.supported_batch_update_compressors.contains(&zstd),
            functions: cache.digest_functions,
            takes_results: updates.update_enabled,
        }
    }
}

/// Why a call has no answer that can be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// The server is down, or was never up.
    #[error("the upstream is down")]
    Down,
    /// The time was over.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The server could not be reached, or is at fault.
    #[error("the call failed: {}: {}", .0.code(), .0.message())]
    Failed(Box<Status>),
    /// The server has answered that it will not.
    #[error("the server refused: {}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    /// The blob or the result is not there.
    #[error("it is not upstream")]
    Missing,
    /// The upstream sent something other than what was asked for.
    #[error("the upstream sent something else")]
    Damaged,
    /// A blob of ours can't be read.
    #[error("a blob can't be read")]
    Unreadable(#[source] Arc<std::io::Error>),
    /// The store did not take it or give it.
    #[error("the store failed")]
    Store(#[source] Arc<store::StoreError>),
}

impl From<store::StoreError> for CallError {
    fn from(error: store::StoreError) -> Self {
        match error {
            store::StoreError::DigestMismatch { .. } | store::StoreError::TooManyBytes { .. } => {
                Self::Damaged
            }
            error => Self::Store(Arc::new(error)),
        }
    }
}

impl CallError {
    pub(crate) fn of(status: Status) -> Self {
        match status.code() {
            Code::NotFound => Self::Missing,
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Internal
            | Code::Aborted
            | Code::Cancelled
            | Code::ResourceExhausted => Self::Failed(Box::new(status)),
            _ => Self::Refused(Box::new(status)),
        }
    }

    /// Whether the server, or the way to it, is at fault.
    fn is_failure(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Failed(_))
    }
}

#[derive(Clone)]
enum State {
    Unknown,
    Up(Arc<Abilities>),
    Down,
}

/// The connection to one server.
pub(crate) struct Link {
    /// `cas` or `ac`.
    name: &'static str,
    pub(crate) address: Address,
    channels: Vec<Channel>,
    next: AtomicUsize,
    headers: Headers,
    timeout: Duration,
    state: watch::Sender<State>,
    fell: Notify,
    breaker: Mutex<Breaker>,
    pub(crate) counters: Counters,
}

impl Link {
    /// The link to a server. Nothing is connected before [`Link::watch`] runs. Called inside of a runtime.
    ///
    /// # Errors
    /// When the files of TLS can't be used.
    pub(crate) fn new(
        name: &'static str,
        address: &Address,
        config: &Config,
    ) -> Result<Arc<Self>, UpstreamError> {
        let channels = (0..CONNECTIONS)
            .map(|_| connect::to_cache(address, config))
            .collect::<Result<_, _>>()?;
        Ok(Arc::new(Self {
            name,
            address: address.clone(),
            channels,
            next: AtomicUsize::new(0),
            headers: config.headers.clone(),
            timeout: config.timeout,
            state: watch::Sender::new(State::Unknown),
            fell: Notify::new(),
            breaker: Mutex::default(),
            counters: Counters::default(),
        }))
    }

    /// The counters so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counters.counts(self.is_up())
    }

    /// The server's capabilities, if it is up. Waits only while they are unknown.
    pub(crate) async fn abilities(&self) -> Option<Arc<Abilities>> {
        let mut state = self.state.subscribe();
        let known =
            timeout(2 * self.timeout, state.wait_for(|state| !matches!(state, State::Unknown)))
                .await;
        match known {
            Ok(Ok(state)) => match &*state {
                State::Up(abilities) => Some(Arc::clone(abilities)),
                State::Unknown | State::Down => None,
            },
            _ => None,
        }
    }

    /// Whether the server answered when it was last asked.
    pub(crate) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(_))
    }

    /// Waits until the server is up.
    pub(crate) async fn until_up(&self) {
        let mut state = self.state.subscribe();
        if state.wait_for(|state| matches!(state, State::Up(_))).await.is_err() {
            // The link is gone, and so is the one who waits.
            std::future::pending::<()>().await;
        }
    }

    /// Looks after the state; never ends.
    pub(crate) async fn watch(&self) {
        loop {
            match self.probe().await {
                Ok(abilities) => {
                    let Abilities { batch_bytes, has_zstd, .. } = abilities;
                    let (tier, address) = (self.name, &self.address);
                    tracing::info!(tier, %address, batch_bytes, zstd = has_zstd, "the upstream is up");
                    self.breaker.lock().reset();
                    self.state.send_replace(State::Up(Arc::new(abilities)));
                    self.fell.notified().await;
                }
                Err(error) => {
                    self.breaker.lock().probe_failed();
                    let was_down = matches!(self.state.send_replace(State::Down), State::Down);
                    if !was_down {
                        let (tier, address) = (self.name, &self.address);
                        let error = Chain(&error).to_string();
                        tracing::warn!(tier, %address, error, "the upstream is down; builds go on without it");
                    }
                }
            }
            let pause = self.breaker.lock().pause(chance());
            sleep(pause).await;
        }
    }

    async fn probe(&self) -> Result<Abilities, CallError> {
        let instance_name = self.address.instance.as_str().to_owned();
        let request =
            self.request(GetCapabilitiesRequest { instance_name }, &Bytes::new(), self.timeout);
        let mut client = CapabilitiesClient::new(self.channel());
        let answer = timeout(self.timeout, client.get_capabilities(request)).await;
        let answer =
            answer.map_err(|_| CallError::TimedOut(self.timeout))?.map_err(CallError::of)?;
        Ok(Abilities::of(answer.get_ref()))
    }

    /// A connection, each in turn.
    pub(crate) fn channel(&self) -> Channel {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[next % self.channels.len()].clone()
    }

    /// A request with the headers of the operator and of the caller, and with its deadline.
    pub(crate) fn request<T>(&self, message: T, caller: &Bytes, bound: Duration) -> Request<T> {
        let mut request = Request::new(message);
        self.headers.add_to(request.metadata_mut());
        if (1..=CALLER_BYTES_MAX).contains(&caller.len()) {
            request.metadata_mut().insert_bin(CALLER, MetadataValue::from_bytes(caller));
        }
        request.set_timeout(bound);
        request
    }

    /// The time for a call that moves so many bytes.
    pub(crate) fn bound(&self, bytes: u64) -> Duration {
        self.timeout + Duration::from_millis(bytes.saturating_mul(1000) / SLOWEST)
    }

    /// The time for the next piece of a stream.
    pub(crate) fn piece_timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes a call until it is answered, a few times at most and within `bound`.
    pub(crate) async fn call<T, F>(
        &self,
        bound: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let deadline = Instant::now() + bound;
        let mut pause = RETRY_FIRST;
        for tries_left in (0..TRIES).rev() {
            if !matches!(&*self.state.borrow(), State::Up(_)) {
                return Err(CallError::Down);
            }
            let started = Instant::now();
            let outcome = timeout_at(deadline, attempt()).await;
            self.counters.call_took(started.elapsed());
            let error = match outcome.unwrap_or(Err(CallError::TimedOut(bound))) {
                Ok(answer) => {
                    self.breaker.lock().succeeded();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if !self.judge(&error) {
                return Err(error);
            }
            let wait = jittered(pause, chance());
            if tries_left == 0 || Instant::now() + wait >= deadline {
                return Err(error);
            }
            sleep(wait).await;
            pause *= 2;
        }
        Err(CallError::Down)
    }

    /// Counts an error. Returns whether another try makes sense.
    fn judge(&self, error: &CallError) -> bool {
        if error.is_failure() {
            self.counters.failures.add(1);
            if self.breaker.lock().failed() {
                self.state.send_replace(State::Down);
                self.fell.notify_one();
                let (tier, address) = (self.name, &self.address);
                let error = Chain(error).to_string();
                tracing::warn!(tier, %address, error, "the upstream is given up for a while; builds go on without it");
            }
            return true;
        }
        match error {
            // The server works.
            CallError::Missing => self.breaker.lock().succeeded(),
            CallError::Refused(_) => self.counters.refusals.add(1),
            CallError::Damaged => self.counters.damaged.add(1),
            _ => {}
        }
        false
    }
}

/// A number that nobody foresees.
fn chance() -> u8 {
    uuid::Uuid::new_v4().as_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::proto::{CacheCapabilities, digest_function};

    #[test]
    fn batches_are_what_the_server_and_grpc_take() {
        let batch_bytes = |announced| {
            let cache =
                CacheCapabilities { max_batch_total_size_bytes: announced, ..Default::default() };
            let capabilities =
                ServerCapabilities { cache_capabilities: Some(cache), ..Default::default() };
            Abilities::of(&capabilities).batch_bytes
        };
        assert_eq!(batch_bytes(0), BATCH_BYTES_MAX);
        assert_eq!(batch_bytes(1 << 20), 1 << 20);
        assert_eq!(batch_bytes(1 << 40), BATCH_BYTES_MAX);
        assert_eq!(batch_bytes(-1), BATCH_BYTES_MAX);
    }

    #[test]
    fn only_announced_functions_are_known() {
        let cache = CacheCapabilities {
            digest_functions: vec![digest_function::Value::Sha256 as i32],
            ..Default::default()
        };
        let abilities = Abilities::of(&ServerCapabilities {
            cache_capabilities: Some(cache),
            ..Default::default()
        });
        assert!(abilities.knows(DigestFunction::Sha256));
        assert!(!abilities.knows(DigestFunction::Blake3));
        assert!(!abilities.has_zstd && !abilities.takes_results);
    }

    #[test]
    fn codes_are_failures_or_answers() {
        for (code, is_failure) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::Internal, true),
            (Code::NotFound, false),
            (Code::PermissionDenied, false),
            (Code::InvalidArgument, false),
        ] {
            assert_eq!(CallError::of(Status::new(code, "")).is_failure(), is_failure, "{code:?}");
        }
    }
}
