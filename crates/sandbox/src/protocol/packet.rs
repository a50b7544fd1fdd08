//! Packets with descriptors on a SOCK_SEQPACKET socket.
//!
//! A packet is one byte and a body. The byte is 0 if the body follows it, and 1 if the body is in
//! the first descriptor, a sealed memfd. The body is one message in postcard's encoding. Other
//! descriptors come as SCM_RIGHTS, in the order that the message defines.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bodies up to here travel in the packet: four times that fits the smallest
/// socket buffer that systems are set up with.
const INLINE_BYTES: usize = 32 << 10;

/// The longest body. execve(2) takes 6 MiB of arguments and environment at most
/// (three quarters of the largest stack that it counts with), and a PATH's
/// candidates add up to 1 MiB.
pub(crate) const MAX_BODY_BYTES: usize = 16 << 20;

/// Descriptors in one packet; the kernel's SCM_MAX_FD.
pub(crate) const MAX_DESCRIPTORS: usize = 253;

const BODY_FOLLOWS: u8 = 0;
const BODY_IN_MEMFD: u8 = 1;

/// A packet that could not be sent, received or understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PacketError {
    #[error(transparent)]
    Socket(#[from] Errno),
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    #[error("malformed packet")]
    Body(#[from] postcard::Error),
}

impl PacketError {
    /// The errno that tells it best.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Socket(errno) => *errno,
            Self::Malformed(_) | Self::Body(_) => Errno::BADMSG,
        }
    }
}

/// A received message with its descriptors.
#[derive(Debug)]
pub(crate) struct Packet<M> {
    pub(crate) message: M,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Two connected ends.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message; waits while the peer's buffer is full.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), PacketError> {
    // One allocation, and the byte in front of the body without a copy of it.
    let packet = postcard::to_extend(message, Vec::from([BODY_FOLLOWS]))?;
    let body = packet.get(1..).unwrap_or_default();
    if body.len() > MAX_BODY_BYTES || descriptors.len() >= MAX_DESCRIPTORS {
        return Err(Errno::TOOBIG.into());
    }
    if body.len() <= INLINE_BYTES {
        return Ok(send_bytes(socket, &packet, descriptors)?);
    }
    let memfd = sealed(body)?;
    let all: Vec<_> = [memfd.as_fd()].into_iter().chain(descriptors.iter().copied()).collect();
    Ok(send_bytes(socket, &[BODY_IN_MEMFD], &all)?)
}

fn send_bytes(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
    })
    .map(drop)
}

/// A memfd that can't change any more: the receiver may trust its length.
fn sealed(body: &[u8]) -> Result<OwnedFd, Errno> {
    let memfd = rustix::fs::memfd_create(
        c"sandbox-packet",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut rest = body;
    let mut offset = 0;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(&memfd, rest, offset))?;
        rest = rest.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    sys::memfd::add_seals(&memfd, seals)?;
    Ok(memfd)
}

/// Waits for a message; `None` when the peer is gone.
pub(crate) fn receive<M: DeserializeOwned>(
    socket: impl AsFd,
) -> Result<Option<Packet<M>>, PacketError> {
    let mut buffer = vec![0; 1 + INLINE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    });
    let message = match received {
        Err(Errno::CONNRESET) => return Ok(None),
        received => received?,
    };
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if message.bytes == 0 {
        return Ok(None);
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(PacketError::Malformed("truncated by the kernel"));
    }
    parse(buffer.get(..message.bytes).unwrap_or_default(), descriptors).map(Some)
}

fn parse<M: DeserializeOwned>(
    packet: &[u8],
    mut descriptors: Vec<OwnedFd>,
) -> Result<Packet<M>, PacketError> {
    let message = match packet {
        [BODY_FOLLOWS, body @ ..] => decode(body)?,
        [BODY_IN_MEMFD] if !descriptors.is_empty() => decode(&read_body(&descriptors.remove(0))?)?,
        _ => return Err(PacketError::Malformed("an unknown form")),
    };
    Ok(Packet { message, descriptors })
}

fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, PacketError> {
    match postcard::take_from_bytes(body)? {
        (message, []) => Ok(message),
        _ => Err(PacketError::Malformed("bytes after the message")),
    }
}

fn read_body(memfd: &OwnedFd) -> Result<Vec<u8>, PacketError> {
    let length = usize::try_from(rustix::fs::fstat(memfd)?.st_size).unwrap_or(usize::MAX);
    if length > MAX_BODY_BYTES {
        return Err(PacketError::Malformed("a body that is too long"));
    }
    let mut body = vec![0; length];
    let mut read = 0;
    while let Some(rest) = body.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match rustix::io::retry_on_intr(|| rustix::io::pread(memfd, &mut *rest, read as u64))? {
            0 => return Err(PacketError::Malformed("a body that is too short")),
            more => read += more,
        }
    }
    Ok(body)
}

/// The message of a packet without descriptors.
#[cfg(feature = "fuzzing")]
pub(crate) fn decode_inline<M: DeserializeOwned>(packet: &[u8]) -> Result<M, PacketError> {
    parse(packet, Vec::new()).map(|packet| packet.message)
}

/// The packet of a message that is short.
#[cfg(feature = "fuzzing")]
pub(crate) fn encode_inline(message: &impl Serialize) -> Result<Vec<u8>, PacketError> {
    Ok(postcard::to_extend(message, Vec::from([BODY_FOLLOWS]))?)
}

/// No flags, for tests that send bytes of their own.
#[cfg(test)]
pub(crate) fn no_flags() -> SendFlags {
    SendFlags::empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(body: Vec<u8>, descriptors: &[BorrowedFd<'_>]) -> Packet<Vec<u8>> {
        let (left, right) = pair().unwrap();
        send(&left, &body, descriptors).unwrap();
        receive(&right).unwrap().unwrap()
    }

    #[test]
    fn a_body_of_any_length_arrives() {
        for length in [0, 1, INLINE_BYTES - 3, INLINE_BYTES, INLINE_BYTES + 1, 3 << 20] {
            let body: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let packet = there_and_back(body.clone(), &[]);
            assert_eq!(packet.descriptors.len(), 0);
            assert!(packet.message == body, "{length} bytes");
        }
    }

    #[test]
    fn descriptors_arrive_in_order_and_close_on_exec() {
        let memfds: Vec<OwnedFd> =
            (0..MAX_DESCRIPTORS - 1).map(|index| sealed(&[index as u8]).unwrap()).collect();
        let borrowed: Vec<_> = memfds.iter().map(AsFd::as_fd).collect();
        let packet = there_and_back(vec![1; 100_000], &borrowed);
        assert_eq!(packet.descriptors.len(), borrowed.len());
        for (index, descriptor) in packet.descriptors.iter().enumerate() {
            let mut byte = [0];
            rustix::io::pread(descriptor, &mut byte, 0).unwrap();
            assert_eq!(byte, [index as u8]);
            assert!(
                rustix::io::fcntl_getfd(descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
            );
        }
    }

    #[test]
    fn a_packet_that_is_too_large_is_not_sent() {
        let (left, _right) = pair().unwrap();
        let error = send(&left, &vec![0_u8; MAX_BODY_BYTES + 1], &[]).unwrap_err();
        assert_eq!(error.errno(), Errno::TOOBIG);
        let many = vec![left.as_fd(); MAX_DESCRIPTORS];
        assert_eq!(send(&left, &0_u8, &many).unwrap_err().errno(), Errno::TOOBIG);
    }

    #[test]
    fn a_memfd_that_is_too_large_is_not_read() {
        let (left, right) = pair().unwrap();
        let memfd = rustix::fs::memfd_create(c"long", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, MAX_BODY_BYTES as u64 + 1).unwrap();
        send_bytes(&left, &[BODY_IN_MEMFD], &[memfd.as_fd()]).unwrap();
        let error = receive::<Vec<u8>>(&right).unwrap_err();
        assert!(matches!(error, PacketError::Malformed(_)), "{error}");
    }

    #[test]
    fn a_closed_peer_is_no_packet() {
        let (left, right) = pair().unwrap();
        drop(left);
        assert!(receive::<u8>(&right).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_malformed() {
        let check = |bytes: &[u8]| {
            let (left, right) = pair().unwrap();
            rustix::net::send(&left, bytes, SendFlags::empty()).unwrap();
            assert_eq!(receive::<u8>(&right).unwrap_err().errno(), Errno::BADMSG, "{bytes:?}");
        };
        check(&[BODY_FOLLOWS]);
        check(&[BODY_FOLLOWS, 1, 2]);
        check(&[BODY_IN_MEMFD]);
        check(&[2, 0]);
        check(&vec![0; 2 + INLINE_BYTES]);
    }
}
