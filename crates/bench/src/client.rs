//! A connection to a server, and the few calls that the loads need.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use model::Digest;
use model::proto::google::longrunning::operation;
use model::proto::{
    self, Message, action_cache_client::ActionCacheClient,
    content_addressable_storage_client::ContentAddressableStorageClient,
    execution_client::ExecutionClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::content::Blob;
use crate::stream::{self, upload_id};

/// The bound on a batch in bytes: with its framing it stays below gRPC's default of 4 MiB.
const BATCH_BYTES: usize = 3 << 20;
/// The largest HTTP/2 frame that is taken: with the smallest, 16 KiB, most of a
/// download would be work per frame.
const FRAME_BYTES: u32 = 256 << 10;

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
            .max_frame_size(FRAME_BYTES)
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
            data: blob.bytes.clone(),
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
        stream::write(self.channel.clone(), blob).await
    }

    /// Reads one blob through ByteStream; returns how many bytes came.
    pub(crate) async fn read(&self, digest: &Digest) -> Result<usize> {
        stream::read(self.channel.clone(), digest).await
    }

    /// Uploads the compressed form of a blob.
    pub(crate) async fn write_compressed(
        &self,
        compressor: &str,
        digest: &Digest,
        packed: Bytes,
    ) -> Result<()> {
        let name = format!("uploads/{}/{}", upload_id(), compressed_name(compressor, digest));
        stream::write_bytes(self.channel.clone(), name, packed).await.map(drop)
    }

    /// Reads a blob in compressed form.
    pub(crate) async fn read_compressed(
        &self,
        compressor: &str,
        digest: &Digest,
    ) -> Result<Vec<u8>> {
        let mut packed = Vec::new();
        let name = compressed_name(compressor, digest);
        stream::read_each(self.channel.clone(), name, |data| packed.extend_from_slice(&data))
            .await?;
        Ok(packed)
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
        let mut last = None;
        // To its end, as clients do: a stream that is dropped before is a stream that is reset.
        while let Some(operation) = stream.message().await? {
            last = Some(operation);
        }
        match last.filter(|operation| operation.done).and_then(|operation| operation.result) {
            Some(operation::Result::Response(any)) => {
                succeeded(proto::ExecuteResponse::decode(any.value.as_slice())?)
            }
            Some(operation::Result::Error(status)) => bail!("{}", status.message),
            None => bail!("the stream ended without a result"),
        }
    }
}

fn compressed_name(compressor: &str, digest: &Digest) -> String {
    let function = digest.function().resource_name_segment();
    let function = function.map(|function| format!("{function}/")).unwrap_or_default();
    format!("compressed-blobs/{compressor}/{function}{}/{}", digest.hex(), digest.size_bytes())
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
