//! The parsers of the action cache's files and checksums of the index, for fuzz targets and nothing else.

use bytes::Bytes;
use model::{Digest, DigestFunction};

use crate::{action_cache, entry, index_file};

/// The bytes of an entry that stands under that name and has that value.
pub fn encode_entry(name: &[u8], value: &[u8]) -> Vec<u8> {
    entry::encode(name, value)
}

/// The value of the entry that has these bytes and stands under that name, and the length that its
/// header tells.
pub fn decode_entry(name: &[u8], bytes: &Bytes) -> (Option<Bytes>, Option<u64>) {
    (entry::decode(name, bytes), entry::total_bytes(bytes))
}

/// The place in the index of the entry whose file has that name, in the directory of that byte.
pub fn key_of_name(function: DigestFunction, directory: u8, name: &[u8]) -> Option<Digest> {
    action_cache::key_of_name(function, directory, name, 0)
}

/// Makes the checksums in an index file right for what else is in it.
pub fn seal_index(content: &mut [u8]) {
    index_file::seal(content);
}
