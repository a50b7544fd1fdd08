//! Accepting connections without giving up.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// The wait after a failed `accept`, e.g. for want of descriptors: the reason goes away when other
/// connections end, and must not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The next TCP connection, with TCP_NODELAY set: the answers of remote execution are small, and
/// Nagle's algorithm would hold them back for the 40 ms of a delayed acknowledgement.
pub async fn accept_tcp(listener: &TcpListener) -> TcpStream {
    loop {
        let (stream, _) = persistently(|| listener.accept()).await;
        // Else the client is gone already.
        if stream.set_nodelay(true).is_ok() {
            return stream;
        }
    }
}

/// Calls `accept` until it succeeds.
pub(crate) async fn persistently<T, F>(mut accept: impl FnMut() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
