//! The messages of an upload, taken off the wire without a copy of their data.
//!
//! A message need not be in memory as a whole: what has come of its data is passed
//! on as a message of its own, as if the client had sent many small ones. So what
//! an upload holds in memory does not grow with the client's messages.
//!
//! ```text
//!          prefix     ┌──────┐  fields, and data at the end  ┌──────┐  one message for each
//! BETWEEN ───────────►│ HEAD ├───────────────────────────────► DATA ├─ piece of it that comes
//!    ▲                └┬─────┘  (what all clients send)      └──┬───┘
//!    │                 │ any other valid message  ┌───────┐     │
//!    │                 └─────────────────────────►│ WHOLE ├─ gathered, then decoded
//!    └─ end of the message ◄──────────────────────┴───────┴─────┘
//! ```

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Body as _;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use proto::google::bytestream::WriteRequest;
use tonic::Status;
use tonic::body::Body;

use crate::frame::{FrameError, Frames, Part};

/// Bytes before the data that are looked through as they come. A resource name
/// takes most of them, and has a limit of its own.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Smaller pieces are copied: one that is not keeps the buffer alive that its
/// frame was received in, which may be four times as large.
const MIN_SHARED_BYTES: usize = 64 << 10;

/// See the module.
pub(super) struct UploadMessages {
    body: Body,
    parser: Parser,
}

impl UploadMessages {
    pub(super) fn new(body: Body) -> Self {
        Self { body, parser: Parser::default() }
    }

    /// The next message, or a part of it.
    pub(super) async fn message(&mut self) -> Result<Option<WriteRequest>, Status> {
        loop {
            if let Some(message) = self.parser.next()? {
                return Ok(Some(message));
            }
            match self.data().await? {
                // The parser has read what came before it to the end.
                Some(data) => self.parser.received = data,
                None if self.parser.is_between_messages() => return Ok(None),
                None => return Err(FrameError::CutShort.into()),
            }
        }
    }

    /// Takes the rest off the wire, whatever it is.
    pub(super) async fn discard(mut self) {
        while let Ok(Some(_)) = self.data().await {}
    }

    async fn data(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            let frame = poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            match frame.transpose()?.map(http_body::Frame::into_data) {
                Some(Ok(data)) => return Ok(Some(data)),
                Some(Err(_trailers)) => {}
                None => return Ok(None),
            }
        }
    }
}

/// Makes messages of what was received; does no I/O.
#[derive(Default)]
struct Parser {
    /// The last of what was received.
    received: Bytes,
    frames: Frames,
    state: State,
    /// The outcome of the message, while that is not enough to go on.
    gathered: BytesMut,
}

/// The part of a message that comes next.
#[derive(Debug, Default)]
enum State {
    /// Its prefix.
    #[default]
    Between,
    /// The fields before its data.
    Head {
        /// The length of the message.
        size_bytes: usize,
    },
    /// Its data, to the end of the message. The offset is that of what comes next.
    Data(WriteRequest),
    /// All of it.
    Whole,
}

impl Parser {
    fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Between) && self.frames.is_between_messages()
    }

    /// A message, or a part of one; `None` until more was received.
    fn next(&mut self) -> Result<Option<WriteRequest>, FrameError> {
        while let Some(part) = self.frames.next(&mut self.received) {
            let message = match part {
                Part::Prefix(prefix) => self.begin(prefix.check()?)?,
                Part::Content(bytes) => {
                    let content = self.received.split_to(bytes);
                    self.go_on(content)?
                }
            };
            if message.is_some() {
                return Ok(message);
            }
        }
        Ok(None)
    }

    /// A message of that length begins.
    fn begin(&mut self, size_bytes: usize) -> Result<Option<WriteRequest>, FrameError> {
        self.state = State::Head { size_bytes };
        if size_bytes == 0 { self.go_on(Bytes::new()) } else { Ok(None) }
    }

    /// Takes the next bytes of the message.
    fn go_on(&mut self, content: Bytes) -> Result<Option<WriteRequest>, FrameError> {
        match &mut self.state {
            // No content comes without a prefix.
            State::Between => Ok(None),
            &mut State::Head { size_bytes } => self.head(content, size_bytes),
            State::Data(_) => Ok(self.data(content)),
            State::Whole => {
                self.gathered.extend_from_slice(&content);
                self.whole()
            }
        }
    }

    /// Finds out how the message is to be taken, if its head is here.
    fn head(
        &mut self,
        content: Bytes,
        size_bytes: usize,
    ) -> Result<Option<WriteRequest>, FrameError> {
        let mut here = content;
        if !self.gathered.is_empty() {
            self.gathered.extend_from_slice(&here);
            here = self.gathered.split().freeze();
        }
        let mut rest = &here[..];
        if let Some(fields) = fields(&mut rest, size_bytes) {
            let head_bytes = here.len() - rest.len();
            here.advance(head_bytes);
            self.state = State::Data(fields);
            let is_all_to_come = here.is_empty() && self.frames.remaining_bytes() > 0;
            return Ok(if is_all_to_come { None } else { self.data(here) });
        }
        self.gathered.extend_from_slice(&here);
        if here.len() < size_bytes.min(MAX_HEAD_BYTES) {
            return Ok(None);
        }
        self.state = State::Whole;
        self.whole()
    }

    /// The message, once it is gathered.
    fn whole(&mut self) -> Result<Option<WriteRequest>, FrameError> {
        if self.frames.remaining_bytes() > 0 {
            return Ok(None);
        }
        self.state = State::Between;
        let message = WriteRequest::decode(self.gathered.split().freeze());
        message.map(Some).map_err(FrameError::Malformed)
    }

    /// The next bytes of the data, as a message.
    fn data(&mut self, data: Bytes) -> Option<WriteRequest> {
        let State::Data(fields) = &mut self.state else { return None };
        let is_last = self.frames.remaining_bytes() == 0;
        let message = WriteRequest {
            resource_name: std::mem::take(&mut fields.resource_name),
            write_offset: fields.write_offset,
            finish_write: fields.finish_write && is_last,
            data: if data.len() < MIN_SHARED_BYTES { Bytes::copy_from_slice(&data) } else { data },
        };
        fields.write_offset = message.write_offset.wrapping_add(message.data.len() as i64);
        if is_last {
            self.state = State::Between;
        }
        Some(message)
    }
}

/// The messages in `bytes` when they come in pieces of that size, and whether the stream may end there.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn in_pieces(
    bytes: &[u8],
    piece_bytes: usize,
) -> Result<(Vec<WriteRequest>, bool), FrameError> {
    let mut parser = Parser::default();
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        parser.received = Bytes::copy_from_slice(piece);
        while let Some(message) = parser.next()? {
            messages.push(message);
        }
    }
    Ok((messages, parser.is_between_messages()))
}

/// Reads the fields before the data. `None` if they are not as clients send them,
/// or not all here.
fn fields(rest: &mut &[u8], message_bytes: usize) -> Option<WriteRequest> {
    let here = rest.len();
    let mut fields = WriteRequest::default();
    while here - rest.len() < message_bytes {
        match decode_key(rest).ok()? {
            (1, WireType::LengthDelimited) => {
                let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
                let (name, after) = rest.split_at_checked(length)?;
                fields.resource_name = str::from_utf8(name).ok()?.to_owned();
                *rest = after;
            }
            (2, WireType::Varint) => fields.write_offset = decode_varint(rest).ok()? as i64,
            (3, WireType::Varint) => fields.finish_write = decode_varint(rest).ok()? != 0,
            (10, WireType::LengthDelimited) => {
                let remaining = usize::try_from(decode_varint(rest).ok()?).ok()?;
                let is_last = message_bytes - (here - rest.len()) == remaining;
                return is_last.then_some(fields);
            }
            _ => return None,
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn request(name: &str, offset: i64, finish: bool, data: &[u8]) -> WriteRequest {
        WriteRequest {
            resource_name: name.to_owned(),
            write_offset: offset,
            finish_write: finish,
            data: Bytes::copy_from_slice(data),
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0], (message.len() as u32).to_be_bytes().as_slice(), message].concat()
    }

    /// The output when the bytes come in pieces of that size.
    fn parse(bytes: &[u8], piece_bytes: usize) -> Result<Vec<WriteRequest>, Code> {
        let parsed = in_pieces(bytes, piece_bytes);
        let (messages, may_end) = parsed.map_err(|error| Status::from(error).code())?;
        assert!(may_end, "pieces of {piece_bytes}");
        Ok(messages)
    }

    /// The parts of each message put together again.
    fn joined(parts: &[WriteRequest]) -> Vec<WriteRequest> {
        let mut messages: Vec<WriteRequest> = Vec::new();
        for part in parts {
            match messages.last_mut() {
                Some(last)
                    if last.write_offset + last.data.len() as i64 == part.write_offset
                        && part.resource_name.is_empty()
                        && !last.finish_write =>
                {
                    last.data = [&last.data[..], &part.data].concat().into();
                    last.finish_write = part.finish_write;
                }
                _ => messages.push(part.clone()),
            }
        }
        messages
    }

    #[test]
    fn however_they_come_messages_are_the_same() {
        let content: Vec<u8> = (0..200_000_u32).map(|i| (i * 7) as u8).collect();
        let name = "n".repeat(300);
        let sent = [
            request(&name, 0, false, &content[..70_000]),
            request("second", 200, false, b"abc"),
            request("third", 0, false, b""),
            request("last", 5, true, &content),
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(|one| framed(&one.encode_to_vec())).collect();
        for piece_bytes in [1, 2, 3, 5, 6, 7, 100, 1000, 65_536, bytes.len()] {
            assert_eq!(joined(&parse(&bytes, piece_bytes).unwrap()), sent, "{piece_bytes}");
        }
    }

    #[test]
    fn forms_that_no_client_sends_are_understood_too() {
        let data = [0x52, 3, b'a', b'b', b'c'];
        let offset = [0x10, 7];
        let unknown = [0x7a, 2, 1, 2];
        for message in [
            [&data[..], &offset].concat(),
            [&unknown[..], &offset, &data].concat(),
            [&offset[..], &[0x52, 1, b'x'], &data].concat(),
            [&offset[..], &data, &unknown].concat(),
        ] {
            let expected = [request("", 7, false, b"abc")];
            for piece_bytes in [1, 4, 100] {
                let parsed = parse(&framed(&message), piece_bytes).unwrap();
                assert_eq!(parsed, expected, "{message:?}");
            }
        }
        let long = [&[0x7a, 0x80, 0x80, 0x04], vec![0; 65_536].as_slice(), &offset, &data].concat();
        assert_eq!(parse(&framed(&long), 1000).unwrap(), [request("", 7, false, b"abc")]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let check = |bytes: &[u8], code| {
            for piece_bytes in [1, 100] {
                assert_eq!(parse(bytes, piece_bytes), Err(code), "{bytes:?}");
            }
        };
        check(&[1, 0, 0, 0, 1, 0], Code::Internal);
        check(&[0, 0, 0x60, 0, 1], Code::InvalidArgument);
        check(&[0, 0xff, 0xff, 0xff, 0xff], Code::InvalidArgument);
        check(&framed(&[0xff; 20]), Code::InvalidArgument);
        check(&framed(&[0x0a, 200, 1]), Code::InvalidArgument);
        check(&framed(&[0x0a, 1, 0xff]), Code::InvalidArgument);
        check(&framed(&[0x52, 5, 1]), Code::InvalidArgument);
        // A length whose sum with others does not fit into 64 bits.
        let huge = [0x52, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        check(&framed(&huge), Code::InvalidArgument);
    }

    #[test]
    fn data_is_passed_on_while_the_message_is_still_coming() {
        let bytes = framed(&request("name", 0, true, &[7; 100_000]).encode_to_vec());
        let mut parser =
            Parser { received: Bytes::copy_from_slice(&bytes[..80_000]), ..Parser::default() };
        let first = parser.next().unwrap().unwrap();
        assert!(first.data.len() > 79_000 && !first.finish_write);
        assert_eq!(parser.next().unwrap(), None);
        assert!(!parser.is_between_messages());
    }
}
