//! Connections of all listeners as one stream, bounded in number.
//!
//! ```text
//! accept ──► TLS handshake ──► permit ──► connection ──► first bytes of HTTP/2 ──► calls
//!            10 s, 256 open,   one of     the stream's   20 s
//!            oldest gives way  512        item
//! ```
//!
//! A client that stops halfway, on purpose or not, loses its place: each step before the first call has a
//! deadline, and a flood of handshakes displaces handshakes, not connections.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::authority::Lenient;
use crate::certificate::CertificateNames;
use crate::listener::{Accepted, Listener};
use crate::rights::Rights;
use crate::stream::ClientStream;
use crate::tcp_owner;
use crate::tls::Tls;

/// Connections at a time. Bazel opens up to 100; the rest is room for several clients on one
/// machine. The server guarantees some memory to each.
const MAX_CONNECTIONS: usize = 512;

/// The bytes with which every client of HTTP/2 begins (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// The time for a client to send them. Clients do it at once.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(20);

/// The answer to a connection over the limit: no settings, and a GOAWAY (RFC 9113, 6.8) of stream 0
/// with ENHANCE_YOUR_CALM and words that clients show.
const REFUSAL: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
\0\0\x1c\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0btoo many connections";

/// The time for a refused client to read that and go.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Refusals at a time; more connections are closed without a word.
const MAX_REFUSALS: usize = 64;

/// The facts that a request knows of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The rights of a call without credentials.
    pub anonymous: Rights,
    /// The names in the client's certificate, if it has shown one.
    pub certificate: Option<Arc<CertificateNames>>,
    /// Whether it is the owner of this process, or root, at a socket in the file system.
    pub is_owner: bool,
}

/// A listener, and what is asked of those who connect to it.
#[derive(Debug)]
pub struct Door {
    /// The listener.
    pub listener: Listener,
    /// The rights of callers without credentials. At a socket in the file system, the owner of this
    /// process and root have all rights.
    pub anonymous: Rights,
    /// TLS, for a TCP listener.
    pub tls: Option<Arc<Tls>>,
    /// The users who may connect to a TCP listener, if not all may.
    pub owners: Option<Owners>,
}

/// The users of this machine who may connect to a loopback port: the one of this process, root, and
/// another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owners {
    /// The other one.
    pub also: Option<u32>,
}

impl Owners {
    fn contains(self, user: u32) -> bool {
        user == 0 || user == rustix::process::geteuid().as_raw() || self.also == Some(user)
    }

    /// Whether one of them has made the connection; false if its owner is unknown.
    async fn have_made(self, stream: &TcpStream) -> bool {
        let (Ok(client), Ok(server)) = (stream.peer_addr(), stream.local_addr()) else {
            return false;
        };
        // The table is read in some microseconds, or milliseconds where there are many sockets.
        let found = tokio::task::spawn_blocking(move || tcp_owner::owner(client, server)).await;
        let user = found.ok().and_then(Result::ok).flatten();
        let is_one = user.is_some_and(|user| self.contains(user));
        if !is_one {
            tracing::debug!(%client, user, "a connection of another user was closed");
        }
        is_one
    }
}

/// The connections of several listeners.
pub struct Connections {
    doors: Vec<Door>,
}

impl Connections {
    /// The connections of those who come in by `doors`.
    pub fn new(doors: Vec<Door>) -> Self {
        Self { doors }
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
        for door in self.doors {
            let entry = Entry { limits: Arc::clone(&limits), sender: sender.clone() };
            tasks.spawn(entry.keep_open(door));
        }
        futures_util::stream::unfold((receiver, tasks), |(mut receiver, tasks)| async move {
            let connection = receiver.recv().await?;
            Some((Ok(connection), (receiver, tasks)))
        })
    }
}

/// The most connections of all listeners together.
struct Limits {
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

/// The way of accepted streams to the server.
#[derive(Clone)]
struct Entry {
    limits: Arc<Limits>,
    sender: mpsc::Sender<Connection>,
}

impl Entry {
    /// Accepts streams until the server takes no more connections.
    async fn keep_open(self, door: Door) {
        #[cfg(feature = "tls")]
        let mut handshakes = crate::handshakes::Handshakes::default();
        while !self.sender.is_closed() {
            let anonymous = door.anonymous;
            let accepted = door.listener.accept().await;
            if let (Accepted::Tcp(stream), Some(owners)) = (&accepted, door.owners)
                && !owners.have_made(stream).await
            {
                continue;
            }
            match (accepted, &door.tls) {
                (Accepted::Tcp(stream), None) => {
                    let caller = Caller { anonymous, certificate: None, is_owner: false };
                    self.admit(ClientStream::Tcp(stream), caller).await;
                }
                #[cfg(feature = "tls")]
                (Accepted::Tcp(stream), Some(tls)) => {
                    let (entry, tls) = (self.clone(), Arc::clone(tls));
                    handshakes.start(entry.admit_with_tls(stream, tls, anonymous));
                }
                // There are no values of `Tls`.
                #[cfg(not(feature = "tls"))]
                (Accepted::Tcp(_), Some(_)) => {}
                (Accepted::Unix(stream), _) => {
                    let is_owner = is_owner(&stream);
                    let anonymous = if is_owner { Rights::ALL } else { anonymous };
                    let caller = Caller { anonymous, certificate: None, is_owner };
                    let stream = Box::new(Lenient::new(stream));
                    self.admit(ClientStream::Unix(stream), caller).await;
                }
            }
        }
    }

    #[cfg(feature = "tls")]
    async fn admit_with_tls(self, stream: TcpStream, tls: Arc<Tls>, anonymous: Rights) {
        let peer = stream.peer_addr().ok();
        match tls.accept(stream).await {
            Ok((stream, names)) => {
                let certificate = names.map(Arc::new);
                let caller = Caller { anonymous, certificate, is_owner: false };
                self.admit(ClientStream::Tls(Box::new(stream)), caller).await;
            }
            // Anybody can cause these lines, so they are not for the usual log.
            Err(error) => {
                let error = chain::Chain(&error).to_string();
                tracing::debug!(?peer, error, "a TLS handshake failed");
            }
        }
    }

    /// Hands the stream to the server if there is room for it, and refuses it otherwise.
    async fn admit(&self, stream: ClientStream, caller: Caller) {
        if let Ok(permit) = Arc::clone(&self.limits.connections).try_acquire_owned() {
            // Without a receiver, the server is about to end.
            let _ = self.sender.send(Connection::new(stream, caller, permit)).await;
            return;
        }
        if let Ok(permit) = Arc::clone(&self.limits.refusals).try_acquire_owned() {
            tokio::spawn(async move {
                // A client that is gone already needs no refusal.
                let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(stream)).await;
                drop(permit);
            });
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
    preface: Option<Preface>,
    _permit: OwnedSemaphorePermit,
}

/// The first bytes of a client that are not all there.
struct Preface {
    missing_bytes: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: ClientStream, caller: Caller, permit: OwnedSemaphorePermit) -> Self {
        let deadline = Box::pin(tokio::time::sleep_until(Instant::now() + PREFACE_TIMEOUT));
        let preface = Some(Preface { missing_bytes: PREFACE_BYTES, deadline });
        Self { stream, caller, preface, _permit: permit }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, preface, .. } = self.get_mut();
        let filled = buffer.filled().len();
        let polled = Pin::new(stream).poll_read(context, buffer);
        let Some(missing) = preface else { return polled };
        missing.missing_bytes =
            missing.missing_bytes.saturating_sub(buffer.filled().len() - filled);
        if missing.missing_bytes == 0 {
            *preface = None;
        } else if polled.is_pending() && missing.deadline.as_mut().poll(context).is_ready() {
            let text = "the client did not begin to speak HTTP/2";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        polled
    }
}

crate::write_through!(Connection, stream);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Endpoint, SocketMode};
    use std::os::unix::fs::PermissionsExt as _;
    use tokio_stream::StreamExt as _;

    async fn listen(text: &str) -> Listener {
        Listener::bind(&text.parse().unwrap(), SocketMode(0o600)).await.unwrap()
    }

    fn door(listener: Listener, anonymous: Rights) -> Door {
        Door { listener, anonymous, tls: None, owners: None }
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
        let Endpoint::Tcp(address) = *listener.endpoint() else { panic!("a TCP listener") };
        let connections = Connections::new(vec![door(listener, Rights::CLIENT)]);
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

    /// At a socket in the file system, for what is written there can be read at once: the clock of this
    /// test must not go on before.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_loses_its_connection() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = listen(&format!("unix:{}", path.display())).await;
        let connections = Connections::new(vec![door(listener, Rights::CLIENT)]);
        let mut incoming = std::pin::pin!(connections.into_stream());
        let mut buffer = [0; 64];
        let mut client = UnixStream::connect(&path).await.unwrap();
        let mut halting = incoming.next().await.unwrap().unwrap();
        client.write_all(b"PRI * HTTP/2.0").await.unwrap();
        assert_eq!(halting.read(&mut buffer).await.unwrap(), 14);
        let ended = halting.read(&mut buffer).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        // One that has begun may be silent for longer.
        let mut client = UnixStream::connect(&path).await.unwrap();
        let mut begun = incoming.next().await.unwrap().unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        assert_eq!(begun.read(&mut buffer).await.unwrap(), PREFACE_BYTES);
        let silence = tokio::time::timeout(10 * PREFACE_TIMEOUT, begun.read(&mut buffer)).await;
        assert!(silence.is_err(), "{silence:?}");
    }

    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn clients_that_stop_in_the_handshake_keep_nobody_out() {
        use crate::handshakes::MAX_HANDSHAKES;
        use testkit::pki::{Authority, Request};
        use testkit::tls::TlsClient;

        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("servers").unwrap();
        let identity = authority.sign(Request::server(&["127.0.0.1"]).unwrap()).unwrap();
        let files = identity.write(directory.path(), "server").unwrap();
        let (certificate, key) = (files.certificate, files.key);
        let tls = Tls::open(crate::TlsFiles { certificate, key, client_ca: None }).unwrap();
        let listener = listen("127.0.0.1:0").await;
        let Endpoint::Tcp(address) = *listener.endpoint() else { panic!("a TCP listener") };
        let door = Door { tls: Some(Arc::new(tls)), ..door(listener, Rights::CLIENT) };
        // One connection only: those that stop halfway don't take it.
        let mut incoming = std::pin::pin!(Connections::new(vec![door]).limited_to(1));
        let client = TlsClient::new(&authority, None).unwrap();
        let come = async {
            let mut halting = Vec::new();
            for _ in 0..MAX_HANDSHAKES + 20 {
                halting.push(TcpStream::connect(address).await.unwrap());
            }
            (client.stream(address, "127.0.0.1").await.unwrap(), halting)
        };
        let ((_stream, halting), served) = tokio::join!(come, incoming.next());
        assert_eq!(served.unwrap().unwrap().connect_info().certificate, None);
        // The oldest gave way.
        let mut oldest = halting.into_iter().next().unwrap();
        assert!(matches!(oldest.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn a_port_for_its_owner_serves_its_owner() {
        let listener = listen("127.0.0.1:0").await;
        let Endpoint::Tcp(address) = *listener.endpoint() else { panic!("a TCP listener") };
        let door = Door { owners: Some(Owners { also: None }), ..door(listener, Rights::CLIENT) };
        let mut incoming = std::pin::pin!(Connections::new(vec![door]).into_stream());
        let (client, served) = tokio::join!(TcpStream::connect(address), incoming.next());
        client.unwrap();
        served.unwrap().unwrap();
    }

    #[test]
    fn owners_are_this_user_and_root_and_the_other_one() {
        let own = rustix::process::geteuid().as_raw();
        let check = |also, user, expected| {
            assert_eq!(Owners { also }.contains(user), expected, "{also:?} {user}");
        };
        check(None, own, true);
        check(None, 0, true);
        check(None, own + 1, false);
        check(Some(own + 1), own + 1, true);
        check(Some(own + 1), own + 2, false);
    }

    #[tokio::test]
    async fn listeners_share_a_stream_and_keep_their_rights() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let unix = listen(&format!("unix:{}", path.display())).await;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let tcp = listen("127.0.0.1:0").await;
        let Endpoint::Tcp(address) = *tcp.endpoint() else { panic!("a TCP listener") };
        let doors = vec![door(tcp, "read".parse().unwrap()), door(unix, Rights::NONE)];
        let mut incoming = Box::pin(Connections::new(doors).into_stream());
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
        let endpoint = format!("unix:{}", path.display());
        let listener = listen(&endpoint).await;
        // One that is in use is not.
        let second = Listener::bind(&endpoint.parse().unwrap(), SocketMode(0o600)).await;
        assert!(second.is_err());
        assert!(path.exists());
        drop(listener);
        std::fs::write(&path, "a file").unwrap();
        let second = Listener::bind(&endpoint.parse().unwrap(), SocketMode(0o600)).await;
        assert!(second.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }
}
