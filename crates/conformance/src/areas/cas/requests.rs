//! The requests that the checks of this area share.

use testkit::Digest;
use testkit::proto;
use testkit::proto::batch_update_blobs_request::Request as Upload;
use tonic::{Code, Status};

use crate::expect::{item_code, only, same};
use crate::server::Server;

/// The form of an upload, as the API would have it.
pub(super) fn upload(digest: Digest, data: Vec<u8>) -> Upload {
    Upload { digest: Some(digest.to_proto()), data: data.into(), ..Default::default() }
}

pub(super) fn identity(server: &Server, data: Vec<u8>) -> Upload {
    upload(server.client.digest(&data), data)
}

pub(super) async fn update(
    server: &Server,
    requests: Vec<Upload>,
) -> Result<Vec<proto::batch_update_blobs_response::Response>, Status> {
    let message = proto::BatchUpdateBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        requests,
        digest_function: server.client.function().to_proto(),
    };
    Ok(server.default_cas().batch_update_blobs(message).await?.into_inner().responses)
}

pub(super) fn read_request(
    server: &Server,
    digests: Vec<proto::Digest>,
) -> proto::BatchReadBlobsRequest {
    proto::BatchReadBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        digests,
        digest_function: server.client.function().to_proto(),
        ..Default::default()
    }
}

pub(super) async fn read(
    server: &Server,
    digests: &[Digest],
) -> Result<Vec<proto::batch_read_blobs_response::Response>, Status> {
    let digests = digests.iter().map(Digest::to_proto).collect();
    let message = read_request(server, digests);
    Ok(server.default_cas().batch_read_blobs(message).await?.into_inner().responses)
}

/// The one blob of `digest`, read in a batch.
pub(super) async fn read_one(server: &Server, digest: Digest) -> anyhow::Result<Vec<u8>> {
    let response = only(read(server, &[digest]).await?, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::Ok)?;
    Ok(response.data.to_vec())
}

pub(super) async fn find(
    server: &Server,
    blob_digests: Vec<proto::Digest>,
) -> Result<Vec<proto::Digest>, Status> {
    let message = proto::FindMissingBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        blob_digests,
        digest_function: server.client.function().to_proto(),
    };
    Ok(server.default_cas().find_missing_blobs(message).await?.into_inner().missing_blob_digests)
}

/// A digest like `digest`, with another size.
pub(super) fn resized(digest: Digest) -> proto::Digest {
    let digest = digest.to_proto();
    proto::Digest { size_bytes: digest.size_bytes + 1, ..digest }
}
