//! Sockets between a VM and its host, vsock(7), whose addresses rustix does not know.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::process::last_errno;

/// Connections that wait to be accepted.
const BACKLOG: libc::c_int = 128;

/// A blocking socket that listens on `port` of this machine.
///
/// # Errors
/// Of socket(2), bind(2) and listen(2); EAFNOSUPPORT on a kernel without vsock.
pub fn listen(port: u32) -> Result<OwnedFd, Errno> {
    let socket = socket()?;
    let address = address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the address lives during the call and has the length that is given.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), LENGTH) })?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

/// A blocking socket that is connected to `port` of the machine `cid`.
///
/// # Errors
/// Of socket(2) and connect(2): ENODEV without such a machine, ECONNRESET when it does not listen,
/// ETIMEDOUT when it does not answer within two seconds.
pub fn connect(cid: u32, port: u32) -> Result<OwnedFd, Errno> {
    let socket = socket()?;
    let address = address(cid, port);
    // SAFETY: the address lives during the call and has the length that is given.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), LENGTH) })?;
    Ok(socket)
}

const LENGTH: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all zeros is a valid address of no family.
    let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_vm>() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

fn socket() -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes numbers only.
    let descriptor = unsafe { libc::socket(libc::AF_VSOCK, kind, 0) };
    check(descriptor)?;
    // SAFETY: the kernel gave it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}
