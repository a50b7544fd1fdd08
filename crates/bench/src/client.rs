//! A connection to a server, and the few calls that the loads need.

use anyhow::{Context, Result, bail, ensure};
use model::Digest;
use model::proto::google::bytestream::byte_stream_client::ByteStreamClient;
use model::proto::google::bytestream::{ReadRequest, WriteRequest};
use model::proto::google::longrunning::operation;
use model::proto::{
    self, Message, action_cache_client::ActionCacheClient,
    content_addressable_storage_client::ContentAddressableStorageClient,
    execution_client::ExecutionClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::content::{Blob, unique};

/// What a batch may hold: below the 4 MiB of gRPC's default, with its framing.
const BATCH_BYTES: usize = 3 << 20;
/// Bytes in one message of a ByteStream write.
const WRITE_BYTES: usize = 512 << 10;

/// One HTTP/2 connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    platform: Option<proto::Platform>,
}

impl Client {
    /// Connects; `properties` are NAME=VALUE.
    pub(crate) async fn connect(url: &str, properties: &[String]) -> Result<Self> {
        let channel = Endpoint::from_shared(url.to_owned())?
            .tcp_nodelay(true)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(32 << 20)
            .connect()
            .await
            .with_context(|| format!("connecting to {url}"))?;
        let mut platform = Vec::new();
        for property in properties {
            let (name, value) = property.split_once('=').context("a property is NAME=VALUE")?;
            platform.push(proto::platform::Property { name: name.into(), value: value.into() });
        }
        let platform = (!platform.is_empty()).then_some(proto::Platform { properties: platform });
        Ok(Self { channel, platform })
    }

    /// The properties that every action carries.
    pub(crate) fn platform(&self) -> Option<proto::Platform> {
        self.platform.clone()
    }

    pub(crate) fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
            .max_decoding_message_size(16 << 20)
            .max_encoding_message_size(16 << 20)
    }

    pub(crate) fn action_cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone())
    }

    /// Uploads what the server lacks of `blobs`.
    pub(crate) async fn upload(&self, blobs: &[Blob]) -> Result<()> {
        for chunk in blobs.chunks(4_000) {
            self.upload_chunk(chunk).await?;
        }
        Ok(())
    }

    async fn upload_chunk(&self, blobs: &[Blob]) -> Result<()> {
        let request = proto::FindMissingBlobsRequest {
            blob_digests: blobs.iter().map(|blob| blob.digest.to_proto()).collect(),
            ..Default::default()
        };
        let missing = self.cas().find_missing_blobs(request).await?.into_inner();
        let missing: std::collections::HashSet<String> =
            missing.missing_blob_digests.into_iter().map(|digest| digest.hash).collect();
        let mut batch = Vec::new();
        let mut size = 0;
        for blob in blobs.iter().filter(|blob| missing.contains(&blob.digest.hex())) {
            if blob.bytes.len() > BATCH_BYTES {
                self.write(blob).await?;
                continue;
            }
            if size + blob.bytes.len() > BATCH_BYTES {
                self.update(&std::mem::take(&mut batch)).await?;
                size = 0;
            }
            size += blob.bytes.len();
            batch.push(blob.clone());
        }
        self.update(&batch).await
    }

    /// One BatchUpdateBlobs.
    pub(crate) async fn update(&self, blobs: &[Blob]) -> Result<()> {
        if blobs.is_empty() {
            return Ok(());
        }
        let requests = blobs.iter().map(|blob| proto::batch_update_blobs_request::Request {
            digest: Some(blob.digest.to_proto()),
            data: blob.bytes.to_vec(),
            ..Default::default()
        });
        let request =
            proto::BatchUpdateBlobsRequest { requests: requests.collect(), ..Default::default() };
        let response = self.cas().batch_update_blobs(request).await?.into_inner();
        for item in response.responses {
            let status = item.status.unwrap_or_default();
            ensure!(status.code == 0, "a blob was refused: {}", status.message);
        }
        Ok(())
    }

    /// Uploads one blob through ByteStream.
    pub(crate) async fn write(&self, blob: &Blob) -> Result<()> {
        let Blob { digest, bytes } = blob.clone();
        let name =
            format!("uploads/{:032x}/blobs/{}/{}", unique(), digest.hex(), digest.size_bytes());
        let length = bytes.len();
        let chunks = (0..length).step_by(WRITE_BYTES).map(move |start| {
            let end = (start + WRITE_BYTES).min(length);
            WriteRequest {
                resource_name: if start == 0 { name.clone() } else { String::new() },
                write_offset: start as i64,
                finish_write: end == length,
                data: bytes[start..end].to_vec(),
            }
        });
        let mut client = ByteStreamClient::new(self.channel.clone());
        let response = client.write(tokio_stream::iter(chunks)).await?.into_inner();
        ensure!(response.committed_size == length as i64, "committed {}", response.committed_size);
        Ok(())
    }

    /// Reads one blob through ByteStream; returns how many bytes came.
    pub(crate) async fn read(&self, digest: &Digest) -> Result<usize> {
        let resource_name = format!("blobs/{}/{}", digest.hex(), digest.size_bytes());
        let request = ReadRequest { resource_name, ..Default::default() };
        let mut client =
            ByteStreamClient::new(self.channel.clone()).max_decoding_message_size(16 << 20);
        let mut stream = client.read(request).await?.into_inner();
        let mut length = 0;
        while let Some(message) = stream.message().await? {
            length += message.data.len();
        }
        Ok(length)
    }

    /// Runs an action to its end; it must succeed.
    pub(crate) async fn execute(&self, action: &Digest) -> Result<proto::ActionResult> {
        let request = proto::ExecuteRequest {
            action_digest: Some(action.to_proto()),
            skip_cache_lookup: true,
            ..Default::default()
        };
        let mut client = ExecutionClient::new(self.channel.clone());
        let mut stream = client.execute(request).await?.into_inner();
        while let Some(operation) = stream.message().await? {
            if !operation.done {
                continue;
            }
            return match operation.result {
                Some(operation::Result::Response(any)) => {
                    succeeded(proto::ExecuteResponse::decode(any.value.as_slice())?)
                }
                Some(operation::Result::Error(status)) => bail!("{}", status.message),
                None => bail!("an operation that is done without a result"),
            };
        }
        bail!("the stream ended without a result")
    }
}

fn succeeded(response: proto::ExecuteResponse) -> Result<proto::ActionResult> {
    let status = response.status.unwrap_or_default();
    ensure!(status.code == 0, "code {}: {}", status.code, status.message);
    let result = response.result.context("no result")?;
    ensure!(
        result.exit_code == 0,
        "exit code {}: {}",
        result.exit_code,
        String::from_utf8_lossy(&result.stderr_raw)
    );
    Ok(result)
}
