//! `BatchUpdateBlobs` and `BatchReadBlobs`.
//!
//! A batch goes to the disk in one visit. Each blob has its own status; only a
//! batch over the announced limit is refused as a whole.

use std::sync::Arc;

use bytes::Bytes;
use model::DigestFunction;
use model::proto::compressor::Value as Compressor;
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

use crate::memory::{Account, Loan};
use crate::{blocking, request, status};

/// Data in one batch, in bytes: the most that fits into the messages which gRPC
/// clients take by default, and what other servers announce.
pub(crate) const MAX_BATCH_TOTAL_SIZE_BYTES: u64 = 4 << 20;

/// One compressed blob of a batch, unpacked, in bytes. What compresses better
/// than 16 to 1 is better uploaded as a stream.
const MAX_UNPACKED_BYTES: u64 = 16 * MAX_BATCH_TOTAL_SIZE_BYTES;

/// Why a batch, or a blob of one, is refused.
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
    /// The compressor is not among the announced ones.
    #[error("compressor {0} is not supported; use IDENTITY or ZSTD")]
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
    account: Arc<Account>,
    message: BatchUpdateBlobsRequest,
) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
    request::instance_name(&message.instance_name)?;
    let function = request::function(message.digest_function)?;
    check_total(message.requests.iter().map(|item| item.data.len() as u64))?;
    let responses = blocking::run(move || {
        let outcome = |item: BatchUpdateItem| BatchUpdateOutcome {
            status: Some(status::to_rpc(update_one(&store, &account, function, &item))),
            digest: item.digest,
        };
        Ok(message.requests.into_iter().map(outcome).collect())
    })
    .await?;
    Ok(Response::new(BatchUpdateBlobsResponse { responses }))
}

fn update_one(
    store: &Store,
    account: &Arc<Account>,
    function: DigestFunction,
    item: &BatchUpdateItem,
) -> Result<(), Status> {
    let digest = request::encoded_digest("digest", &item.digest, function)?;
    let unpacked = account.loan();
    let data = match Compressor::try_from(item.compressor) {
        Ok(Compressor::Identity) => item.data.clone(),
        Ok(Compressor::Zstd) => decompress(&item.data, digest.size_bytes(), &unpacked)?,
        _ => return Err(BatchRefused::Compressor(item.compressor).into()),
    };
    store.cas().put_expected(&digest, &data).map(|_| ()).map_err(status::store)
}

/// Unpacks a blob of a known size, which bounds the memory.
fn decompress(data: &[u8], size_bytes: u64, unpacked: &Loan) -> Result<Bytes, Status> {
    if size_bytes > MAX_UNPACKED_BYTES {
        return Err(BatchRefused::TooLarge { size_bytes, max_bytes: MAX_UNPACKED_BYTES }.into());
    }
    unpacked.grow_to(size_bytes)?;
    let capacity = size_bytes as usize;
    zstd::bulk::decompress(data, capacity).map(Bytes::from).map_err(status::unpacking)
}

/// Reads every blob of the batch that is there.
pub(super) async fn read(
    store: Arc<Store>,
    account: Arc<Account>,
    message: BatchReadBlobsRequest,
) -> Result<Response<BatchReadBlobsResponse>, Status> {
    request::instance_name(&message.instance_name)?;
    let function = request::function(message.digest_function)?;
    let size = |encoded: &Bytes| {
        request::encoded_digest("digests", encoded, function)
            .map_or(0, |digest| digest.size_bytes())
    };
    let total_bytes = check_total(message.digests.iter().map(size))?;
    let _read = account.lend(total_bytes)?;
    let responses = blocking::run(move || {
        let item = |encoded: Bytes| {
            let (data, status) = match read_one(&store, function, &encoded) {
                Ok(data) => (data, RpcStatus::default()),
                Err(status) => (Bytes::new(), status::to_rpc(Err(status))),
            };
            let compressor = Compressor::Identity.into();
            BatchReadItem { digest: encoded, data, status: Some(status), compressor }
        };
        Ok(message.digests.into_iter().map(item).collect())
    })
    .await?;
    Ok(Response::new(BatchReadBlobsResponse { responses }))
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
