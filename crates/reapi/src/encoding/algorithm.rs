//! The two algorithms, applied to whole messages.

use std::io::{self, Cursor, Read as _, Write as _};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use tonic::codegen::http::HeaderValue;
use tonic::{Code, Status};
use zstd::zstd_safe::{find_frame_compressed_size, get_error_name, get_frame_content_size};

use crate::frame::{MAX_MESSAGE_BYTES, PREFIX_BYTES, Prefix};
use crate::memory::{Exhausted, Reservation, lent};
use crate::status;

/// The level of gzip for answers: the fastest. Most of what it saves comes from repeated hashes and names.
const GZIP_LEVEL: u32 = 1;

/// The level of zstd for answers, for the same reason.
const ZSTD_LEVEL: i32 = 1;

/// The first bytes of a gzip member whose data is deflated.
const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// An error of unpacking a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    /// The message is larger than one that comes plain may be.
    #[error("a message of more than {MAX_MESSAGE_BYTES} bytes once it is unpacked")]
    TooLarge,
    /// The data is not of the encoding that the call names.
    #[error("a message is not valid {encoding}")]
    Malformed {
        /// The encoding.
        encoding: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// There is no memory for the message now.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

impl From<UnpackError> for Status {
    fn from(error: UnpackError) -> Self {
        let code = match error {
            UnpackError::Exhausted(exhausted) => return exhausted.into(),
            // The code for a plain message of that size.
            UnpackError::TooLarge => Code::InvalidArgument,
            // gRPC's code for data that cannot be decompressed.
            UnpackError::Malformed { .. } => Code::Internal,
        };
        status::of(code, &error)
    }
}

/// An algorithm by which messages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Zstd,
}

impl Encoding {
    /// The accepted encodings, as the value of `grpc-accept-encoding`.
    pub(super) const ACCEPTED: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

    /// The encoding of that name.
    pub(super) fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Gzip, Self::Zstd].into_iter().find(|it| it.name().as_bytes() == name)
    }

    /// Its name in headers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Unpacks a message. The answer has a prefix before the message, and the memory of both is
    /// reserved with `reservation` until the answer is dropped.
    pub(super) fn unpack(
        self,
        packed: &[u8],
        reservation: Reservation,
    ) -> Result<Bytes, UnpackError> {
        let malformed = |source| UnpackError::Malformed { encoding: self.name(), source };
        let size_bytes = self.unpacked_bytes(packed).map_err(malformed)?;
        if size_bytes.is_some_and(|size| size > MAX_MESSAGE_BYTES as u64) {
            return Err(UnpackError::TooLarge);
        }
        let capacity = size_bytes.map_or(MAX_MESSAGE_BYTES, |size| size as usize);
        reservation.grow_to((PREFIX_BYTES + capacity) as u64)?;
        let mut message = Vec::with_capacity(PREFIX_BYTES + capacity);
        message.resize(PREFIX_BYTES, 0);
        match self {
            Self::Gzip => gunzip(packed, capacity, &mut message).map_err(malformed)?,
            Self::Zstd => {
                message = unzstd(packed, message).map_err(|error| match size_bytes {
                    None if is_full(&error) => UnpackError::TooLarge,
                    _ => malformed(error),
                })?;
            }
        }
        message.shrink_to_fit();
        drop(reservation.split_off((capacity + PREFIX_BYTES - message.len()) as u64));
        let length = message.len() - PREFIX_BYTES;
        Prefix::of(length).put(&mut &mut message[..PREFIX_BYTES]);
        Ok(lent(message.into(), reservation))
    }

    /// The size that the packed message says it has once it is unpacked; `None` if it does not say.
    fn unpacked_bytes(self, packed: &[u8]) -> io::Result<Option<u64>> {
        match self {
            // The last field of a gzip member (RFC 1952, 2.3.1), the size modulo 4 GiB. No more is unpacked
            // than it says.
            Self::Gzip => match packed.last_chunk() {
                Some(size) if packed.starts_with(&GZIP_MAGIC) => {
                    Ok(Some(u32::from_le_bytes(*size).into()))
                }
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a gzip member")),
            },
            Self::Zstd => {
                let frame_bytes = find_frame_compressed_size(packed)
                    .map_err(|code| io::Error::other(get_error_name(code)))?;
                // With several frames it is unknown what the others have.
                if frame_bytes != packed.len() {
                    return Ok(None);
                }
                let size_bytes = get_frame_content_size(packed);
                size_bytes.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no zstd frame"))
            }
        }
    }

    /// Packs a message; `None` if that does not make it smaller.
    pub(super) fn pack(self, message: &[u8]) -> Option<Vec<u8>> {
        let packed = match self {
            Self::Gzip => {
                let room = Vec::with_capacity(message.len() / 2);
                let mut encoder = GzEncoder::new(room, flate2::Compression::new(GZIP_LEVEL));
                encoder.write_all(message).and_then(|()| encoder.finish())
            }
            Self::Zstd => zstd::bulk::compress(message, ZSTD_LEVEL),
        };
        packed.ok().filter(|packed| packed.len() < message.len())
    }
}

/// Unpacks one gzip member of exactly that many bytes behind `message`.
fn gunzip(packed: &[u8], size_bytes: usize, message: &mut Vec<u8>) -> io::Result<()> {
    let mut decoder = GzDecoder::new(packed);
    (&mut decoder).take(size_bytes as u64).read_to_end(message)?;
    // The end of the member has its checksum, and is read only here.
    if decoder.read(&mut [0])? > 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more data than its trailer says"));
    }
    if !decoder.into_inner().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "data behind its end"));
    }
    Ok(())
}

/// Unpacks zstd frames behind what `message` has, up to its capacity. In one call the message itself is the
/// window, so that no frame can ask for another.
fn unzstd(packed: &[u8], message: Vec<u8>) -> io::Result<Vec<u8>> {
    let end = message.len() as u64;
    let mut message = Cursor::new(message);
    message.set_position(end);
    zstd::bulk::Decompressor::new()?.decompress_to_buffer(packed, &mut message)?;
    Ok(message.into_inner())
}

/// Whether unpacking ended because the message was full. zstd tells it in words only.
fn is_full(error: &io::Error) -> bool {
    error.to_string().contains("Destination buffer is too small")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    const BOTH: [Encoding; 2] = [Encoding::Gzip, Encoding::Zstd];

    /// The content of the message, or the code of the refusal.
    fn unpack(encoding: Encoding, packed: &[u8]) -> Result<Vec<u8>, Code> {
        let budget = Budget::new(64 << 20);
        let message = encoding.unpack(packed, budget.quota().reservation());
        let message = message.map_err(|error| Status::from(error).code())?;
        let (prefix, content) = message.split_at(PREFIX_BYTES);
        assert_eq!(prefix, [&[0], (content.len() as u32).to_be_bytes().as_slice()].concat());
        Ok(content.to_vec())
    }

    /// Frames whose headers do not say how large they become.
    fn zstd_without_size(content: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn messages_are_what_they_were() {
        for encoding in BOTH {
            for content in [vec![7; 100], vec![7; 1 << 20], vec![0; MAX_MESSAGE_BYTES]] {
                let packed = encoding.pack(&content).unwrap();
                assert_eq!(unpack(encoding, &packed), Ok(content));
            }
            assert_eq!(encoding.pack(b"short"), None);
            assert_eq!(Encoding::from_name(encoding.name().as_bytes()), Some(encoding));
        }
        let content = vec![7; 300_000];
        assert_eq!(unpack(Encoding::Zstd, &zstd_without_size(&content)), Ok(content.clone()));
        let two = [zstd::bulk::compress(&content, 1).unwrap(), zstd_without_size(b"x")].concat();
        assert_eq!(unpack(Encoding::Zstd, &two), Ok([content.as_slice(), b"x"].concat()));
    }

    #[test]
    fn a_message_that_becomes_too_large_is_refused() {
        let bomb = vec![0; MAX_MESSAGE_BYTES + 1];
        for encoding in BOTH {
            let packed = encoding.pack(&bomb).unwrap();
            assert!(packed.len() < 100_000);
            assert_eq!(unpack(encoding, &packed), Err(Code::InvalidArgument), "{encoding:?}");
        }
        let unsized_bomb = zstd_without_size(&bomb);
        assert_eq!(unpack(Encoding::Zstd, &unsized_bomb), Err(Code::InvalidArgument));
        let half = zstd::bulk::compress(&bomb[..4 << 20], 1).unwrap();
        assert_eq!(unpack(Encoding::Zstd, &half.repeat(2)), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_message_that_lies_about_its_size_is_refused() {
        for size_bytes in [0_u32, 10, 99_999, 100_001, 6 << 20] {
            let mut packed = Encoding::Gzip.pack(&[7; 100_000]).unwrap();
            let end = packed.len();
            packed[end - 4..].copy_from_slice(&size_bytes.to_le_bytes());
            assert_eq!(unpack(Encoding::Gzip, &packed), Err(Code::Internal), "{size_bytes}");
        }
        // A frame whose header tells its size in four bytes, behind magic number and descriptor.
        let mut packed = zstd::bulk::compress(&[7; 100_000], 1).unwrap();
        assert_eq!(packed[5..9], 100_000_u32.to_le_bytes());
        packed[5..9].copy_from_slice(&50_000_u32.to_le_bytes());
        assert_eq!(unpack(Encoding::Zstd, &packed), Err(Code::Internal));
    }

    #[test]
    fn what_is_not_of_the_encoding_is_refused() {
        for encoding in BOTH {
            let good = encoding.pack(&[7; 1000]).unwrap();
            for bad in
                [&b""[..], b"plain", &good[..good.len() - 1], &[&good, &b"more"[..]].concat()]
            {
                let outcome = unpack(encoding, bad);
                let is_refused = matches!(outcome, Err(Code::Internal | Code::InvalidArgument));
                assert!(is_refused, "{encoding:?}: {outcome:?}");
            }
        }
    }

    #[test]
    fn memory_is_reserved_before_and_until_the_message_is_dropped() {
        let budget = Budget::new(20 << 20);
        let quota = budget.quota();
        for encoding in BOTH {
            let packed = encoding.pack(&vec![7; 4 << 20]).unwrap();
            let messages: Vec<_> =
                (0..10).map_while(|_| encoding.unpack(&packed, quota.reservation()).ok()).collect();
            assert_eq!(messages.len(), 4, "four messages and their prefixes are below 20 MiB");
            let refused = encoding.unpack(&packed, quota.reservation()).unwrap_err();
            assert_eq!(Status::from(refused).code(), Code::ResourceExhausted);
            drop(messages);
            assert!(quota.reserve(20 << 20).is_ok());
        }
        // Without a size there must be room for the largest message, and what is unused is given back.
        let packed = zstd_without_size(&[7; 100]);
        let message = Encoding::Zstd.unpack(&packed, quota.reservation()).unwrap();
        assert!(quota.reserve((20 << 20) - 1000).is_ok());
        drop(message);
    }
}
