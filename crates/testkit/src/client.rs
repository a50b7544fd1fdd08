//! A client: the generated stubs, and the few steps that every test needs.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use model::proto::google::bytestream::byte_stream_client::ByteStreamClient;
use model::proto::google::bytestream::{ReadRequest, WriteRequest};
use model::proto::google::longrunning::operations_client::OperationsClient;
use model::{Digest, DigestFunction, proto};
use proto::action_cache_client::ActionCacheClient;
use proto::capabilities_client::CapabilitiesClient;
use proto::content_addressable_storage_client::ContentAddressableStorageClient;
use proto::execution_client::ExecutionClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;

use crate::outcome::Skipped;
use crate::vm::Programs;

/// Larger than anything that a test receives.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A connection to a server.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    function: DigestFunction,
    instance: String,
    programs: Programs,
}

impl Client {
    /// A client of the server at `address`; it connects with its first call.
    pub fn new(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        Self::on(endpoint.expect("an address makes a URI").tcp_nodelay(true).connect_lazy())
    }

    /// A client on a connection to any server.
    pub fn on(channel: Channel) -> Self {
        let instance = String::new();
        Self { channel, function: DigestFunction::Sha256, instance, programs: Programs::Host }
    }

    /// The same connection to a server whose actions have their shell from there.
    pub(crate) fn with_programs(self, programs: Programs) -> Self {
        Self { programs, ..self }
    }

    pub(crate) fn programs(&self) -> Programs {
        self.programs
    }

    /// The same connection, with another digest function.
    #[must_use]
    pub fn with_function(&self, function: DigestFunction) -> Self {
        Self { function, ..self.clone() }
    }

    /// The same connection, with another instance name.
    #[must_use]
    pub fn with_instance(&self, instance: &str) -> Self {
        Self { instance: instance.to_owned(), ..self.clone() }
    }

    /// The digest function in use.
    pub fn function(&self) -> DigestFunction {
        self.function
    }

    /// The instance name in use.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The channel, for calls of one's own.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// `ContentAddressableStorage`.
    pub fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// `ByteStream`.
    pub fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// `ActionCache`.
    pub fn action_cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// `Execution`.
    pub fn execution(&self) -> ExecutionClient<Channel> {
        ExecutionClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// `google.longrunning.Operations`.
    pub fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel())
    }

    /// `Capabilities`.
    pub fn capabilities(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel())
    }

    /// `grpc.health.v1.Health`.
    pub fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel())
    }

    /// The digest of `content`, with the function in use.
    pub fn digest(&self, content: impl AsRef<[u8]>) -> Digest {
        Digest::of(self.function, content.as_ref())
    }

    /// Uploads small blobs.
    ///
    /// # Errors
    /// When one of them is not stored.
    pub async fn put_all(&self, blobs: impl IntoIterator<Item = Vec<u8>>) -> anyhow::Result<()> {
        use proto::batch_update_blobs_request::Request;
        let request = |data: Vec<u8>| Request {
            digest: Some(self.digest(&data).to_proto()),
            data: data.into(),
            ..Request::default()
        };
        let requests: Vec<_> = blobs.into_iter().map(request).collect();
        let message = proto::BatchUpdateBlobsRequest {
            instance_name: self.instance.clone(),
            requests,
            digest_function: self.function.to_proto(),
        };
        let response = self.cas().batch_update_blobs(message).await?;
        for outcome in response.into_inner().responses {
            let status = outcome.status.unwrap_or_default();
            ensure!(status.code == 0, "storing {:?}: {}", outcome.digest, status.message);
        }
        Ok(())
    }

    /// Uploads a small blob.
    ///
    /// # Errors
    /// When it is not stored.
    pub async fn put(&self, content: impl Into<Vec<u8>>) -> anyhow::Result<Digest> {
        let content = content.into();
        let digest = self.digest(&content);
        self.put_all([content]).await?;
        Ok(digest)
    }

    /// Uploads a blob of any size as a stream, and returns the committed size.
    ///
    /// # Errors
    /// The server's status.
    pub async fn write(&self, name: &str, content: &[u8], chunk: usize) -> Result<i64, Status> {
        let mut messages = Vec::new();
        let mut offset = 0;
        loop {
            let end = (offset + chunk).min(content.len());
            messages.push(WriteRequest {
                resource_name: if offset == 0 { name.to_owned() } else { String::new() },
                write_offset: offset as i64,
                finish_write: end == content.len(),
                data: content[offset..end].to_vec().into(),
            });
            offset = end;
            if offset == content.len() {
                break;
            }
        }
        self.write_messages(messages).await
    }

    /// Sends the messages of an upload as they are.
    ///
    /// # Errors
    /// The server's status.
    pub async fn write_messages(&self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let response = self.byte_stream().write(tokio_stream::iter(messages)).await?;
        Ok(response.into_inner().committed_size)
    }

    /// The resource name under which `digest` is uploaded.
    pub fn upload_name(&self, digest: &Digest) -> String {
        format!("{}uploads/6ba7b810-9dad-41d1-80b4-00c04fd430c8/{}", self.prefix(), blob(digest))
    }

    /// The resource name under which `digest` is downloaded.
    pub fn download_name(&self, digest: &Digest) -> String {
        format!("{}{}", self.prefix(), blob(digest))
    }

    fn prefix(&self) -> String {
        if self.instance.is_empty() { String::new() } else { format!("{}/", self.instance) }
    }

    /// Downloads a blob as a stream.
    ///
    /// # Errors
    /// When it is not there, or not what its digest says.
    pub async fn get(&self, digest: &Digest) -> anyhow::Result<Vec<u8>> {
        let content = self.read(&self.download_name(digest), 0, 0).await?;
        ensure!(Digest::of(digest.function(), &content) == *digest, "{digest} has other content");
        Ok(content)
    }

    /// Downloads part of a resource.
    ///
    /// # Errors
    /// The server's status.
    pub async fn read(&self, name: &str, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        let request =
            ReadRequest { resource_name: name.to_owned(), read_offset: offset, read_limit: limit };
        let mut stream = self.byte_stream().read(request).await?.into_inner();
        let mut content = Vec::new();
        while let Some(message) = stream.message().await? {
            content.extend_from_slice(&message.data);
        }
        Ok(content)
    }

    /// Those of `digests` that the server does not have.
    ///
    /// # Errors
    /// The server's status.
    pub async fn missing(&self, digests: &[Digest]) -> anyhow::Result<Vec<Digest>> {
        let message = proto::FindMissingBlobsRequest {
            instance_name: self.instance.clone(),
            blob_digests: digests.iter().map(Digest::to_proto).collect(),
            digest_function: self.function.to_proto(),
        };
        let response = self.cas().find_missing_blobs(message).await?.into_inner();
        let parse = |digest| Digest::from_proto(digest, self.function);
        Ok(response.missing_blob_digests.iter().map(parse).collect::<Result<_, _>>()?)
    }

    /// Deletes blobs from the server, through its internal interface.
    ///
    /// # Errors
    /// The server's status, or that of a blob.
    pub async fn delete(&self, digests: &[Digest]) -> anyhow::Result<()> {
        for (digest, code) in digests.iter().zip(self.try_delete(digests).await?) {
            ensure!(code == Code::Ok, "deleting {digest}: {code:?}");
        }
        Ok(())
    }

    /// The outcome of each blob's deletion.
    ///
    /// # Errors
    /// The server's status.
    pub async fn try_delete(&self, digests: &[Digest]) -> anyhow::Result<Vec<Code>> {
        if self.programs == Programs::Runtime {
            let reason = "a server in a VM deletes nothing: it can't tell who asks";
            return Err(Skipped(reason.to_owned()).into());
        }
        let message = DeleteBlobsRequest {
            instance_name: self.instance.clone(),
            blob_digests: digests.iter().map(Digest::to_proto).collect(),
            digest_function: self.function.to_proto(),
        };
        let mut grpc = tonic::client::Grpc::new(self.channel());
        grpc.ready().await.context("connecting")?;
        let path = "/actiond.internal.v1.CAS/DeleteBlobs".parse()?;
        let codec = tonic_prost::ProstCodec::<_, DeleteBlobsResponse>::default();
        let response = grpc.unary(tonic::Request::new(message), path, codec).await?.into_inner();
        let code = |outcome: DeleteBlobsOutcome| outcome.status.unwrap_or_default().code.into();
        Ok(response.responses.into_iter().map(code).collect())
    }

    /// The cached result of an action, if there is one.
    ///
    /// # Errors
    /// The server's status, if it is not NOT_FOUND.
    pub async fn cached(&self, action: &Digest) -> anyhow::Result<Option<proto::ActionResult>> {
        let message = proto::GetActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action.to_proto()),
            digest_function: self.function.to_proto(),
            ..proto::GetActionResultRequest::default()
        };
        match self.action_cache().get_action_result(message).await {
            Ok(response) => Ok(Some(response.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }
}

/// `blobs/…`, with the function where it is newer than the resource names.
fn blob(digest: &Digest) -> String {
    match digest.function().resource_name_segment() {
        None => format!("blobs/{digest}"),
        Some(function) => format!("blobs/{function}/{digest}"),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteBlobsRequest {
    #[prost(string, tag = "1")]
    instance_name: String,
    #[prost(message, repeated, tag = "2")]
    blob_digests: Vec<proto::Digest>,
    #[prost(int32, tag = "3")]
    digest_function: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteBlobsResponse {
    #[prost(message, repeated, tag = "1")]
    responses: Vec<DeleteBlobsOutcome>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteBlobsOutcome {
    #[prost(message, optional, tag = "1")]
    digest: Option<proto::Digest>,
    #[prost(message, optional, tag = "2")]
    status: Option<model::proto::google::rpc::Status>,
}
