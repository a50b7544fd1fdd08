//! Messages of the control protocol as bytes.
//!
//! ```text
//!  0      4         5     6              10           18
//!  "ACTD" version=1 tag   method length  body length  method, body
//!                         u32 LE         u64 LE
//! ```
//! The tag of a request is the kind of call (0: unary, the only one), that of a response its status
//! (0: ok, 1: application error, whose body is a sentence in UTF-8). Responses have no method.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before the method.
pub const HEADER_BYTES: usize = 18;

/// The longest body of the protocol, in bytes. Each method allows less, see
/// [`Method`](super::Method).
pub const MAX_BODY_BYTES: u64 = 512 << 20;

/// The longest method name that is read: twice the longest there is.
const MAX_METHOD_BYTES: u32 = 128;

const MAGIC: [u8; 4] = *b"ACTD";
const VERSION: u8 = 1;
const UNARY: u8 = 0;

/// Errors of reading a message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The first four bytes are not the protocol's.
    #[error("the message does not begin with the magic of the control protocol")]
    Magic,
    /// A version that we do not speak.
    #[error("control protocol version {0}, only {VERSION} is known")]
    Version(u8),
    /// A kind of call or a status that does not exist.
    #[error("unknown tag {0} in a control message")]
    Tag(u8),
    /// A method name longer than any that exists.
    #[error("a method name of {0} bytes, at most {MAX_METHOD_BYTES} are allowed")]
    MethodTooLong(u32),
    /// A response must not name a method.
    #[error("a response with a method name of {0} bytes")]
    MethodInResponse(u32),
    /// A body longer than allowed here.
    #[error("a body of {length} bytes, at most {limit} are allowed")]
    BodyTooLong {
        /// As announced, in bytes.
        length: u64,
        /// The largest allowed value in bytes.
        limit: u64,
    },
    /// The method name is not UTF-8.
    #[error("a method name that is not UTF-8")]
    MethodNotText,
    /// The connection failed, or ended inside a message.
    #[error("the control connection broke")]
    Connection(#[from] std::io::Error),
}

/// The outcome of a call, as the wire has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// The call was served; what the body means is the method's.
    Ok(Vec<u8>),
    /// The call was understood and failed: a sentence for people.
    ApplicationError(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    tag: u8,
    method_bytes: u32,
    body_bytes: u64,
}

impl Header {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.tag;
        bytes[6..10].copy_from_slice(&self.method_bytes.to_le_bytes());
        bytes[10..18].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let [m0, m1, m2, m3, version, tag, l0, l1, l2, l3, body @ ..] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic);
        }
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let header = Self {
            tag,
            method_bytes: u32::from_le_bytes([l0, l1, l2, l3]),
            body_bytes: u64::from_le_bytes(body),
        };
        header.check_body(MAX_BODY_BYTES)?;
        Ok(header)
    }

    fn check_body(&self, limit: u64) -> Result<(), FrameError> {
        if self.body_bytes > limit {
            return Err(FrameError::BodyTooLong { length: self.body_bytes, limit });
        }
        Ok(())
    }
}

/// Writes a unary request.
///
/// # Errors
/// Those of the stream.
pub async fn write_request(
    stream: &mut (impl AsyncWrite + Unpin),
    method: &str,
    body: &[u8],
) -> Result<(), FrameError> {
    write(stream, UNARY, method, body).await
}

/// Writes a response.
///
/// # Errors
/// Those of the stream.
pub async fn write_response(
    stream: &mut (impl AsyncWrite + Unpin),
    response: &Response,
) -> Result<(), FrameError> {
    match response {
        Response::Ok(body) => write(stream, 0, "", body).await,
        Response::ApplicationError(message) => write(stream, 1, "", message.as_bytes()).await,
    }
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    tag: u8,
    method: &str,
    body: &[u8],
) -> Result<(), FrameError> {
    let header =
        Header { tag, method_bytes: method.len() as u32, body_bytes: body.len() as u64 }.encode();
    // One write for small messages, which is what they all are but for the statistics.
    stream.write_all(&[&header, method.as_bytes(), body].concat()).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads a request: its method, and its body of at most `body_limit(method)` bytes. `None` at the
/// end of the stream between two messages.
///
/// # Errors
/// Whatever is not a well-formed unary request; the stream can't be used any more then.
pub async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    body_limit: impl FnOnce(&str) -> u64,
) -> Result<Option<(String, Vec<u8>)>, FrameError> {
    let Some(header) = read_header(stream).await? else { return Ok(None) };
    if header.tag != UNARY {
        return Err(FrameError::Tag(header.tag));
    }
    if header.method_bytes > MAX_METHOD_BYTES {
        return Err(FrameError::MethodTooLong(header.method_bytes));
    }
    let method = read_exactly(stream, u64::from(header.method_bytes)).await?;
    let method = String::from_utf8(method).map_err(|_| FrameError::MethodNotText)?;
    header.check_body(body_limit(&method))?;
    let body = read_exactly(stream, header.body_bytes).await?;
    Ok(Some((method, body)))
}

/// Reads a response with a body of at most `body_limit` bytes.
///
/// # Errors
/// Whatever is not a well-formed response, and the end of the stream; the stream can't be used any
/// more then.
pub async fn read_response(
    stream: &mut (impl AsyncRead + Unpin),
    body_limit: u64,
) -> Result<Response, FrameError> {
    let ended = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let header = read_header(stream).await?.ok_or_else(ended)?;
    if header.method_bytes != 0 {
        return Err(FrameError::MethodInResponse(header.method_bytes));
    }
    header.check_body(body_limit)?;
    let body = read_exactly(stream, header.body_bytes).await?;
    match header.tag {
        0 => Ok(Response::Ok(body)),
        1 => Ok(Response::ApplicationError(String::from_utf8_lossy(&body).into_owned())),
        tag => Err(FrameError::Tag(tag)),
    }
}

async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Header>, FrameError> {
    let mut bytes = [0; HEADER_BYTES];
    // The end of the stream is in order before a message, and nowhere else.
    if stream.read(&mut bytes[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut bytes[1..]).await?;
    Header::decode(&bytes).map(Some)
}

/// Reads `length` bytes; memory grows with what has arrived, not with what was announced.
async fn read_exactly(
    stream: &mut (impl AsyncRead + Unpin),
    length: u64,
) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    stream.take(length).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 != length {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(_: &str) -> u64 {
        16
    }

    /// A server's reading of `bytes`.
    async fn request(bytes: &[u8]) -> Result<Option<(String, Vec<u8>)>, FrameError> {
        read_request(&mut &*bytes, limit).await
    }

    /// A request for `/a` with the body `b`, changed by `change`.
    fn bytes_with(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = b"ACTD\x01\x00\x02\0\0\0\x01\0\0\0\0\0\0\0/ab".to_vec();
        change(&mut bytes);
        bytes
    }

    #[tokio::test]
    async fn the_bytes_are_those_of_the_document() {
        let mut bytes = Vec::new();
        write_request(&mut bytes, "/a", b"b").await.unwrap();
        assert_eq!(bytes, bytes_with(|_| ()));
        let mut bytes = Vec::new();
        write_response(&mut bytes, &Response::Ok(b"xy".to_vec())).await.unwrap();
        assert_eq!(bytes, b"ACTD\x01\x00\0\0\0\0\x02\0\0\0\0\0\0\0xy");
        let mut bytes = Vec::new();
        write_response(&mut bytes, &Response::ApplicationError("no".into())).await.unwrap();
        assert_eq!(bytes, b"ACTD\x01\x01\0\0\0\0\x02\0\0\0\0\0\0\0no");
    }

    #[tokio::test]
    async fn a_request_is_read_back() {
        let read = request(&bytes_with(|_| ())).await.unwrap();
        assert_eq!(read, Some(("/a".to_owned(), b"b".to_vec())));
    }

    #[tokio::test]
    async fn the_end_between_messages_is_in_order() {
        assert!(request(b"").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn every_truncation_is_an_error() {
        let whole = bytes_with(|_| ());
        for length in 1..whole.len() {
            let error = request(&whole[..length]).await.unwrap_err();
            assert!(matches!(error, FrameError::Connection(_)), "{length}: {error}");
        }
    }

    #[tokio::test]
    async fn hostile_headers_are_refused() {
        let error = |change: fn(&mut Vec<u8>)| {
            let bytes = bytes_with(change);
            async move { request(&bytes).await.unwrap_err().to_string() }
        };
        assert!(error(|b| b[0] = b'a').await.contains("magic"));
        assert!(error(|b| b[4] = 2).await.contains("version 2"));
        assert!(error(|b| b[5] = 1).await.contains("unknown tag 1"));
        assert!(error(|b| b[9] = 0xff).await.contains("method name of"));
        assert!(error(|b| b[10] = 17).await.contains("body of 17 bytes, at most 16"));
        assert!(error(|b| b[17] = 0xff).await.contains("at most 536870912"));
        assert!(error(|b| b[18] = 0xff).await.contains("not UTF-8"));
    }

    /// 512 MiB announced, nothing sent: must not take 512 MiB.
    #[tokio::test]
    async fn memory_grows_with_what_arrives() {
        let mut bytes = b"ACTD\x01\x00\0\0\0\0\0\0\0\x20\0\0\0\0".to_vec();
        bytes.push(b'x');
        let error = read_response(&mut &*bytes, MAX_BODY_BYTES).await.unwrap_err();
        assert!(matches!(error, FrameError::Connection(_)), "{error}");
    }

    #[tokio::test]
    async fn hostile_responses_are_refused() {
        let read = |bytes: &'static [u8]| async move {
            read_response(&mut &*bytes, 4).await.unwrap_err().to_string()
        };
        assert!(read(b"ACTD\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0").await.contains("unknown tag 2"));
        assert!(read(b"ACTD\x01\x00\x01\0\0\0\0\0\0\0\0\0\0\0").await.contains("a response with"));
        assert!(read(b"ACTD\x01\x00\0\0\0\0\x05\0\0\0\0\0\0\0").await.contains("at most 4"));
        assert!(read(b"").await.contains("broke"));
    }
}
