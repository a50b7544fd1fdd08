//! Connections over TCP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Connections at a time. Bazel opens up to 100; the rest is room for several
/// clients on one machine. At the limit, new ones wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 1024;

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
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        futures_util::stream::unfold((self.listener, free), |(listener, free)| async move {
            let connection = accept(&listener, &free).await?;
            Some((Ok(connection), (listener, free)))
        })
    }
}

/// The next connection, as soon as there is room for it. `None` never comes: the
/// semaphore is not closed.
async fn accept(listener: &TcpListener, free: &Arc<Semaphore>) -> Option<Connection> {
    let permit = Arc::clone(free).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) if stream.set_nodelay(true).is_ok() => {
                return Some(Connection { stream, _permit: permit });
            }
            // The client is gone already.
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
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
