//! The limit of a batch, below it and over it.

use anyhow::ensure;
use testkit::Digest;
use tonic::Code;

use super::requests::{identity, read, update};
use crate::check::{Check, Outcome, must, skip};
use crate::expect::{item_code, refused, same};
use crate::server::{DEFAULT_MESSAGE_BYTES, Server, noise};

pub(super) const CHECKS: &[Check] = &[
    must!(
        an_update_up_to_the_limit_is_taken,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "This limit may be obtained using the"
    ),
    must!(
        an_update_of_very_many_blobs_is_taken,
        "CacheCapabilities.max_batch_total_size_bytes",
        "Maximum total size of blobs to be uploaded/downloaded using batch methods."
    ),
    must!(
        an_update_over_the_limit_is_refused,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "`INVALID_ARGUMENT`: The client attempted to upload more than the server supported limit."
    ),
    must!(
        an_update_far_over_the_limit_is_refused,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "`INVALID_ARGUMENT`: The client attempted to upload more than the server supported limit."
    ),
    must!(
        a_read_up_to_the_limit_fits_default_clients,
        "CacheCapabilities.max_batch_total_size_bytes",
        "in practice there will always be a message size limitation of the protocol in use, e.g. GRPC."
    ),
    must!(
        a_read_of_very_many_blobs_fits_default_clients,
        "CacheCapabilities.max_batch_total_size_bytes",
        "in practice there will always be a message size limitation of the protocol in use, e.g. GRPC."
    ),
    must!(
        a_read_over_the_limit_is_refused,
        "ContentAddressableStorage.BatchReadBlobs",
        "`INVALID_ARGUMENT`: The client attempted to read more than the server supported limit."
    ),
];

/// Blobs of `size` bytes each, as many as one batch may hold.
fn full_batch(server: &Server, size: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let bytes = server.batch_bytes()?;
    if bytes > 64 << 20 {
        return skip(format!("a batch may hold {bytes} bytes, which this program does not send"));
    }
    Ok((0..bytes / size).map(|_| noise(size)).collect())
}

/// Stores a batch at once.
async fn store_at_once(server: &Server, blobs: Vec<Vec<u8>>) -> anyhow::Result<Vec<Digest>> {
    let digests = blobs.iter().map(|blob| server.client.digest(blob)).collect();
    let uploads = blobs.into_iter().map(|blob| identity(server, blob)).collect();
    for response in update(server, uploads).await? {
        same("the code of a blob", item_code(response.status.as_ref()), Code::Ok)?;
    }
    Ok(digests)
}

async fn an_update_up_to_the_limit_is_taken(server: Server) -> Outcome {
    let blob = noise(server.batch_bytes()?.min(64 << 20));
    store_at_once(&server, vec![blob]).await?;
    Ok(())
}

async fn an_update_of_very_many_blobs_is_taken(server: Server) -> Outcome {
    let digests = store_at_once(&server, full_batch(&server, 200)?).await?;
    same("missing", server.client.missing(&digests).await?, vec![])
}

async fn over_the_limit(server: &Server, excess: usize) -> Outcome {
    if server.cache()?.max_batch_total_size_bytes == 0 {
        return skip("no limit is announced");
    }
    let half = server.batch_bytes()? / 2;
    let uploads = vec![identity(server, noise(half)), identity(server, noise(half + excess))];
    refused(update(server, uploads).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn an_update_over_the_limit_is_refused(server: Server) -> Outcome {
    over_the_limit(&server, 2).await
}

async fn an_update_far_over_the_limit_is_refused(server: Server) -> Outcome {
    over_the_limit(&server, server.batch_bytes()?).await
}

/// The answer to a full batch fits a client that was not told to take more.
async fn fits(server: &Server, size: usize) -> Outcome {
    if server.batch_bytes()? > DEFAULT_MESSAGE_BYTES && size > 200 {
        return skip("a batch may hold more than such a client takes");
    }
    let blobs = full_batch(server, size)?;
    let digests: Vec<_> = blobs.iter().map(|blob| server.client.digest(blob)).collect();
    for part in blobs.chunks(500) {
        server.client.put_all(part.to_vec()).await?;
    }
    let mut whole = 0;
    for response in read(server, &digests).await? {
        match item_code(response.status.as_ref()) {
            Code::Ok => whole += response.data.len(),
            // A blob that finds no room in the answer may be asked for again.
            Code::ResourceExhausted => {}
            code => anyhow::bail!("{code:?} for {:?}", response.digest),
        }
    }
    ensure!(whole > 0, "nothing was read");
    Ok(())
}

async fn a_read_up_to_the_limit_fits_default_clients(server: Server) -> Outcome {
    fits(&server, server.batch_bytes()?.min(DEFAULT_MESSAGE_BYTES) / 4).await
}

async fn a_read_of_very_many_blobs_fits_default_clients(server: Server) -> Outcome {
    fits(&server, 200).await
}

async fn a_read_over_the_limit_is_refused(server: Server) -> Outcome {
    if server.cache()?.max_batch_total_size_bytes == 0 {
        return skip("no limit is announced");
    }
    let half = server.batch_bytes()? / 2;
    let blobs = [noise(half), noise(half + 2)];
    let mut digests = Vec::new();
    for blob in blobs {
        digests.push(server.client.put(blob).await?);
    }
    refused(read(&server, &digests).await, &[Code::InvalidArgument])?;
    Ok(())
}
