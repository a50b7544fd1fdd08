//! Requests over sockets in the file system whose `:authority` is the path of the socket.
//!
//! grpc-java, and so Bazel, sends the path as it is, and gRPC's C core sends it with percent signs. Neither is an
//! authority by RFC 3986, and the HTTP/2 server resets such a stream with PROTOCOL_ERROR. At such a socket the
//! authority says nothing, so its characters that no authority has are replaced by `-` on the way in.
//!
//! ```text
//! bytes of the client ──► frames ──┬─ HEADERS: `:authority` is looked for ─┬─► HTTP/2 server
//!                                  └─ all others, as they are ─────────────┘
//! ```
//!
//! A value keeps its length, because the length counts in HPACK's dynamic table (RFC 7541, 4.1), which client and
//! server keep alike. So nothing else of a connection has to be known. Whatever can't be parsed goes on unchanged,
//! and the server judges it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::hpack;

/// The connection preface of clients (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// A frame's length, type, flags and stream.
const FRAME_HEADER_BYTES: usize = 9;
/// The type of a frame that begins a request.
const HEADERS: u8 = 1;
/// The flag of padding, whose length is the first byte.
const PADDED: u8 = 0x8;
/// The flag of five bytes of priority before the headers.
const PRIORITY: u8 = 0x20;
/// Longer frames of headers go on unchanged: the largest that a client may send unless it is told of more. This
/// bounds what is held.
const HEADERS_BYTES_MAX: usize = 16_384;

/// A client's stream, with authorities that the server takes.
pub(crate) struct Lenient<S> {
    stream: S,
    filter: Filter,
}

impl<S> Lenient<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, filter: Filter::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, filter } = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        while filter.ready.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut *stream).poll_read(context, buffer))?;
            let read = &buffer.filled()[before..];
            if read.is_empty() {
                // The client is gone, maybe in the middle of a frame.
                filter.finish();
                break;
            }
            let passed = filter.take(read);
            buffer.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        filter.give(buffer);
        Poll::Ready(Ok(()))
    }
}

crate::write_through!(Lenient<S>, stream, S);

/// The frames of a client.
struct Filter {
    /// The bytes that go on as they are: the rest of a frame without headers.
    skip: usize,
    /// The beginning of a frame.
    pending: Vec<u8>,
    /// Bytes that the server has not read yet.
    ready: Vec<u8>,
    /// How much of `ready` it has read.
    given: usize,
}

impl Filter {
    fn new() -> Self {
        Self { skip: PREFACE_BYTES, pending: Vec::new(), ready: Vec::new(), given: 0 }
    }

    /// Takes what a client sent. Returns how many bytes at its beginning go on from where they are; the others
    /// are kept.
    fn take(&mut self, read: &[u8]) -> usize {
        let passed = if self.pending.is_empty() { self.pass(read) } else { 0 };
        self.pending.extend_from_slice(&read[passed..]);
        self.sort();
        passed
    }

    /// Goes over frames without headers, up to the first with some or the end.
    fn pass(&mut self, read: &[u8]) -> usize {
        let mut passed = 0;
        loop {
            let skipped = self.skip.min(read.len() - passed);
            self.skip -= skipped;
            passed += skipped;
            match read[passed..].first_chunk() {
                Some(header) if !has_headers(header) => {
                    self.skip = FRAME_HEADER_BYTES + frame_length(header);
                }
                _ => return passed,
            }
        }
    }

    /// Moves whole frames, and parts of those without headers, to what is ready.
    fn sort(&mut self) {
        let mut rest = &self.pending[..];
        loop {
            let (skipped, after) = rest.split_at(self.skip.min(rest.len()));
            self.ready.extend_from_slice(skipped);
            self.skip -= skipped.len();
            rest = after;
            let Some((header, payload)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() else {
                break;
            };
            let length = frame_length(header);
            if !has_headers(header) {
                self.skip = FRAME_HEADER_BYTES + length;
                continue;
            }
            let Some((payload, after)) = payload.split_at_checked(length) else { break };
            match rewritten(header[4], payload) {
                Some(payload) => {
                    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
                    self.ready.extend_from_slice(&[high, middle, low]);
                    self.ready.extend_from_slice(&header[3..]);
                    self.ready.extend_from_slice(&payload);
                }
                None => self.ready.extend_from_slice(&rest[..FRAME_HEADER_BYTES + length]),
            }
            rest = after;
        }
        // Connections that wait hold nothing.
        self.pending = rest.to_vec();
    }

    /// Passes an incomplete frame on, too.
    fn finish(&mut self) {
        self.ready.append(&mut self.pending);
    }

    /// Gives what is ready, as far as there is room.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = &self.ready[self.given..];
        let given = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..given]);
        self.given += given;
        if self.given == self.ready.len() {
            self.ready = Vec::new();
            self.given = 0;
        }
    }
}

fn frame_length(header: &[u8; FRAME_HEADER_BYTES]) -> usize {
    u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize
}

/// Whether a frame has headers to look at.
fn has_headers(header: &[u8; FRAME_HEADER_BYTES]) -> bool {
    header[3] == HEADERS && frame_length(header) <= HEADERS_BYTES_MAX
}

/// The payload of a HEADERS frame with another authority; `None` where it stays as it is.
fn rewritten(flags: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let (padding, before) = match flags & PADDED {
        0 => (0, 0),
        _ => (usize::from(*payload.first()?), 1),
    };
    let before = if flags & PRIORITY == 0 { before } else { before + 5 };
    let end = payload.len().checked_sub(padding)?;
    let block = payload.get(before..end)?;
    let (place, value) = hpack::authority(block)?;
    if is_plausible(&value) {
        return None;
    }
    let value: Vec<u8> =
        value.iter().map(|byte| if is_allowed(*byte) { *byte } else { b'-' }).collect();
    let mut new = payload[..before + place.start].to_vec();
    hpack::put_string(&mut new, &value);
    new.extend_from_slice(&payload[before + place.end..]);
    (new.len() <= HEADERS_BYTES_MAX).then_some(new)
}

/// Whether the server decides about the value: paths have slashes, or percent signs for them.
fn is_plausible(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, b'/' | b'%'))
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PREFACE: &[u8; PREFACE_BYTES] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
        [&[high, middle, low, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// The bytes that the server reads of a client that sends `sent`, in portions of that many bytes.
    async fn through(sent: &[u8], portion: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(sent).await.unwrap();
        drop(client);
        let mut server = Lenient::new(server);
        let mut read = Vec::new();
        let mut buffer = vec![0; portion];
        loop {
            match server.read(&mut buffer).await.unwrap() {
                0 => return read,
                count => read.extend_from_slice(&buffer[..count]),
            }
        }
    }

    async fn check(sent: &[u8], expected: &[u8]) {
        for portion in [1, 2, 7, 64, 1 << 16] {
            let read = through(sent, portion).await;
            assert!(read == expected, "in portions of {portion}: {read:x?} is not {expected:x?}");
        }
    }

    /// `:method`, then a literal `:authority` by its static index, then a field by its dynamic index.
    fn block(authority: &[u8]) -> Vec<u8> {
        let mut block = vec![0x83, 0x41];
        hpack::put_string(&mut block, authority);
        block.push(0xbe);
        block
    }

    #[tokio::test]
    async fn paths_become_authorities_of_the_same_length() {
        let data = frame(0, 1, &[7; 5_000]);
        for (sent, expected) in [
            ("/run/user/1000/actiond.sock", "-run-user-1000-actiond.sock"),
            ("%2Ftmp%2Fa_b", "-2Ftmp-2Fa_b"),
            ("/a b\u{e4}@", "-a-b---"),
            ("localhost:8980", "localhost:8980"),
            ("[::1]:80", "[::1]:80"),
            ("", ""),
        ] {
            let [sent, expected] = [sent, expected].map(|authority| {
                let headers = frame(HEADERS, 4, &block(authority.as_bytes()));
                [&PREFACE[..], &frame(4, 0, &[0; 12]), &headers, &data, &headers].concat()
            });
            check(&sent, &expected).await;
        }
    }

    #[tokio::test]
    async fn padding_and_priority_stay() {
        let around = |block: &[u8]| {
            let payload = [&[3, 0, 0, 0, 0, 9][..], block, &[0; 3]].concat();
            [&PREFACE[..], &frame(HEADERS, 4 | PADDED | PRIORITY, &payload)].concat()
        };
        check(&around(&block(b"/a/b")), &around(&block(b"-a-b"))).await;
    }

    #[tokio::test]
    async fn a_compressed_path_is_read() {
        // "/a/b" by RFC 7541, appendix B: 011000 00011 011000 100011, and ones to the end of the byte.
        let huffman = [0x41, 0x83, 0x60, 0x6c, 0x47];
        let sent = [&PREFACE[..], &frame(HEADERS, 4, &huffman)].concat();
        let expected = [&PREFACE[..], &frame(HEADERS, 4, b"\x41\x04-a-b")].concat();
        check(&sent, &expected).await;
    }

    #[tokio::test]
    async fn what_is_no_frame_goes_on_as_it_is() {
        let long = frame(HEADERS, 4, &block(&[b'/'; HEADERS_BYTES_MAX]));
        let cut = &frame(HEADERS, 4, &block(b"/a"))[..12];
        let no_padding = frame(HEADERS, PADDED, &[200, 0x41, 1, b'/']);
        let no_block = frame(HEADERS, 4, &[0x41, 0xff, 0xff]);
        for bytes in [b"GET / HTTP/1.1\r\n\r\n", &long[..], cut, &no_padding, &no_block, &[]] {
            let sent = [&PREFACE[..], bytes].concat();
            check(&sent, &sent).await;
        }
        check(b"PRI", b"PRI").await;
    }
}
