//! Many connections over the one byte stream between host and guest.
//!
//! Where there is no vsock, QEMU has a virtio-serial port: a single stream of bytes, fast, with no
//! daemon beside it. The yamux protocol divides it into connections, each with flow control of its
//! own (a window of 256 KiB), so that a slow reader holds up nobody else. The host opens all
//! connections, each of which begins with this exchange:
//!
//! ```text
//!  host ──► guest   the port, u32 little endian
//!  guest ──► host   one byte 0x01: somebody listens there; else the connection is closed
//! ```
//! As long as the guest has not booted, what the host sends waits in the virtio-serial port. There is
//! no second session on one stream; a guest that comes back is a new machine.

use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, ConnectionError, Mode};

/// The name of the virtio-serial port that carries it.
pub const PORT_NAME: &str = "dev.actiond.mux";

/// Connections at a time. Bazel opens up to 100; a test farm of clients behind one VM stays below
/// this, and 256 KiB of window for each that is read slowly is all the memory they can take.
pub const MAX_CONNECTIONS: usize = 2048;

/// By how much all windows together may grow where a reader is fast, in bytes.
const WINDOW_GROWTH_BYTES: usize = 64 << 20;

/// The window that each connection begins with, in bytes; yamux's own number.
const WINDOW_BYTES: usize = yamux::DEFAULT_CREDIT as usize;

/// Bytes that are put together to one write: frames have a header of 12 bytes, and each write to a
/// virtio-serial port is a descriptor and a notification.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Requests to open a connection that wait for the driver. It takes them up at once, so this only
/// evens out bursts.
const OPEN_QUEUE: usize = 64;

/// Accepted connections that nobody took yet, per guest.
const ACCEPT_QUEUE: usize = 64;

/// The bound on the time of the first exchange: the host sends its part along with the opening.
const PORT_TIMEOUT: Duration = Duration::from_secs(10);

/// One connection. Shutting down its writing half leaves the other open; dropping it unfinished
/// resets it.
pub type MuxStream = Compat<yamux::Stream>;

/// The guest's byte that accepts a connection.
const ACCEPTED: [u8; 1] = [1];

/// Errors of opening a connection.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No process in the guest listens on the port.
    #[error("no server listens on the guest's port")]
    Refused,
    /// The stream underneath is gone.
    #[error("the connection to the guest is gone")]
    Gone,
    /// [`MAX_CONNECTIONS`] are open.
    #[error("{MAX_CONNECTIONS} connections to the guest are open")]
    TooMany,
}

/// The host's handle: opens connections.
#[derive(Debug, Clone)]
pub struct Opener {
    requests: mpsc::Sender<OpenRequest>,
}

type OpenRequest = oneshot::Sender<Result<yamux::Stream, OpenError>>;

/// The host's end of `stream`. Nothing happens unless the returned future is polled; it ends with
/// the stream.
pub fn host<T>(stream: T) -> (Opener, impl Future<Output = io::Result<()>> + Send)
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (requests, waiting) = mpsc::channel(OPEN_QUEUE);
    // A guest that opens connections of its own is not ours: they are dropped, which resets them.
    let driver = drive(connection(stream, Mode::Client), Some(waiting), drop);
    (Opener { requests }, driver)
}

impl Opener {
    /// Opens a connection to `port` of the guest, as soon as the guest is there to take it. Dropping
    /// the future drops the connection.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, port: u32) -> Result<MuxStream, OpenError> {
        let (answer, opened) = oneshot::channel();
        self.requests.send(answer).await.map_err(|_| OpenError::Gone)?;
        let mut stream = opened.await.map_err(|_| OpenError::Gone)??.compat();
        stream.write_all(&port.to_le_bytes()).await.map_err(|_| OpenError::Gone)?;
        let mut answer = [0; ACCEPTED.len()];
        match stream.read_exact(&mut answer).await {
            Ok(_) if answer == ACCEPTED => Ok(stream),
            _ => Err(OpenError::Refused),
        }
    }
}

/// The guest's handle: connections as they come, each with the port that it is meant for.
#[derive(Debug)]
pub struct Acceptor {
    accepted: mpsc::Receiver<(u32, MuxStream)>,
}

/// The guest's end of `stream`, which takes connections to those `ports`. Nothing happens unless the
/// returned future is polled, within a tokio runtime; it ends with the stream.
pub fn guest<T>(
    stream: T,
    ports: &'static [u32],
) -> (Acceptor, impl Future<Output = io::Result<()>> + Send)
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (accepted, taken) = mpsc::channel(ACCEPT_QUEUE);
    let driver = drive(connection(stream, Mode::Server), None, move |stream| {
        tokio::spawn(announce(stream.compat(), ports, accepted.clone()));
    });
    (Acceptor { accepted: taken }, driver)
}

impl Acceptor {
    /// The next connection and its port; `None` when the stream underneath is gone.
    pub async fn accept(&mut self) -> Option<(u32, MuxStream)> {
        self.accepted.recv().await
    }
}

/// Takes a new connection, if its port is one of `ports`, and hands both on.
async fn announce(
    stream: MuxStream,
    ports: &'static [u32],
    accepted: mpsc::Sender<(u32, MuxStream)>,
) {
    // In any other case the connection is dropped, which resets it.
    if let Ok(Ok(taken)) = tokio::time::timeout(PORT_TIMEOUT, take(stream, ports)).await
        && let Some(taken) = taken
    {
        // An error means that nobody accepts any more.
        let _ = accepted.send(taken).await;
    }
}

/// The guest's part of the first exchange; `None` for a port that is not one of `ports`.
async fn take(mut stream: MuxStream, ports: &[u32]) -> io::Result<Option<(u32, MuxStream)>> {
    let mut port = [0; 4];
    stream.read_exact(&mut port).await?;
    let port = u32::from_le_bytes(port);
    if !ports.contains(&port) {
        return Ok(None);
    }
    stream.write_all(&ACCEPTED).await?;
    Ok(Some((port, stream)))
}

type Io<T> = Compat<BufWriter<T>>;

fn connection<T: AsyncRead + AsyncWrite + Unpin>(stream: T, mode: Mode) -> Connection<Io<T>> {
    let mut config = Config::default();
    // In two steps, as each checks against the other: first the windows, then the number.
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(MAX_CONNECTIONS);
    let windows = MAX_CONNECTIONS * WINDOW_BYTES + WINDOW_GROWTH_BYTES;
    config.set_max_connection_receive_window(Some(windows));
    Connection::new(BufWriter::with_capacity(WRITE_BUFFER_BYTES, stream).compat(), config, mode)
}

/// Moves bytes, serves `requests`, and gives `inbound` the connections that the other side opens.
async fn drive<T>(
    mut connection: Connection<Io<T>>,
    mut requests: Option<mpsc::Receiver<OpenRequest>>,
    mut inbound: impl FnMut(yamux::Stream),
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = None;
    poll_fn(|context| {
        loop {
            if request.is_none() {
                request = next_request(&mut requests, context);
            }
            if let Some(waiting) = request.take() {
                match connection.poll_new_outbound(context) {
                    Poll::Pending => request = Some(waiting),
                    // One who stopped waiting drops the stream.
                    Poll::Ready(opened) => drop(waiting.send(opened.map_err(open_error))),
                }
                if request.is_none() {
                    continue;
                }
            }
            match connection.poll_next_inbound(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(stream))) => inbound(stream),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
    })
    .await
}

fn next_request(
    requests: &mut Option<mpsc::Receiver<OpenRequest>>,
    context: &mut Context<'_>,
) -> Option<OpenRequest> {
    match requests.as_mut()?.poll_recv(context) {
        Poll::Ready(Some(request)) => Some(request),
        Poll::Pending => None,
        Poll::Ready(None) => {
            *requests = None;
            None
        }
    }
}

fn open_error(error: ConnectionError) -> OpenError {
    match error {
        ConnectionError::TooManyStreams => OpenError::TooMany,
        _ => OpenError::Gone,
    }
}

#[cfg(test)]
mod tests;
