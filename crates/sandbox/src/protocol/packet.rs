//! Packets with descriptors on a SOCK_SEQPACKET socket; see `message` for the
//! layout.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::protocol::wire::Malformed;

/// Bodies up to here travel in the packet: four times that fits the smallest
/// socket buffer that systems are set up with.
const INLINE_BYTES: usize = 32 << 10;

/// The longest body. execve(2) takes 6 MiB of arguments and environment at most
/// (three quarters of the largest stack that it counts with), and a PATH's
/// candidates add up to 1 MiB.
pub(crate) const MAX_BODY_BYTES: usize = 16 << 20;

/// Descriptors in one packet; the kernel's SCM_MAX_FD.
pub(crate) const MAX_DESCRIPTORS: usize = 253;

const VERSION: u16 = 1;
const HEADER_BYTES: usize = 12;
const BODY_IN_MEMFD: u32 = 1;

/// Why no packet came, or none could be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("{0}")]
    Socket(#[from] Errno),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl PacketError {
    /// The errno that tells it best.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Socket(errno) => *errno,
            Self::Malformed(_) => Errno::BADMSG,
        }
    }
}

/// A packet that came.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Two connected ends.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one packet; waits while the peer's buffer is full.
pub(crate) fn send(
    socket: impl AsFd,
    (kind, body): (u16, Vec<u8>),
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), PacketError> {
    if body.len() > MAX_BODY_BYTES || descriptors.len() >= MAX_DESCRIPTORS {
        return Err(Errno::TOOBIG.into());
    }
    if body.len() <= INLINE_BYTES {
        return Ok(send_parts(socket, header(kind, 0, body.len()), &body, descriptors)?);
    }
    let memfd = sealed(&body)?;
    let mut all = vec![memfd.as_fd()];
    all.extend_from_slice(descriptors);
    Ok(send_parts(socket, header(kind, BODY_IN_MEMFD, body.len()), &[], &all)?)
}

fn header(kind: u16, flags: u32, length: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..2].copy_from_slice(&VERSION.to_le_bytes());
    header[2..4].copy_from_slice(&kind.to_le_bytes());
    header[4..8].copy_from_slice(&flags.to_le_bytes());
    header[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    header
}

fn send_parts(
    socket: impl AsFd,
    header: [u8; HEADER_BYTES],
    body: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let parts = [IoSlice::new(&header), IoSlice::new(body)];
    loop {
        match rustix::net::sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop),
        }
    }
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
    rustix::fs::fcntl_add_seals(&memfd, seals)?;
    Ok(memfd)
}

/// Waits for a packet; `None` when the peer is gone.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<Packet>, PacketError> {
    let mut buffer = vec![0; HEADER_BYTES + INLINE_BYTES];
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
        return Err(Malformed("truncated by the kernel").into());
    }
    buffer.truncate(message.bytes);
    parse(buffer, descriptors).map(Some)
}

fn parse(mut packet: Vec<u8>, mut descriptors: Vec<OwnedFd>) -> Result<Packet, PacketError> {
    let (header, inline) =
        packet.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed("shorter than its header"))?;
    let [v0, v1, k0, k1, f0, f1, f2, f3, l0, l1, l2, l3] = *header;
    if u16::from_le_bytes([v0, v1]) != VERSION {
        return Err(Malformed("another version").into());
    }
    let kind = u16::from_le_bytes([k0, k1]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let body = match u32::from_le_bytes([f0, f1, f2, f3]) {
        0 if inline.len() == length => packet.split_off(HEADER_BYTES),
        BODY_IN_MEMFD if inline.is_empty() && !descriptors.is_empty() => {
            read_body(&descriptors.remove(0), length)?
        }
        _ => return Err(Malformed("another length than announced").into()),
    };
    Ok(Packet { kind, body, descriptors })
}

fn read_body(memfd: &OwnedFd, length: usize) -> Result<Vec<u8>, PacketError> {
    if length > MAX_BODY_BYTES {
        return Err(Malformed("a body that is too long").into());
    }
    let mut body = vec![0; length];
    let mut read = 0;
    while let Some(rest) = body.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match rustix::io::retry_on_intr(|| rustix::io::pread(memfd, &mut *rest, read as u64))? {
            0 => return Err(Malformed("a body that is too short").into()),
            more => read += more,
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(body: Vec<u8>, descriptors: &[BorrowedFd<'_>]) -> Packet {
        let (left, right) = pair().unwrap();
        send(&left, (7, body), descriptors).unwrap();
        receive(&right).unwrap().unwrap()
    }

    #[test]
    fn a_body_of_any_length_arrives() {
        for length in [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 3 << 20] {
            let body: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let packet = there_and_back(body.clone(), &[]);
            assert_eq!((packet.kind, packet.descriptors.len()), (7, 0));
            assert!(packet.body == body, "{length} bytes");
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
    fn what_is_too_large_is_not_sent() {
        let (left, _right) = pair().unwrap();
        let error = send(&left, (7, vec![0; MAX_BODY_BYTES + 1]), &[]).unwrap_err();
        assert_eq!(error.errno(), Errno::TOOBIG);
        let many = vec![left.as_fd(); MAX_DESCRIPTORS];
        assert_eq!(send(&left, (7, vec![]), &many).unwrap_err().errno(), Errno::TOOBIG);
    }

    #[test]
    fn a_closed_peer_is_no_packet() {
        let (left, right) = pair().unwrap();
        drop(left);
        assert!(receive(&right).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_malformed() {
        let check = |bytes: &[u8]| {
            let (left, right) = pair().unwrap();
            rustix::net::send(&left, bytes, SendFlags::empty()).unwrap();
            assert!(matches!(receive(&right), Err(PacketError::Malformed(_))), "{bytes:?}");
        };
        check(&[1]);
        check(&header(7, 0, 1));
        check(&header(7, BODY_IN_MEMFD, 1));
        check(&header(7, 2, 0));
        let mut other_version = header(7, 0, 0);
        other_version[0] = 2;
        check(&other_version);
        check(&[header(7, 0, 0).as_slice(), &[0]].concat());
        check(&vec![0; HEADER_BYTES + INLINE_BYTES + 1]);
    }
}
