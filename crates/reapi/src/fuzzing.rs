//! Parsers of what clients send beside whole messages, for fuzz targets and nothing else.

use bytes::Bytes;
use model::Digest;
use proto::google::bytestream::WriteRequest;
use store::Store;

use crate::byte_stream::fuzzing as byte_stream;
use crate::compression::Compression;
use crate::offer::Offer;
use crate::resource_name::{self, Resource};

/// The blob of a `ReadRequest`'s resource name, and whether it travels compressed.
pub fn read_name(name: &str) -> Result<(Digest, bool), String> {
    shown(resource_name::parse_read(name, &Offer::default()))
}

/// The blob of a `WriteRequest`'s resource name, and whether it travels compressed.
pub fn write_name(name: &str) -> Result<(Digest, bool), String> {
    shown(resource_name::parse_write(name, &Offer::default()))
}

fn shown(
    parsed: Result<Resource, resource_name::ResourceNameError>,
) -> Result<(Digest, bool), String> {
    let is_compressed = |resource: &Resource| resource.compression != Compression::Identity;
    parsed
        .map(|resource| (resource.digest, is_compressed(&resource)))
        .map_err(|error| error.to_string())
}

/// The messages of an upload that comes in pieces of that size, and whether the stream may end there;
/// `None` if one is malformed.
pub fn upload_messages(stream: &[u8], piece_bytes: usize) -> Option<(Vec<WriteRequest>, bool)> {
    byte_stream::upload_messages(stream, piece_bytes)
}

/// Uploads a blob as a stream of the compressor of that name, `zstd`, `deflate` or `brotli`, that comes in these
/// pieces; returns whether it was stored.
pub fn upload_compressed(
    store: &Store,
    compressor: &str,
    digest: Digest,
    pieces: &[Bytes],
) -> bool {
    Compression::from_name(compressor).is_some_and(|compression| {
        byte_stream::upload_compressed(store, Resource { digest, compression }, pieces)
    })
}
