//! The guest's side of the control protocol.

use std::future::Future;

use tokio::io::{AsyncRead, AsyncWrite};

use super::frame::{FrameError, Response, read_request, write_response};
use super::method::{MemoryRelease, Method, ReleasedMemory, SetTime, TimeSet};

/// The guest's answers to the host's calls. An error is a sentence that the host logs.
pub trait Handler: Send + Sync {
    /// The counters, as text.
    fn actiondfs_stats(&self) -> impl Future<Output = Result<Vec<u8>, String>> + Send;
    /// Begins to stop; returns at once, so that the answer still gets out.
    fn shutdown(&self) -> impl Future<Output = Result<(), String>> + Send;
    /// Sets the clock.
    fn set_time(&self, request: SetTime) -> impl Future<Output = Result<TimeSet, String>> + Send;
    /// Gives back memory.
    fn memory_pressure(
        &self,
        request: MemoryRelease,
    ) -> impl Future<Output = Result<ReleasedMemory, String>> + Send;
}

/// Serves the calls of one connection until its end.
///
/// # Errors
/// Whatever is not a request. A request that is well-formed but can't be served is answered.
pub async fn serve_connection(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    handler: &impl Handler,
) -> Result<(), FrameError> {
    let limit = |name: &str| Method::from_name(name).map_or(0, Method::max_request_bytes);
    while let Some((name, body)) = read_request(stream, limit).await? {
        let result = match Method::from_name(&name) {
            Some(method) => answer(handler, method, &body).await,
            None => Err(format!("no such method: {}", name.escape_debug())),
        };
        let response = match result {
            Ok(body) => Response::Ok(body),
            Err(message) => Response::ApplicationError(message),
        };
        write_response(stream, &response).await?;
    }
    Ok(())
}

async fn answer(handler: &impl Handler, method: Method, body: &[u8]) -> Result<Vec<u8>, String> {
    match method {
        Method::ActiondfsStats => handler.actiondfs_stats().await.map(|mut text| {
            text.truncate(method.max_response_bytes() as usize);
            text
        }),
        Method::Shutdown => handler.shutdown().await.map(|()| Vec::new()),
        Method::SetTime => {
            let request = SetTime::decode(body).map_err(|error| error.to_string())?;
            Ok(handler.set_time(request).await?.encode().into())
        }
        Method::MemoryPressure => {
            let request = MemoryRelease::decode(body).map_err(|error| error.to_string())?;
            Ok(handler.memory_pressure(request).await?.encode().into())
        }
    }
}
