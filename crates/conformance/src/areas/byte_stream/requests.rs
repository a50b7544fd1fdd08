//! The requests that the checks of this area share.

use testkit::Digest;
use testkit::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, WriteRequest,
};
use tonic::Status;
use uuid::Uuid;

use crate::server::{Server, noise};

/// The name of an upload that no other check makes.
pub(in crate::areas) fn upload_name(server: &Server, digest: &Digest) -> String {
    let name = server.client.download_name(digest);
    let (instance, blob) = name.split_at(name.rfind("blobs/").unwrap_or(0));
    format!("{instance}uploads/{}/{blob}", Uuid::new_v4())
}

pub(super) fn message(name: &str, offset: usize, data: &[u8], finish_write: bool) -> WriteRequest {
    WriteRequest {
        resource_name: name.to_owned(),
        write_offset: offset as i64,
        finish_write,
        data: data.to_vec().into(),
    }
}

pub(super) async fn status(
    server: &Server,
    name: &str,
) -> Result<QueryWriteStatusResponse, Status> {
    let request = QueryWriteStatusRequest { resource_name: name.to_owned() };
    Ok(server.client.byte_stream().query_write_status(request).await?.into_inner())
}

/// A blob that no server has, with the name of its upload.
pub(super) fn fresh(server: &Server, length: usize) -> (Vec<u8>, Digest, String) {
    let data = noise(length);
    let digest = server.client.digest(&data);
    let name = upload_name(server, &digest);
    (data, digest, name)
}
