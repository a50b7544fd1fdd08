//! `BatchUpdateBlobs` and `BatchReadBlobs`.
//!
//! A batch goes to the disk in one visit. Each blob has its own status; only a
//! batch over the announced limit is refused as a whole.

use std::sync::Arc;

use bytes::Bytes;
use model::DigestFunction;
use proto::encoded::reapi::batch_read_blobs_response::Response as BatchReadItem;
use proto::encoded::reapi::batch_update_blobs_request::Request as BatchUpdateItem;
use proto::encoded::reapi::batch_update_blobs_response::Response as BatchUpdateOutcome;
use proto::encoded::reapi::{
    BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest,
    BatchUpdateBlobsResponse,
};
use proto::google::rpc::Status as RpcStatus;
use store::Store;
use tonic::{Code, Response, Status};

use crate::compression::{Compression, Packer, unpack_whole};
use crate::memory::Reservation;
use crate::offer::Offer;
use crate::{below, blocking, request, status};

/// The message that gRPC clients take by default, in bytes.
const CLIENT_MESSAGE_BYTES: u64 = 4 << 20;

/// Data in one batch, in bytes: with the digest of a blob or a few hundred it fits into the messages
/// which gRPC clients take by default.
pub(crate) const MAX_BATCH_TOTAL_SIZE_BYTES: u64 = CLIENT_MESSAGE_BYTES - (64 << 10);

/// Blobs of one batch that are read: the answer for that many, none of which is here, still fits.
const MAX_BLOBS_READ: usize = 40_000;

/// Memory for the outcome of one blob: the message, and the text of an error.
pub(crate) const OUTCOME_BYTES: u64 = 256;

/// An error of a batch, or of one of its blobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchRefused {
    /// The data is over a limit.
    #[error("{size_bytes} bytes are over the limit of {max_bytes}; use the ByteStream service")]
    TooLarge {
        /// The size of the data.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// So many blobs are to be read that their statuses alone would not fit into an answer.
    #[error("{0} blobs are over the limit of {MAX_BLOBS_READ} in one BatchReadBlobs")]
    TooMany(usize),
    /// The compressor is not among the announced ones.
    #[error("compressor {0} is not supported; use IDENTITY, ZSTD, DEFLATE or BROTLI")]
    Compressor(i32),
}

impl From<BatchRefused> for Status {
    fn from(error: BatchRefused) -> Self {
        status::of(Code::InvalidArgument, &error)
    }
}

/// Stores every blob of the batch that is what its digest says.
pub(super) async fn update(
    store: Arc<Store>,
    reservation: Arc<Reservation>,
    offer: Offer,
    message: BatchUpdateBlobsRequest,
) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
    request::instance_name(&offer, &message.instance_name)?;
    let digests = message.requests.iter().map(|item| &item.digest);
    let function = request::function(&offer.functions, message.digest_function, digests)?;
    check_total(message.requests.iter().map(|item| item.data.len() as u64))?;
    reservation.grow_by(OUTCOME_BYTES * message.requests.len() as u64)?;
    let responses = blocking::run(move || {
        let mut unpacked = Unpacked { reservation: &reservation, bytes: 0 };
        let outcome = |item: BatchUpdateItem| BatchUpdateOutcome {
            status: Some(status::to_rpc(update_one(&store, &mut unpacked, function, &item))),
            digest: item.digest,
        };
        let outcomes = message.requests.into_iter().map(outcome).collect();
        store.make_durable().map_err(status::store)?;
        Ok(outcomes)
    })
    .await?;
    Ok(Response::new(BatchUpdateBlobsResponse { responses }))
}

fn update_one(
    store: &Store,
    unpacked: &mut Unpacked<'_>,
    function: DigestFunction,
    item: &BatchUpdateItem,
) -> Result<(), Status> {
    let digest = request::encoded_digest("digest", &item.digest, function)?;
    let data = match Compression::from_proto(item.compressor) {
        Some(Compression::Identity) => item.data.clone(),
        Some(packed) => unpacked.unpack(packed, &item.data, digest.size_bytes())?,
        None => return Err(BatchRefused::Compressor(item.compressor).into()),
    };
    store.cas().put_expected(&digest, &data).map(|_| ()).map_err(status::store)
}

/// The compressed blobs of a batch. Unpacked they are together within the bound of a batch: a few
/// bytes can stand for gigabytes.
struct Unpacked<'a> {
    reservation: &'a Reservation,
    bytes: u64,
}

impl Unpacked<'_> {
    /// Unpacks a blob of a known size, which bounds the memory.
    fn unpack(
        &mut self,
        compression: Compression,
        data: &[u8],
        size_bytes: u64,
    ) -> Result<Bytes, Status> {
        let (total_bytes, max_bytes) =
            (self.bytes.saturating_add(size_bytes), MAX_BATCH_TOTAL_SIZE_BYTES);
        if total_bytes > max_bytes {
            return Err(BatchRefused::TooLarge { size_bytes: total_bytes, max_bytes }.into());
        }
        // One is held at a time, but its memory may be given back late.
        self.reservation.grow_by(size_bytes)?;
        self.bytes = total_bytes;
        unpack_whole(compression, data, size_bytes, self.reservation.another())
    }
}

/// Reads every blob of the batch that is there.
pub(super) async fn read(
    store: Arc<Store>,
    reservation: Arc<Reservation>,
    offer: Offer,
    caller: Bytes,
    message: BatchReadBlobsRequest,
) -> Result<Response<BatchReadBlobsResponse>, Status> {
    request::instance_name(&offer, &message.instance_name)?;
    let function = request::function(&offer.functions, message.digest_function, &message.digests)?;
    let size = |encoded: &Bytes| {
        request::encoded_digest("digests", encoded, function)
            .map_or(0, |digest| digest.size_bytes())
    };
    if message.digests.len() > MAX_BLOBS_READ {
        return Err(BatchRefused::TooMany(message.digests.len()).into());
    }
    let total_bytes = check_total(message.digests.iter().map(size))?;
    let mut packer = Packer::for_client(&message.acceptable_compressors);
    let outcomes_bytes = OUTCOME_BYTES * message.digests.len() as u64;
    reservation.grow_by(total_bytes + packer.memory_bytes() + outcomes_bytes)?;
    if store.tier().is_some() {
        let parse = |encoded: &Bytes| request::encoded_digest("digests", encoded, function).ok();
        let blobs: Vec<_> = message.digests.iter().filter_map(parse).collect();
        below::fetch(&store, &reservation, blobs, caller).await?;
    }
    let responses = blocking::run(move || {
        let mut answer = Answer::for_blobs(message.digests.len());
        let item = |encoded: Bytes| {
            let (read, compression) = match read_one(&store, function, &encoded) {
                Ok(blob) => {
                    let (data, compression) = packer.pack(blob);
                    (Ok(data), compression)
                }
                Err(status) => (Err(status), Compression::Identity),
            };
            let (data, status) = answer.take(read);
            // Without data there is nothing that could be compressed.
            let compression = if data.is_empty() { Compression::Identity } else { compression };
            let compressor = compression.to_proto();
            BatchReadItem { digest: encoded, data, status: Some(status), compressor }
        };
        Ok(message.digests.into_iter().map(item).collect())
    })
    .await?;
    Ok(Response::new(BatchReadBlobsResponse { responses }))
}

/// The room for data and words in an answer that default clients take.
struct Answer {
    left_bytes: usize,
}

/// The size of an item of an answer without its data and its text, in bytes: the digest, the code, and the
/// keys and lengths of all fields.
const READ_ITEM_BYTES: usize = 100;

impl Answer {
    fn for_blobs(count: usize) -> Self {
        Self { left_bytes: CLIENT_MESSAGE_BYTES as usize - READ_ITEM_BYTES * count }
    }

    /// The data and the status of the next blob. One that finds no room is RESOURCE_EXHAUSTED, so
    /// that the client asks for it again.
    fn take(&mut self, read: Result<Bytes, Status>) -> (Bytes, RpcStatus) {
        let read = read.and_then(|data| {
            if self.fits(data.len()) { Ok(data) } else { Err(Status::resource_exhausted("")) }
        });
        match read {
            Ok(data) => (data, RpcStatus::default()),
            Err(error) => {
                let mut status = status::to_rpc(Err(error));
                if !self.fits(status.message.len()) {
                    status.message.clear();
                }
                (Bytes::new(), status)
            }
        }
    }

    fn fits(&mut self, bytes: usize) -> bool {
        let left_bytes = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left_bytes.unwrap_or(self.left_bytes);
        left_bytes.is_some()
    }
}

fn read_one(store: &Store, function: DigestFunction, encoded: &[u8]) -> Result<Bytes, Status> {
    let digest = request::encoded_digest("digests", encoded, function)?;
    let blob = store.cas().read(&digest).map_err(status::store)?;
    blob.ok_or_else(|| status::blob_not_found(&digest))
}

/// The bytes of a batch, if it is within the announced limit.
fn check_total(sizes: impl Iterator<Item = u64>) -> Result<u64, BatchRefused> {
    let (size_bytes, max_bytes) = (sizes.fold(0, u64::saturating_add), MAX_BATCH_TOTAL_SIZE_BYTES);
    if size_bytes > max_bytes {
        return Err(BatchRefused::TooLarge { size_bytes, max_bytes });
    }
    Ok(size_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;
    use model::Digest;
    use prost::Message as _;

    #[test]
    fn what_is_unpacked_is_bounded_by_the_batch() {
        let reservation = Budget::new(64 << 20).quota().reservation();
        let mut unpacked = Unpacked { reservation: &reservation, bytes: 0 };
        let content = vec![0; 3 << 20];
        let packed = zstd::bulk::compress(&content, 1).unwrap();
        let mut unpack = |size_bytes| {
            let data = unpacked.unpack(Compression::Zstd, &packed, size_bytes);
            data.map(|data| data.len()).map_err(|status| status.code())
        };
        assert_eq!(unpack(3 << 20), Ok(3 << 20));
        assert_eq!(unpack(3 << 20), Err(Code::InvalidArgument));
        assert_eq!(unpack(u64::MAX), Err(Code::InvalidArgument));
    }

    /// The items of an answer for that many blobs, which must fit.
    fn answer(blobs: usize, read: impl Fn() -> Result<Bytes, Status>) -> Vec<BatchReadItem> {
        let digest = Digest::new(DigestFunction::Sha256, [7; 32], 1 << 20).to_proto();
        let digest = Bytes::from(digest.encode_to_vec());
        let mut answer = Answer::for_blobs(blobs);
        let item = |_| {
            let (data, status) = answer.take(read());
            BatchReadItem { digest: digest.clone(), data, status: Some(status), compressor: 0 }
        };
        let message = BatchReadBlobsResponse { responses: (0..blobs).map(item).collect() };
        assert!(message.encoded_len() as u64 <= CLIENT_MESSAGE_BYTES, "{}", message.encoded_len());
        message.responses
    }

    #[test]
    fn answers_fit_default_clients() {
        let whole = |items: &[BatchReadItem]| items.iter().filter(|it| !it.data.is_empty()).count();
        let data = |bytes| move || Ok(Bytes::from(vec![0; bytes]));
        assert_eq!(whole(&answer(1, data(MAX_BATCH_TOTAL_SIZE_BYTES as usize))), 1);
        assert_eq!(whole(&answer(500, data(MAX_BATCH_TOTAL_SIZE_BYTES as usize / 500))), 500);
        let small = answer(20_000, data(200));
        assert!((10_000..20_000).contains(&whole(&small)), "{}", whole(&small));
        let last = small.last().unwrap().status.clone().unwrap();
        assert_eq!(Code::from(last.code), Code::ResourceExhausted);
        let missing = answer(MAX_BLOBS_READ, || Err(Status::not_found("m".repeat(120))));
        let codes = missing.iter().map(|it| it.status.as_ref().unwrap().code);
        assert!(codes.into_iter().all(|code| Code::from(code) == Code::NotFound));
    }
}
