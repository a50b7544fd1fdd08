//! Blobs in compressed form, as clients upload and download them.
//!
//! ```text
//!  ByteStream.Write, BatchUpdateBlobs ──► Unpacker ──► Bounded ──► the store, or memory
//!  ByteStream.Read ◄── packing ◄── the store
//!  BatchReadBlobs  ◄── Packer ◄── the store
//! ```
//!
//! A client decides what an unpacker is fed with. So an unpacker reserves the memory that a stream wants before it
//! allocates any, and nothing is unpacked beyond the size in the blob's digest. Blobs are stored
//! uncompressed.
//!
//! - [`pack`]: blobs that go out.
//! - [`unpack`]: blobs that come in; [`bounded`] is their bound.
//! - [`inflate`], [`brotli`]: the decoders that go step by step; [`steps`] is what they have in common.
//! - [`zstd_window`]: the memory that a stream wants of zstd.

mod bounded;
mod brotli;
mod inflate;
mod pack;
mod steps;
mod unpack;
mod zstd_window;

pub(crate) use bounded::Bounded;
pub(crate) use pack::{Packer, packing, packing_bytes};
pub(crate) use unpack::{Unpacker, failed, unpack_whole};

use model::proto::compressor::Value;

/// The encoding of a blob on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// As it is.
    Identity,
    /// As a Zstandard stream (RFC 8878).
    Zstd,
    /// As DEFLATE data (RFC 1951), without the header of zlib or gzip.
    Deflate,
    /// As a Brotli stream (RFC 7932).
    Brotli,
}

impl Compression {
    /// The announced ones, in the order in which the server prefers them. The API advises zstd over DEFLATE.
    pub(crate) const ANNOUNCED: [Self; 3] = [Self::Zstd, Self::Deflate, Self::Brotli];

    /// The announced one of that name in resource names.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ANNOUNCED.into_iter().find(|it| it.name() == name)
    }

    /// The one of that value in messages, if the server has it.
    pub(crate) fn from_proto(value: i32) -> Option<Self> {
        let all = [Self::Identity].into_iter().chain(Self::ANNOUNCED);
        all.into_iter().find(|it| it.to_proto() == value)
    }

    /// The value in messages.
    pub(crate) fn to_proto(self) -> i32 {
        let value = match self {
            Self::Identity => Value::Identity,
            Self::Zstd => Value::Zstd,
            Self::Deflate => Value::Deflate,
            Self::Brotli => Value::Brotli,
        };
        value.into()
    }

    /// Its name in resource names: the lower case of that in the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
            Self::Brotli => "brotli",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_api() {
        for value in [Value::Identity, Value::Zstd, Value::Deflate, Value::Brotli] {
            let compression = Compression::from_proto(value.into()).unwrap();
            assert_eq!(compression.to_proto(), i32::from(value));
            assert_eq!(compression.name(), value.as_str_name().to_lowercase());
            let named = Compression::from_name(compression.name());
            assert_eq!(named, Some(compression).filter(|it| *it != Compression::Identity));
        }
        assert_eq!(Compression::from_proto(99), None);
        assert_eq!(Compression::from_name("gzip"), None);
    }
}
