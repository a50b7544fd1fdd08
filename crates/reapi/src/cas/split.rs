//! `SplitBlob` and `SpliceBlob`: large blobs as chunks, which are blobs of their own.
//!
//! No list of chunks is kept. A blob is split anew whenever a client asks, at the speed of hashing it, and
//! a chunk that is in the store already is not written again. So there is nothing to go stale, and the
//! answer is the same on every server with these parameters.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use model::proto::chunking_function::Value as Chunking;
use model::proto::{SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse};
use model::{Digest, DigestFunction};
use prost::Message as _;
use store::{Cas, Store};
use tonic::{Code, Response, Status};

use super::chunking::{self, SPLIT_BYTES};
use crate::blocking::Caller;
use crate::memory::Reservation;
use crate::offer::Offer;
use crate::{blocking, request, status};

/// The digests of one answer at most, in bytes: with the chunking function they fit into the 4 MiB that gRPC clients
/// take by default.
const MAX_DIGESTS_BYTES: usize = (4 << 20) - 16;

/// The memory for the digest of a chunk in bytes: its message, and its encoded form.
const CHUNK_MEMORY_BYTES: u64 = 400;

/// The number of bytes of a chunk that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// An error of splitting or splicing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitRefused {
    /// The list of chunks would not fit into an answer.
    #[error("the chunks of blob {digest} are more than one answer names; read it as a whole")]
    TooLarge {
        /// The blob.
        digest: Digest,
    },
    /// The chunks together have another size than the blob.
    #[error("the chunks have {chunks_bytes} bytes together, blob {digest} has others")]
    Size {
        /// The blob.
        digest: Digest,
        /// The sum of the sizes of the chunks.
        chunks_bytes: u64,
    },
    /// The blob is larger than the store may become.
    #[error("blob {digest} is larger than the store, which takes {limit_bytes} bytes")]
    OverLimit {
        /// The blob.
        digest: Digest,
        /// The limit of the store.
        limit_bytes: u64,
    },
    /// The client left.
    #[error("the client left")]
    ClientGone,
}

impl From<SplitRefused> for Status {
    fn from(error: SplitRefused) -> Self {
        let code = match error {
            // The API's code for a blob that there is no split information for.
            SplitRefused::TooLarge { .. } => Code::NotFound,
            SplitRefused::Size { .. } => Code::InvalidArgument,
            SplitRefused::OverLimit { .. } => Code::ResourceExhausted,
            SplitRefused::ClientGone => Code::Cancelled,
        };
        status::of(code, &error)
    }
}

/// The outcome of a visit to a chunk.
struct Failed(Status);

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(read_failed(&error))
    }
}

impl From<SplitRefused> for Failed {
    fn from(error: SplitRefused) -> Self {
        Self(error.into())
    }
}

fn read_failed(error: &io::Error) -> Status {
    status::of_act(Code::Internal, "reading a blob failed", error)
}

/// Splits a blob into chunks, which are in the store when this returns.
pub(super) async fn split(
    store: Arc<Store>,
    reservation: Arc<Reservation>,
    offer: Offer,
    message: SplitBlobRequest,
) -> Result<Response<SplitBlobResponse>, Status> {
    request::instance_name(&offer, &message.instance_name)?;
    let digest = message.blob_digest.as_ref();
    let function = request::function_of(&offer.functions, message.digest_function, digest)?;
    let blob = request::digest("blob_digest", digest, function)?;
    let chunking = chunking::chosen(message.chunking_function);
    let whole = blob.size_bytes() < chunking::whole_below_bytes(chunking);
    let chunks = chunking::chunks(chunking, blob.size_bytes());
    let room = ChunkDigests::longest(function);
    if !whole {
        reservation.grow_by(SPLIT_BYTES + CHUNK_MEMORY_BYTES * room.min(*chunks.end()))?;
    }
    let chunk_digests = blocking::run_for_caller(move |caller| {
        let cas = store.cas();
        let file = cas.open(&blob).map_err(status::store)?;
        let file = file.ok_or_else(|| status::blob_not_found(&blob))?;
        match (whole, *chunks.start() > room) {
            (true, _) => Ok(vec![blob.to_proto()]),
            // However it is split: nothing is stored in vain.
            (false, true) => Err(SplitRefused::TooLarge { digest: blob }.into()),
            (false, false) => store_chunks(cas, file, chunking, &blob, caller),
        }
    })
    .await?;
    let chunking_function = chunking.into();
    Ok(Response::new(SplitBlobResponse { chunk_digests, chunking_function }))
}

/// Stores every chunk of a blob that is not in the store yet. To be stored or found is a use, which
/// extends the lifetime.
fn store_chunks(
    cas: &Cas,
    file: File,
    chunking: Chunking,
    blob: &Digest,
    caller: &Caller,
) -> Result<Vec<model::proto::Digest>, Status> {
    let mut digests = ChunkDigests::of(blob);
    let visit = |chunk: &[u8]| -> Result<(), Failed> {
        if caller.is_gone() {
            return Err(SplitRefused::ClientGone.into());
        }
        let stored = cas.put(blob.function(), chunk);
        let digest = stored.map_err(|error| Failed(status::store(error)))?;
        Ok(digests.push(&digest)?)
    };
    chunking::each_chunk(chunking, file, visit).map_err(|Failed(status)| status)?;
    Ok(digests.list)
}

/// The digests of the chunks of a blob, as many as an answer has room for.
///
/// How many chunks a blob has is only known once it is split: 512 KiB are the average, and four times as many or a quarter
/// of them is possible.
struct ChunkDigests {
    blob: Digest,
    list: Vec<model::proto::Digest>,
    /// The room that is left in the answer.
    room_bytes: usize,
}

impl ChunkDigests {
    fn of(blob: &Digest) -> Self {
        Self { blob: *blob, list: Vec::new(), room_bytes: MAX_DIGESTS_BYTES }
    }

    /// No list of digests by that function is longer.
    fn longest(function: DigestFunction) -> u64 {
        // Keys and lengths of the message and of the hash, and key and value of the size, take a byte each at least.
        let shortest_bytes = 2 * function.hash_bytes() + 6;
        (MAX_DIGESTS_BYTES / shortest_bytes) as u64
    }

    fn push(&mut self, chunk: &Digest) -> Result<(), SplitRefused> {
        let digest = chunk.to_proto();
        let message_bytes = digest.encoded_len();
        let bytes = 1 + prost::length_delimiter_len(message_bytes) + message_bytes;
        let room_bytes = self.room_bytes.checked_sub(bytes);
        self.room_bytes = room_bytes.ok_or(SplitRefused::TooLarge { digest: self.blob })?;
        self.list.push(digest);
        Ok(())
    }
}

/// Makes a blob of chunks that are in the store, if it is what its digest says.
pub(super) async fn splice(
    store: Arc<Store>,
    reservation: Arc<Reservation>,
    offer: Offer,
    message: SpliceBlobRequest,
) -> Result<Response<SpliceBlobResponse>, Status> {
    request::instance_name(&offer, &message.instance_name)?;
    let digest = message.blob_digest.as_ref();
    let function = request::function_of(&offer.functions, message.digest_function, digest)?;
    let blob = request::digest("blob_digest", digest, function)?;
    let chunk = |it| request::digest("chunk_digests", Some(it), function);
    reservation.grow_by(size_of::<Digest>() as u64 * message.chunk_digests.len() as u64)?;
    let chunks: Vec<Digest> = message.chunk_digests.iter().map(chunk).collect::<Result<_, _>>()?;
    let sizes = chunks.iter().map(Digest::size_bytes);
    let chunks_bytes = sizes.fold(0, u64::saturating_add);
    if chunks_bytes != blob.size_bytes() {
        return Err(SplitRefused::Size { digest: blob, chunks_bytes }.into());
    }
    let limit = store.stats().limit_bytes.filter(|limit| *limit < blob.size_bytes());
    if let Some(limit_bytes) = limit {
        return Err(SplitRefused::OverLimit { digest: blob, limit_bytes }.into());
    }
    reservation.grow_by(2 * PIECE_BYTES as u64)?;
    blocking::run_for_caller(move |caller| splice_chunks(store.cas(), &blob, &chunks, caller))
        .await?;
    Ok(Response::new(SpliceBlobResponse { blob_digest: Some(blob.to_proto()) }))
}

fn splice_chunks(
    cas: &Cas,
    blob: &Digest,
    chunks: &[Digest],
    caller: &Caller,
) -> Result<(), Status> {
    // Asked of all first: to be found is a use, which extends the lifetime of every chunk.
    let missing = cas.missing(chunks);
    if cas.contains(blob) {
        return Ok(());
    }
    if let Some(first) = missing.first() {
        return Err(status::blob_not_found(first));
    }
    let mut writer = cas.writer(blob.function(), Some(*blob));
    let mut piece = vec![0; PIECE_BYTES.min(blob.size_bytes() as usize)];
    for chunk in chunks {
        let file = cas.open(chunk).map_err(status::store)?;
        let mut file = file.ok_or_else(|| status::blob_not_found(chunk))?;
        loop {
            if caller.is_gone() {
                return Err(SplitRefused::ClientGone.into());
            }
            let read = file.read(&mut piece).map_err(|error| read_failed(&error))?;
            if read == 0 {
                break;
            }
            writer.write(&piece[..read]).map_err(status::store)?;
        }
    }
    writer.commit().map(|_| ()).map_err(status::store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_list_of_chunks_fits_default_clients() {
        for function in DigestFunction::ALL {
            let blob = Digest::of(function, b"blob");
            let chunk = Digest::of(function, &[0; 300_000]);
            let mut digests = ChunkDigests::of(&blob);
            while digests.push(&chunk).is_ok() {}
            assert_eq!(digests.push(&chunk), Err(SplitRefused::TooLarge { digest: blob }));
            assert!(digests.list.len() as u64 <= ChunkDigests::longest(function), "{function}");
            let chunk_digests = digests.list;
            let answer = SplitBlobResponse { chunk_digests, chunking_function: 1 };
            let room = (4 << 20) - answer.encoded_len();
            assert!(room < 200, "{function}: {room} bytes are left");
        }
    }

    /// Blobs of 25 GiB have about 51,000 chunks of 72 bytes each.
    #[test]
    fn lists_have_room_for_blobs_of_many_gib() {
        let longest = ChunkDigests::longest(DigestFunction::Sha256);
        assert!((51_200..60_000).contains(&longest), "{longest}");
        let chunks = chunking::chunks(Chunking::FastCdc2020, 25 << 30);
        assert!(chunks.contains(&51_200) && *chunks.start() < longest, "{chunks:?}");
        let chunks = chunking::chunks(Chunking::FastCdc2020, 200 << 30);
        assert!(*chunks.start() > longest, "{chunks:?}");
    }

    #[test]
    fn codes() {
        let digest = Digest::of(DigestFunction::Md5, b"abc");
        let check = |error: SplitRefused, code| assert_eq!(Status::from(error).code(), code);
        check(SplitRefused::TooLarge { digest }, Code::NotFound);
        check(SplitRefused::Size { digest, chunks_bytes: 4 }, Code::InvalidArgument);
        check(SplitRefused::OverLimit { digest, limit_bytes: 2 }, Code::ResourceExhausted);
        check(SplitRefused::ClientGone, Code::Cancelled);
    }
}
