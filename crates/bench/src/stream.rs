//! ByteStream, with messages that hold what they carry without a copy.
//!
//! The client is on the machine of the server, and what it costs is taken from
//! what is measured: with the generated messages, whose data is a `Vec<u8>`, and
//! HTTP/2's smallest frames, most of a download would be the client's own work.

use anyhow::{Result, ensure};
use bytes::Bytes;
use model::Digest;
use model::proto::google::bytestream::{ReadRequest, WriteResponse};
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::content::{Blob, unique};

/// Bytes in one message of a write.
const WRITE_BYTES: usize = 1 << 20;
/// The largest message that is taken.
const MESSAGE_BYTES: usize = 16 << 20;

/// `google.bytestream.ReadResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct ReadResponse {
    #[prost(bytes = "bytes", tag = "10")]
    data: Bytes,
}

/// `google.bytestream.WriteRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(string, tag = "1")]
    resource_name: String,
    #[prost(int64, tag = "2")]
    write_offset: i64,
    #[prost(bool, tag = "3")]
    finish_write: bool,
    #[prost(bytes = "bytes", tag = "10")]
    data: Bytes,
}

/// The name of an upload: a UUID's digits, which no other has.
pub(crate) fn upload_id() -> String {
    format!("{:032x}", unique())
}

/// Uploads one blob.
pub(crate) async fn write(channel: Channel, blob: &Blob) -> Result<()> {
    let Blob { digest, bytes } = blob.clone();
    let name = format!("uploads/{}/blobs/{}/{}", upload_id(), digest.hex(), digest.size_bytes());
    let length = bytes.len();
    let committed = write_bytes(channel, name, bytes).await?;
    ensure!(committed == length as i64, "committed {committed}");
    Ok(())
}

/// Uploads to a resource; returns what the server has committed.
pub(crate) async fn write_bytes(channel: Channel, name: String, bytes: Bytes) -> Result<i64> {
    let length = bytes.len();
    let messages = (0..length).step_by(WRITE_BYTES).map(move |start| {
        let end = (start + WRITE_BYTES).min(length);
        WriteRequest {
            resource_name: if start == 0 { name.clone() } else { String::new() },
            write_offset: start as i64,
            finish_write: end == length,
            data: bytes.slice(start..end),
        }
    });
    let mut grpc = Grpc::new(channel);
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/google.bytestream.ByteStream/Write");
    let codec = ProstCodec::<WriteRequest, WriteResponse>::default();
    let request = Request::new(tokio_stream::iter(messages));
    let response = grpc.client_streaming(request, path, codec).await?.into_inner();
    Ok(response.committed_size)
}

/// Reads one blob; returns how many bytes came.
pub(crate) async fn read(channel: Channel, digest: &Digest) -> Result<usize> {
    let mut length = 0;
    let name = format!("blobs/{}/{}", digest.hex(), digest.size_bytes());
    read_each(channel, name, |data| length += data.len()).await?;
    Ok(length)
}

/// Reads a resource, message by message.
pub(crate) async fn read_each(
    channel: Channel,
    resource_name: String,
    mut visit: impl FnMut(Bytes),
) -> Result<()> {
    let request = ReadRequest { resource_name, ..Default::default() };
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/google.bytestream.ByteStream/Read");
    let codec = ProstCodec::<ReadRequest, ReadResponse>::default();
    let mut messages =
        grpc.server_streaming(Request::new(request), path, codec).await?.into_inner();
    while let Some(message) = messages.message().await? {
        visit(message.data);
    }
    Ok(())
}
