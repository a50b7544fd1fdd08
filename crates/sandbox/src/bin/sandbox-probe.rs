//! Attempts from inside a sandbox that a shell cannot make.
//!
//! Prints what it found, or panics.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["connect", address] => connect(address),
        ["loopback"] => loopback(),
        ["resolve", name] => resolve(name),
        ["abstract", name] => bind_abstract(name),
        ["spawn-until-refused"] => spawn_until_refused(),
        ["allocate", bytes] => allocate(bytes.parse().expect("bytes")),
        ["leave-in-flight"] => leave_in_flight(),
        ["linger"] => linger(),
        other => panic!("unknown: {other:?}"),
    }
}

fn connect(address: &str) {
    let address: SocketAddr = address.parse().expect("an address");
    match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
        Ok(_) => println!("connected"),
        Err(error) => println!("{}", error.raw_os_error().unwrap_or(0)),
    }
}

/// A word there and back, over both families.
fn loopback() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).expect("a listener");
        let mut there =
            TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (mut here, _) = listener.accept().expect("a peer");
        there.write_all(b"word").expect("a write");
        let mut word = [0; 4];
        here.read_exact(&mut word).expect("a read");
        assert_eq!(&word, b"word");
    }
    let datagram = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    datagram.send_to(b"x", datagram.local_addr().expect("an address")).expect("a send");
    println!("ok");
}

fn resolve(name: &str) {
    let mut addresses: Vec<_> = (name, 0)
        .to_socket_addrs()
        .map(|addresses| addresses.map(|address| address.ip().to_string()).collect())
        .unwrap_or_default();
    addresses.sort();
    addresses.dedup();
    println!("{}", addresses.join(" "));
}

fn bind_abstract(name: &str) {
    let address = UnixAddress::from_abstract_name(name).expect("a name");
    match UnixListener::bind_addr(&address) {
        Ok(_) => println!("bound"),
        Err(error) => println!("{}", error.raw_os_error().unwrap_or(0)),
    }
}

/// The number of processes that there can be beside this one.
fn spawn_until_refused() {
    let mut children = Vec::new();
    while let Ok(child) = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn() {
        children.push(child);
        assert!(children.len() < 10_000, "no end");
    }
    println!("{}", children.len());
}

fn allocate(bytes: usize) {
    let mut memory: Vec<u8> = Vec::new();
    match memory.try_reserve_exact(bytes) {
        Ok(()) => println!("allocated"),
        Err(_) => println!("refused"),
    }
}

/// Sends each end of a socket pair and standard output through the pair itself and
/// closes them: only the kernel's collector of garbage can find them then.
fn leave_in_flight() {
    let (one, other) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::empty(), None)
            .expect("a pair");
    for (by, descriptor) in [(&one, &other), (&other, &one)] {
        let stdout = std::io::stdout();
        let passed = [descriptor.as_fd(), stdout.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
        rustix::net::sendmsg(by, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())
            .expect("a send");
    }
    println!("left");
}

/// Leaves a connection that the closing side would have to remember for a minute.
fn linger() {
    let listener = TcpListener::bind("127.0.0.1:4711").expect("the port");
    let there = TcpStream::connect("127.0.0.1:4711").expect("a connection");
    let (here, _) = listener.accept().expect("a peer");
    drop(here);
    drop(there);
    println!("lingered");
}
