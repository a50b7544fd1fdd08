//! Connections over TCP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Connections at a time. Bazel opens up to 100; the rest is room for several
/// clients on one machine. Each is guaranteed some memory: see [`crate::memory`].
const MAX_CONNECTIONS: usize = 512;

/// What a connection over the limit is told: no settings, and a GOAWAY
/// (RFC 9113, 6.8) of stream 0 with ENHANCE_YOUR_CALM and words that clients
/// show.
const REFUSAL: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
\0\0\x1c\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0btoo many connections";

/// The time for a refused client to read that and go.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Refusals at a time; more connections are closed without a word.
const MAX_REFUSALS: usize = 64;

/// The wait after a failed `accept`, e.g. for want of descriptors: the reason
/// goes away when other connections end, and must not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening TCP socket whose connections have TCP_NODELAY set: the answers of
/// remote execution are small, and Nagle's algorithm would hold them back for
/// the 40 ms of a delayed acknowledgement.
pub struct TcpConnections {
    listener: TcpListener,
}

impl TcpConnections {
    /// Listens on `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// The system's, e.g. that the address is in use.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// The address that clients can connect to.
    ///
    /// # Errors
    /// The system's, from `getsockname`.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The connections, as they come.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        self.limited_to(MAX_CONNECTIONS)
    }

    fn limited_to(self, connections: usize) -> impl Stream<Item = io::Result<Connection>> + Send {
        let limits = Limits {
            connections: Arc::new(Semaphore::new(connections)),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        };
        futures_util::stream::unfold((self.listener, limits), |(listener, limits)| async move {
            let connection = limits.next(&listener).await;
            Some((Ok(connection), (listener, limits)))
        })
    }
}

/// How many there may be.
struct Limits {
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Limits {
    /// The next connection that there is room for; others are refused.
    async fn next(&self, listener: &TcpListener) -> Connection {
        loop {
            let stream = accept(listener).await;
            if let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() {
                return Connection { stream, _permit: permit };
            }
            if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                tokio::spawn(async move {
                    // A client that is gone already needs no refusal.
                    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(stream)).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if stream.set_nodelay(true).is_ok() => return stream,
            // The client is gone already.
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says why, and reads what the client sends until it goes: closing a connection
/// with unread data would reset it, and the reason with it.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(REFUSAL).await?;
    stream.shutdown().await?;
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// One client's connection.
pub struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;

    #[test]
    fn a_refusal_is_two_frames() {
        let (settings, goaway) = REFUSAL.split_at(9);
        assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        let length = usize::from(goaway[2]);
        assert_eq!(goaway.len(), 9 + length);
        assert_eq!(&goaway[9 + 8..], b"too many connections");
    }

    #[tokio::test]
    async fn a_connection_over_the_limit_is_told_so() {
        let connections = TcpConnections::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = connections.local_address().unwrap();
        let mut incoming = std::pin::pin!(connections.limited_to(2));
        let mut open = Vec::new();
        for _ in 0..2 {
            let client = TcpStream::connect(address).await.unwrap();
            open.push((client, incoming.next().await.unwrap().unwrap()));
        }
        let client = async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"PRI * HTTP/2.0").await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, REFUSAL);
            drop(open.pop());
            TcpStream::connect(address).await.unwrap()
        };
        // The stream goes on, and gives out the connection that has room again.
        let (_client, served) = tokio::join!(client, incoming.next());
        served.unwrap().unwrap();
    }
}
