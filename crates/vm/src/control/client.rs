//! The host's side of the control protocol.

use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

use super::frame::{FrameError, Response, read_response, write_request};
use super::method::{BodyError, MemoryRelease, Method, ReleasedMemory, SetTime, TimeSet};
use crate::CONTROL_PORT;
use crate::vmm::{ConnectError, GuestStream, Machine};

/// The time that a guest has for one call. All of them are a few reads of files under `/proc`; a
/// guest under emulation on a busy host has been seen to take half a second.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Errors of a call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection to the guest's control port.
    #[error("connecting to the guest's control port")]
    Connect(#[from] ConnectError),
    /// The guest sent something else than a response, or nothing any more.
    #[error("calling {method}")]
    Frame {
        /// The method's name.
        method: &'static str,
        /// The problem.
        source: FrameError,
    },
    /// The guest answered with a body that the method does not have.
    #[error("the result of {method}")]
    Body {
        /// The method's name.
        method: &'static str,
        /// The problem.
        source: BodyError,
    },
    /// The guest did not answer in time.
    #[error("the guest did not answer {method} within {CALL_TIMEOUT:?}")]
    Timeout {
        /// The method's name.
        method: &'static str,
    },
    /// The guest says that it failed.
    #[error("{method} failed in the guest: {message}")]
    Guest {
        /// The method's name.
        method: &'static str,
        /// The guest's words, which may be anything.
        message: String,
    },
}

/// Calls to one booted guest, one at a time, over a connection that is kept between them.
#[derive(Default)]
pub struct Client {
    idle: Mutex<Option<Box<dyn GuestStream>>>,
}

impl Client {
    /// A client without a connection yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The guest's counters, as text.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn actiondfs_stats(&self, machine: &dyn Machine) -> Result<Vec<u8>, CallError> {
        self.call(machine, Method::ActiondfsStats, || []).await
    }

    /// Asks the guest to stop; it is gone when the machine has ended, not when this returns.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn shutdown(&self, machine: &dyn Machine) -> Result<(), CallError> {
        self.call(machine, Method::Shutdown, || []).await.map(drop)
    }

    /// Sets the guest's clock to the host's.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn set_time(&self, machine: &dyn Machine) -> Result<TimeSet, CallError> {
        let method = Method::SetTime;
        // The time of the sending: connecting may have to wait for a guest that boots.
        let now = || SetTime { since_epoch: since_epoch() }.encode();
        let body = self.call(machine, method, now).await?;
        TimeSet::decode(&body).map_err(|source| CallError::Body { method: method.name(), source })
    }

    /// Asks the guest to give memory back.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn memory_pressure(
        &self,
        machine: &dyn Machine,
        wanted_bytes: u64,
    ) -> Result<ReleasedMemory, CallError> {
        let method = Method::MemoryPressure;
        let body = self.call(machine, method, || MemoryRelease { wanted_bytes }.encode()).await?;
        let decoded = ReleasedMemory::decode(&body);
        decoded.map_err(|source| CallError::Body { method: method.name(), source })
    }

    /// Calls `method` with what `body` gives when there is a connection.
    async fn call<const N: usize>(
        &self,
        machine: &dyn Machine,
        method: Method,
        body: impl FnOnce() -> [u8; N] + Send,
    ) -> Result<Vec<u8>, CallError> {
        let call = self.call_without_timeout(machine, method, body);
        let timeout = CallError::Timeout { method: method.name() };
        tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(timeout))
    }

    async fn call_without_timeout<const N: usize>(
        &self,
        machine: &dyn Machine,
        method: Method,
        body: impl FnOnce() -> [u8; N] + Send,
    ) -> Result<Vec<u8>, CallError> {
        let mut idle = self.idle.lock().await;
        // Taken, not borrowed: after an error, or when this future is dropped half-way, the
        // connection must not be used again.
        let mut stream = match idle.take() {
            Some(stream) => stream,
            None => machine.connect(CONTROL_PORT).await?,
        };
        let response = exchange(&mut stream, method, &body()).await;
        let response =
            response.map_err(|source| CallError::Frame { method: method.name(), source })?;
        *idle = Some(stream);
        match response {
            Response::Ok(body) => Ok(body),
            Response::ApplicationError(message) => {
                Err(CallError::Guest { method: method.name(), message })
            }
        }
    }
}

/// The time of the host's clock. A host whose clock stands before 1970 has its guest in 1970.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

async fn exchange(
    stream: &mut Box<dyn GuestStream>,
    method: Method,
    body: &[u8],
) -> Result<Response, FrameError> {
    write_request(stream, method.name(), body).await?;
    read_response(stream, method.max_response_bytes()).await
}
