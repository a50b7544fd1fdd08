//! Attempts to reach other machines, the host, and other sandboxes.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::time::Duration;

use crate::{Outcome, errno, races};

fn tell<T>(result: &std::io::Result<T>) {
    println!("{}", result.as_ref().map_or_else(errno::of, |_| "connected".to_owned()));
}

/// Prints `connected` or the error.
pub(crate) fn connect(address: &str) -> Outcome {
    let address: SocketAddr = address.parse().map_err(|error| format!("{error}"))?;
    tell(&TcpStream::connect_timeout(&address, Duration::from_secs(2)));
    Ok(())
}

/// The same for an abstract name.
pub(crate) fn connect_abstract(name: &str) -> Outcome {
    let address = UnixAddress::from_abstract_name(name).map_err(|error| error.to_string())?;
    tell(&UnixStream::connect_addr(&address));
    Ok(())
}

/// The same for a socket in the file system.
pub(crate) fn connect_path(path: &str) -> Outcome {
    tell(&UnixStream::connect(path));
    Ok(())
}

/// Leaves what a network namespace can keep: closed connections, bound names,
/// sockets in flight in a socket.
pub(crate) fn leave() -> Outcome {
    let attempt = || -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:4711")?;
        for _ in 0..20 {
            let mut there = TcpStream::connect("127.0.0.1:4711")?;
            let (here, _) = listener.accept()?;
            there.write_all(b"left")?;
            drop((there, here));
        }
        let datagram = UdpSocket::bind("127.0.0.1:4711")?;
        let named = UnixListener::bind_addr(&UnixAddress::from_abstract_name("left")?)?;
        for socket in [datagram.into(), listener.into(), named.into()] {
            races::put_in_flight(socket)?;
        }
        Ok(())
    };
    attempt().map_err(|error| format!("leaving sockets: {error}"))
}
