//! Connections of all listeners as one stream, bounded in number.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::listener::{Accepted, Listener};
use crate::rights::Rights;

/// Connections at a time. Bazel opens up to 100; the rest is room for several clients on one
/// machine. The server guarantees some memory to each.
const MAX_CONNECTIONS: usize = 512;

/// What a connection over the limit is told: no settings, and a GOAWAY (RFC 9113, 6.8) of stream 0
/// with ENHANCE_YOUR_CALM and words that clients show.
const REFUSAL: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
\0\0\x1c\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0btoo many connections";

/// The time for a refused client to read that and go.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Refusals at a time; more connections are closed without a word.
const MAX_REFUSALS: usize = 64;

/// What a request knows of the connection that it came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The rights of a call without credentials.
    pub anonymous: Rights,
}

/// The connections of several listeners.
pub struct Connections {
    listeners: Vec<(Listener, Rights)>,
}

impl Connections {
    /// The connections of `listeners`, each with the rights of its anonymous callers. The owner of
    /// this process, and root, have all rights at a socket in the file system.
    pub fn new(listeners: Vec<(Listener, Rights)>) -> Self {
        Self { listeners }
    }

    /// The connections, as they come. Dropping the stream closes the listeners. Must be called
    /// within a tokio runtime.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        self.limited_to(MAX_CONNECTIONS)
    }

    fn limited_to(self, connections: usize) -> impl Stream<Item = io::Result<Connection>> + Send {
        let limits = Limits {
            connections: Arc::new(Semaphore::new(connections)),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        };
        let limits = Arc::new(limits);
        // The server takes them up at once: one place is enough.
        let (sender, receiver) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        for (listener, anonymous) in self.listeners {
            let (limits, sender) = (Arc::clone(&limits), sender.clone());
            tasks.spawn(async move {
                loop {
                    let connection = limits.next(&listener, anonymous).await;
                    if sender.send(connection).await.is_err() {
                        return;
                    }
                }
            });
        }
        futures_util::stream::unfold((receiver, tasks), |(mut receiver, tasks)| async move {
            let connection = receiver.recv().await?;
            Some((Ok(connection), (receiver, tasks)))
        })
    }
}

/// How many there may be, of all listeners together.
struct Limits {
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Limits {
    /// The next connection that there is room for; others are refused.
    async fn next(&self, listener: &Listener, anonymous: Rights) -> Connection {
        loop {
            let (stream, anonymous) = match listener.accept().await {
                Accepted::Tcp(stream) => (ClientStream::Tcp(stream), anonymous),
                Accepted::Unix(stream) => {
                    let rights = if is_owner(&stream) { Rights::ALL } else { anonymous };
                    (ClientStream::Unix(stream), rights)
                }
            };
            if let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() {
                return Connection { stream, caller: Caller { anonymous }, _permit: permit };
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

/// Whether the process at the other end runs as this process's user, or as root.
fn is_owner(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// Says why, and reads what the client sends until it goes: closing a connection with unread data
/// would reset it, and the reason with it.
async fn refuse(mut stream: ClientStream) -> io::Result<()> {
    stream.write_all(REFUSAL).await?;
    stream.shutdown().await?;
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// One client's connection.
pub struct Connection {
    stream: ClientStream,
    caller: Caller,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

enum ClientStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls a method of whichever stream it is.
macro_rules! delegate {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            ClientStream::Tcp($inner) => $call,
            ClientStream::Unix($inner) => $call,
        }
    };
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_write(context, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        delegate!(self, inner => inner.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(context))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Place, SocketMode};
    use std::os::unix::fs::PermissionsExt as _;
    use tokio_stream::StreamExt as _;

    async fn listen(text: &str) -> Listener {
        Listener::bind(&text.parse().unwrap(), SocketMode(0o600)).await.unwrap()
    }

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
        let listener = listen("127.0.0.1:0").await;
        let Place::Tcp(address) = *listener.place() else { panic!("a TCP listener") };
        let connections = Connections::new(vec![(listener, Rights::CLIENT)]);
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

    #[tokio::test]
    async fn listeners_share_a_stream_and_keep_their_rights() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let unix = listen(&format!("unix:{}", path.display())).await;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let tcp = listen("127.0.0.1:0").await;
        let Place::Tcp(address) = *tcp.place() else { panic!("a TCP listener") };
        let listeners = vec![(tcp, "read".parse().unwrap()), (unix, Rights::NONE)];
        let mut incoming = Box::pin(Connections::new(listeners).into_stream());
        let _client = TcpStream::connect(address).await.unwrap();
        let caller = incoming.next().await.unwrap().unwrap().connect_info();
        assert_eq!(caller.anonymous, "read".parse().unwrap());
        let _client = UnixStream::connect(&path).await.unwrap();
        let caller = incoming.next().await.unwrap().unwrap().connect_info();
        assert_eq!(caller.anonymous, Rights::ALL, "the owner of the socket");
        drop(incoming);
        // The tasks end soon after, and the file goes with its listener.
        while path.exists() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_socket_that_a_killed_server_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let place = format!("unix:{}", path.display());
        let listener = listen(&place).await;
        // One that is in use is not.
        let second = Listener::bind(&place.parse().unwrap(), SocketMode(0o600)).await;
        assert!(second.is_err());
        assert!(path.exists());
        drop(listener);
        std::fs::write(&path, "a file").unwrap();
        let second = Listener::bind(&place.parse().unwrap(), SocketMode(0o600)).await;
        assert!(second.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }
}
