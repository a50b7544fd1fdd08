//! Listening sockets, made by this process or inherited from systemd.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::accept::{accept_tcp, persistently};
use crate::address::{Endpoint, Listen, SocketMode};
use crate::rights::Rights;

/// Connections that wait to be accepted; the kernel bounds it further.
const BACKLOG: i32 = 1024;

/// The first descriptor that systemd hands over, by `sd_listen_fds(3)`.
const FIRST_INHERITED: i32 = 3;

/// The most sockets to inherit; a unit has a handful.
const MAX_INHERITED: u32 = 64;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: Socket,
    endpoint: Endpoint,
    /// The rights of callers without credentials, if its flag names them.
    anonymous: Option<Rights>,
    /// Whether clients speak TLS here, if the server has a certificate.
    may_have_tls: bool,
    /// Removes the socket's file at the end.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted stream.
pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An error of opening a listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The endpoint can't be bound.
    #[error("listening on {endpoint}")]
    Bind {
        /// The endpoint.
        endpoint: Endpoint,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A socket that was inherited can't be used.
    #[error("using the inherited descriptor {descriptor}")]
    Inherited {
        /// Its number.
        descriptor: i32,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// The file of a socket, gone with this.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Without it, the next start finds a file that nobody listens at, and replaces it.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError::Bind`].
    pub async fn bind(listen: &Listen, mode: SocketMode) -> Result<Self, BindError> {
        let Listen { endpoint, anonymous, tls } = listen;
        let (anonymous, may_have_tls) = (*anonymous, *tls);
        let failed = |source| BindError::Bind { endpoint: endpoint.clone(), source };
        match endpoint {
            Endpoint::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let endpoint = Endpoint::Tcp(listener.local_addr().map_err(failed)?);
                let socket = Socket::Tcp(listener);
                Ok(Self { socket, endpoint, anonymous, may_have_tls, _file: None })
            }
            Endpoint::Unix(path) => {
                let (socket, file) = bind_unix(path, mode).map_err(failed)?;
                let (socket, endpoint) = (Socket::Unix(socket), endpoint.clone());
                Ok(Self { socket, endpoint, anonymous, may_have_tls: false, _file: Some(file) })
            }
        }
    }

    /// Takes a socket that listens already.
    fn adopt(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        let family = rustix::net::getsockname(&socket)?.address_family();
        let (socket, endpoint) = match family {
            AddressFamily::UNIX => {
                let listener = std::os::unix::net::UnixListener::from(socket);
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or(Path::new("(unnamed)")).to_owned();
                (Socket::Unix(UnixListener::from_std(listener)?), Endpoint::Unix(path))
            }
            AddressFamily::INET | AddressFamily::INET6 => {
                let listener = std::net::TcpListener::from(socket);
                let endpoint = Endpoint::Tcp(listener.local_addr()?);
                (Socket::Tcp(TcpListener::from_std(listener)?), endpoint)
            }
            _ => return Err(io::Error::other("not a TCP or unix socket")),
        };
        let may_have_tls = matches!(endpoint, Endpoint::Tcp(_));
        Ok(Self { socket, endpoint, anonymous: None, may_have_tls, _file: None })
    }

    /// The endpoint that clients can connect to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The rights of callers without credentials, if its flag names them.
    pub fn anonymous(&self) -> Option<Rights> {
        self.anonymous
    }

    /// Whether clients speak TLS here, if the server has a certificate: at TCP ports without `tls=off`.
    pub fn may_have_tls(&self) -> bool {
        self.may_have_tls
    }

    /// Whether only processes of this machine can connect.
    pub fn is_local(&self) -> bool {
        match &self.endpoint {
            Endpoint::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Endpoint::Unix(_) => true,
        }
    }

    pub(crate) async fn accept(&self) -> Accepted {
        match &self.socket {
            Socket::Tcp(listener) => Accepted::Tcp(accept_tcp(listener).await),
            Socket::Unix(listener) => Accepted::Unix(persistently(|| listener.accept()).await.0),
        }
    }
}

/// Binds, sets the mode, and listens only then: nobody can connect before the mode is right.
fn bind_unix(path: &Path, mode: SocketMode) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(socket.as_fd(), &SocketAddrUnix::new(path)?)?;
    let file = SocketFile(path.to_owned());
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(mode.0))?;
    rustix::net::listen(socket.as_fd(), BACKLOG)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    Ok((UnixListener::from_std(listener)?, file))
}

/// Removes a socket at which nobody listens any more, as a killed daemon leaves it.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = path.symlink_metadata().is_ok_and(|it| it.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // Somebody listens, or it can't be told: binding fails and says so.
        _ => Ok(()),
    }
}

/// The number of sockets that systemd's socket activation hands over, from descriptor 3 on.
pub fn inherited_count() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let is_for_us = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|_| is_for_us).unwrap_or(0).min(MAX_INHERITED)
}

/// The sockets that systemd's socket activation hands over; none without it. Must be called at most
/// once, within a tokio runtime.
///
/// # Errors
/// [`BindError::Inherited`] where one can't be used.
pub fn inherited() -> Result<Vec<Listener>, BindError> {
    let end = FIRST_INHERITED + inherited_count() as i32;
    (FIRST_INHERITED..end)
        .map(|descriptor| {
            sys::process::inherited_descriptor(descriptor)
                .map_err(io::Error::from)
                .and_then(Listener::adopt)
                .map_err(|source| BindError::Inherited { descriptor, source })
        })
        .collect()
}
