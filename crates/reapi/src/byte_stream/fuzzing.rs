//! The parts of an upload, for `crate::fuzzing`.

use bytes::Bytes;
use proto::google::bytestream::WriteRequest;
use store::Store;

use super::{upload_messages, write};
use crate::resource_name::Resource;

pub(crate) fn upload_messages(
    stream: &[u8],
    piece_bytes: usize,
) -> Option<(Vec<WriteRequest>, bool)> {
    upload_messages::in_pieces(stream, piece_bytes).ok()
}

pub(crate) fn upload_compressed(store: &Store, resource: Resource, pieces: &[Bytes]) -> bool {
    write::upload_compressed(store, resource, pieces)
}
