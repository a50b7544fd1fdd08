//! Messages of the hot paths, shaped so that blob data is never copied.
//!
//! They are on the wire what `google.bytestream` and REAPI v2 say. The generated
//! types hold blob data as `Vec<u8>`, which costs one copy and one zeroed
//! allocation per message; these hold `Bytes`, which share the receive buffer.
//! Digests of bulk requests are kept encoded and parsed in place by
//! [`crate::request`], so that a request of thousands of them allocates once.

use bazel_remote_apis::google::rpc::Status as RpcStatus;
use bytes::Bytes;

/// `google.bytestream.WriteRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteRequest {
    #[prost(string, tag = "1")]
    pub(crate) resource_name: String,
    #[prost(int64, tag = "2")]
    pub(crate) write_offset: i64,
    #[prost(bool, tag = "3")]
    pub(crate) finish_write: bool,
    #[prost(bytes = "bytes", tag = "10")]
    pub(crate) data: Bytes,
}

/// `FindMissingBlobsRequest`; each digest is an encoded `Digest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FindMissingBlobsRequest {
    #[prost(string, tag = "1")]
    pub(crate) instance_name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) blob_digests: Vec<Bytes>,
    #[prost(int32, tag = "3")]
    pub(crate) digest_function: i32,
}

/// `FindMissingBlobsResponse`; each digest is the client's own encoding.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FindMissingBlobsResponse {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) missing_blob_digests: Vec<Bytes>,
}

/// `BatchUpdateBlobsRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchUpdateBlobsRequest {
    #[prost(string, tag = "1")]
    pub(crate) instance_name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) requests: Vec<BatchUpdateItem>,
    #[prost(int32, tag = "5")]
    pub(crate) digest_function: i32,
}

/// `BatchUpdateBlobsRequest.Request`; the digest is an encoded `Digest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchUpdateItem {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) digest: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) data: Bytes,
    #[prost(int32, tag = "3")]
    pub(crate) compressor: i32,
}

/// `BatchUpdateBlobsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchUpdateBlobsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) responses: Vec<BatchUpdateOutcome>,
}

/// `BatchUpdateBlobsResponse.Response`; the digest is the client's own encoding.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchUpdateOutcome {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) digest: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(crate) status: Option<RpcStatus>,
}

/// `BatchReadBlobsRequest`; each digest is an encoded `Digest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchReadBlobsRequest {
    #[prost(string, tag = "1")]
    pub(crate) instance_name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) digests: Vec<Bytes>,
    #[prost(int32, repeated, tag = "3")]
    pub(crate) acceptable_compressors: Vec<i32>,
    #[prost(int32, tag = "4")]
    pub(crate) digest_function: i32,
}

/// `BatchReadBlobsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchReadBlobsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) responses: Vec<BatchReadItem>,
}

/// `BatchReadBlobsResponse.Response`; the digest is the client's own encoding.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BatchReadItem {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) digest: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) data: Bytes,
    #[prost(message, optional, tag = "3")]
    pub(crate) status: Option<RpcStatus>,
    #[prost(int32, tag = "4")]
    pub(crate) compressor: i32,
}

/// `GetTreeResponse`; each directory is the stored blob itself.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GetTreeResponse {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) directories: Vec<Bytes>,
    #[prost(string, tag = "2")]
    pub(crate) next_page_token: String,
}

/// `actiond.internal.v1.DeleteBlobsRequest`: an interface of this project, laid
/// out as its siblings above.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteBlobsRequest {
    #[prost(string, tag = "1")]
    pub(crate) instance_name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) blob_digests: Vec<Bytes>,
    #[prost(int32, tag = "3")]
    pub(crate) digest_function: i32,
}

/// `actiond.internal.v1.DeleteBlobsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteBlobsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) responses: Vec<DeleteBlobsOutcome>,
}

/// `actiond.internal.v1.DeleteBlobsResponse.Response`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DeleteBlobsOutcome {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) digest: Bytes,
    #[prost(message, optional, tag = "2")]
    pub(crate) status: Option<RpcStatus>,
}
