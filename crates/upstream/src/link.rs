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
use std::time::Duration;

use model::{Chain, Digest};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::abilities::Abilities;
use crate::breaker::{Breaker, jittered};
use crate::call_error::CallError;
use crate::config::Config;
use crate::counters::{Counters, Counts};
use crate::error::UpstreamError;
use crate::place::Place;
use crate::server::Server;

/// Tries of a call.
const TRIES: u32 = 3;

/// The wait before the second try; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The slowest transfer that is worth waiting for, in bytes a second: below it, running an action is faster
/// than fetching what it made.
const SLOWEST: u64 = 256 << 10;

#[derive(Clone)]
enum State {
    Unknown,
    Up(Arc<Abilities>),
    Down,
}

/// The name of a link to an engine that runs actions.
pub(crate) const ENGINE: &str = "engine";

/// The connection to one server.
pub(crate) struct Link {
    /// `cas`, `ac` or [`ENGINE`].
    name: &'static str,
    pub(crate) place: Place,
    pub(crate) server: Server,
    timeout: Duration,
    while_down: &'static str,
    state: watch::Sender<State>,
    fell: Notify,
    breaker: Mutex<Breaker>,
    pub(crate) counters: Counters,
}

impl Link {
    /// The link to a server. Nothing is connected before [`Link::watch`] runs. Called inside of a runtime.
    ///
    /// # Errors
    /// When a file that the configuration names or the place itself can't be used.
    pub(crate) fn new(
        name: &'static str,
        place: &Place,
        config: &Config,
    ) -> Result<Arc<Self>, UpstreamError> {
        let server = Server::open(place, config)?;
        Ok(Arc::new(Self {
            name,
            place: place.clone(),
            server,
            timeout: config.timeout,
            while_down: config.while_down,
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
                    let (tier, address) = (self.name, &self.place);
                    tracing::info!(tier, %address, batch_bytes, zstd = has_zstd, "the upstream is up");
                    if tier == ENGINE && !abilities.runs_actions {
                        tracing::warn!(tier, %address, "it says that it runs no actions: is this the address of a cache?");
                    }
                    self.breaker.lock().reset();
                    self.state.send_replace(State::Up(Arc::new(abilities)));
                    self.fell.notified().await;
                }
                Err(error) => {
                    self.breaker.lock().probe_failed();
                    let was_down = matches!(self.state.send_replace(State::Down), State::Down);
                    if !was_down {
                        let (tier, address) = (self.name, &self.place);
                        let error = Chain(&error).to_string();
                        tracing::warn!(tier, %address, error, "the upstream is down; {}", self.while_down);
                    }
                }
            }
            let pause = self.breaker.lock().pause(chance());
            sleep(pause).await;
        }
    }

    async fn probe(&self) -> Result<Abilities, CallError> {
        let answer = timeout(self.timeout, self.server.probe(self.timeout)).await;
        answer.unwrap_or(Err(CallError::TimedOut(self.timeout)))
    }

    /// Asks whether the server is there.
    pub(crate) async fn answers(&self) -> bool {
        self.probe().await.is_ok()
    }

    /// Warns of a blob that is not what its digest says.
    pub(crate) fn tell_damaged(&self, digest: &Digest) {
        let address = &self.place;
        tracing::warn!(%address, %digest, "the upstream sent another content than was asked for; it is not used");
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
                let (tier, address) = (self.name, &self.place);
                let error = Chain(error).to_string();
                tracing::warn!(tier, %address, error, "the upstream is given up for a while; {}", self.while_down);
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
