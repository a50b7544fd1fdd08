//! The guest's two ports, over vsock or the mux.
//!
//! One task accepts all connections and hands them to one queue per port, so that the guest serves the
//! control port even while a thousand connections wait at the other.

mod port;
mod vsock;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tonic::transport::server::Connected;
use vm::{CONTROL_PORT, GRPC_PORT, GuestStream, mux};

use crate::settings::Transport;

/// The ports that the guest serves.
const PORTS: [u32; 2] = [CONTROL_PORT, GRPC_PORT];

/// Connections that were accepted and are not served yet, a port. Their servers take them up at once.
const QUEUE: usize = 64;

/// A connection from the host.
pub struct Connection(Box<dyn GuestStream>);

/// The connections to both ports.
pub struct Ports {
    /// Those for the control protocol.
    pub control: mpsc::Receiver<Connection>,
    /// Those for gRPC.
    pub grpc: mpsc::Receiver<Connection>,
}

/// Serves both ports. Needs a tokio runtime.
///
/// # Errors
/// When this machine does not have that transport.
pub async fn listen(transport: Transport) -> io::Result<Ports> {
    let (control, control_taken) = mpsc::channel(QUEUE);
    let (grpc, grpc_taken) = mpsc::channel(QUEUE);
    match transport {
        Transport::Vsock => {
            vsock::serve(CONTROL_PORT, control)?;
            vsock::serve(GRPC_PORT, grpc)?;
        }
        Transport::Mux => {
            let (mut acceptor, driver) = mux::guest(port::open().await?, &PORTS);
            tokio::spawn(async move {
                let ended = driver.await;
                tracing::error!(?ended, "the host is gone");
            });
            tokio::spawn(async move {
                while let Some((port, stream)) = acceptor.accept().await {
                    let queue = if port == CONTROL_PORT { &control } else { &grpc };
                    // An error means that the port is not served any more: the connection is reset.
                    let _ = queue.send(Connection(Box::new(stream))).await;
                }
            });
        }
    }
    Ok(Ports { control: control_taken, grpc: grpc_taken })
}

/// The connections of a queue as servers like them.
pub fn incoming(
    queue: mpsc::Receiver<Connection>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    stream::unfold(queue, |mut queue| async move {
        let connection = queue.recv().await?;
        Some((Ok(connection), queue))
    })
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
