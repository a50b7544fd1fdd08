//! An address for a server, which the kernel gives to no other program while it is reserved.
//!
//! A daemon under test is killed and started again, and must then be where its clients look for it. It can
//! keep no port while it does not run, and a port that was free a moment ago may be taken by any other
//! program. The reservation is a socket that is bound to the address and does not listen. Where a
//! program asks for any port, to listen or to connect, the kernel leaves out those that are bound. A server that
//! asks for this very port may listen on it, for both sockets allow the address to be reused, as those of
//! tokio do (`SO_REUSEADDR` in socket(7)).

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
};

use anyhow::{Context, Result};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with,
    sockopt::set_socket_reuseaddr,
};

/// An address of the loopback device.
#[derive(Debug)]
pub struct ReservedAddress {
    address: SocketAddr,
    _socket: OwnedFd,
}

impl ReservedAddress {
    /// Reserves a port that is free.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new() -> Result<Self> {
        let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
        let address = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok(Self { address, _socket: socket })
    }

    /// The address, at which one server after the other can listen.
    pub fn get(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    /// The standard library's listeners allow reuse, as tokio's do. A process that another test starts has the last
    /// listener until it executes its program, so this waits.
    fn listen(address: SocketAddr) -> TcpListener {
        let begun = Instant::now();
        loop {
            match TcpListener::bind(address) {
                Err(error)
                    if error.kind() == ErrorKind::AddrInUse
                        && begun.elapsed() < Duration::from_secs(300) => {}
                listening => return listening.unwrap(),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn one_server_after_the_other_listens_there() {
        let reserved = ReservedAddress::new().unwrap();
        for _ in 0..3 {
            let server = listen(reserved.get());
            let client = TcpStream::connect(reserved.get()).unwrap();
            // The side that closes first keeps the port busy for a while.
            drop(server.accept().unwrap());
            drop(client);
        }
    }

    #[test]
    fn connections_are_refused_without_a_server() {
        let reserved = ReservedAddress::new().unwrap();
        TcpStream::connect(reserved.get()).unwrap_err();
    }

    #[test]
    fn the_port_is_given_to_no_other_program() {
        let reserved = ReservedAddress::new().unwrap();
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        let SocketAddr::V4(address) = reserved.get() else { panic!("{}", reserved.get()) };
        let error = bind(&socket, &address).unwrap_err();
        assert_eq!(error, rustix::io::Errno::ADDRINUSE);
    }
}
