//! Connections over the kernel's vsock.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use rustix::net::SocketFlags;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Connection;

/// The wait after a failed accept, so that a lack of descriptors is no busy loop.
const PAUSE: Duration = Duration::from_millis(50);

/// Listens on `port` and accepts connections, on a thread of its own: tokio has no listener for this
/// kind of socket.
pub(super) fn serve(port: u32, queue: mpsc::Sender<Connection>) -> io::Result<()> {
    let listener = sys::vsock::listen(port)?;
    let runtime = Handle::current();
    std::thread::Builder::new().name(format!("vsock {port}")).spawn(move || {
        // The runtime owns accepted connections.
        let _entered = runtime.enter();
        accept(&listener, &queue);
    })?;
    Ok(())
}

/// Accepts connections until nobody takes them any more.
fn accept(listener: &OwnedFd, queue: &mpsc::Sender<Connection>) {
    loop {
        let stream = match next(listener) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        if queue.blocking_send(Connection(Box::new(stream))).is_err() {
            return;
        }
    }
}

fn next(listener: &OwnedFd) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::accept_with(listener, flags)?;
    // Only its reading, writing and shutting down is used, which is the same for all sockets.
    UnixStream::from_std(StdUnixStream::from(socket))
}
