//! The blobs of an image on their way to a server: small ones in batches, others one by one, and none that the
//! server has.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use chain::visible;
use history::text::size;
use images::Destination;
use model::{BlobHasher, Digest};
use proto::build::bazel::remote::execution::v2::{
    BatchUpdateBlobsRequest, FindMissingBlobsRequest, batch_update_blobs_request,
    content_addressable_storage_client::ContentAddressableStorageClient,
};
use proto::google::bytestream::WriteRequest;
use proto::google::bytestream::byte_stream_client::ByteStreamClient;

use crate::output::Progress;
use crate::server::{self, Authorized, Server};

/// The largest file that is sent in a batch, in bytes: most of an image's are smaller.
const SMALL_BYTES: usize = 256 << 10;

/// The bytes of a batch. Servers take 4 MiB less what they need for digests.
const BATCH_BYTES: usize = 2 << 20;

/// The blobs of a batch: a server takes 25,000 with their digests, and an image has many empty files.
const BATCH_BLOBS: usize = 4_000;

/// The bytes that are read, hashed or sent at a time.
const PORTION_BYTES: usize = 256 << 10;

/// An upload.
pub(super) struct Upload<'a> {
    server: &'a Server,
    instance: String,
    cas: ContentAddressableStorageClient<Authorized>,
    streams: ByteStreamClient<Authorized>,
    /// Small blobs that are not sent yet.
    batch: Vec<(Digest, Bytes)>,
    batch_bytes: usize,
    files: u64,
    bytes: u64,
    progress: Progress,
}

impl<'a> Upload<'a> {
    pub(super) fn start(server: &'a Server, instance: &str) -> Self {
        Self {
            server,
            instance: instance.to_owned(),
            cas: ContentAddressableStorageClient::new(server.channel()),
            streams: ByteStreamClient::new(server.channel()),
            batch: Vec::new(),
            batch_bytes: 0,
            files: 0,
            bytes: 0,
            progress: Progress::start(),
        }
    }

    /// Clears the line of progress.
    pub(super) fn end(self) {
        self.progress.end();
    }

    fn put_small(&mut self, digest: Digest, content: Bytes) -> anyhow::Result<()> {
        self.batch_bytes += content.len();
        self.batch.push((digest, content));
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOBS {
            self.send_batch()?;
        }
        Ok(())
    }

    fn send_batch(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let missing = self.missing(batch.iter().map(|(digest, _)| *digest))?;
        let mut requests = Vec::new();
        for (digest, content) in batch {
            if missing.contains(&digest) {
                requests.push(batch_update_blobs_request::Request {
                    digest: Some(digest.to_proto()),
                    data: content,
                    ..Default::default()
                });
            }
        }
        if requests.is_empty() {
            return Ok(());
        }
        let request = BatchUpdateBlobsRequest {
            instance_name: self.instance.clone(),
            requests,
            digest_function: images::FUNCTION.to_proto(),
        };
        let answer = self.server.wait(self.cas.batch_update_blobs(request));
        let answer = answer.map_err(server::said("write-cas"))?.into_inner();
        let statuses = answer.responses.into_iter().filter_map(|response| response.status);
        for status in statuses {
            ensure!(status.code == 0, "the server refused a file: {}", visible(&status.message));
        }
        Ok(())
    }

    /// Those of some blobs that the server does not have.
    fn missing(
        &mut self,
        digests: impl Iterator<Item = Digest>,
    ) -> anyhow::Result<HashSet<Digest>> {
        let request = FindMissingBlobsRequest {
            instance_name: self.instance.clone(),
            blob_digests: digests.map(|digest| digest.to_proto()).collect(),
            digest_function: images::FUNCTION.to_proto(),
        };
        let answer = self.server.wait(self.cas.find_missing_blobs(request));
        let missing = answer.map_err(server::said("write-cas"))?.into_inner();
        let digest = |digest| Digest::from_proto_field(Some(&digest), images::FUNCTION);
        let missing =
            missing.missing_blob_digests.into_iter().map(digest).collect::<Result<_, _>>();
        missing.context("the server named a blob that it was not asked for")
    }

    /// Sends a file that is too large for a batch.
    fn put_large(&mut self, digest: Digest, file: File) -> anyhow::Result<()> {
        if self.missing([digest].into_iter())?.is_empty() {
            return Ok(());
        }
        let failure = Arc::new(OnceLock::new());
        let messages = Messages {
            name: self.resource_name(&digest),
            file,
            offset: 0,
            left: digest.size_bytes(),
            failure: Arc::clone(&failure),
        };
        let call = self.streams.write(tokio_stream::iter(messages));
        let answer = self.server.wait(call);
        if let Some(error) = failure.get() {
            bail!("reading an unpacked file: {error}");
        }
        let committed = answer.map_err(server::said("write-cas"))?.into_inner().committed_size;
        let is_whole = u64::try_from(committed).is_ok_and(|bytes| bytes == digest.size_bytes());
        ensure!(is_whole, "the server stored {committed} bytes of a file that has {digest}");
        Ok(())
    }

    fn resource_name(&self, digest: &Digest) -> String {
        let instance =
            if self.instance.is_empty() { String::new() } else { format!("{}/", self.instance) };
        // The API wants something that no other upload of the blob has at this time.
        format!("{instance}uploads/image-{}/blobs/{digest}", std::process::id())
    }
}

impl Destination for Upload<'_> {
    fn put_file(&mut self, content: &mut dyn Read) -> io::Result<Digest> {
        let mut start = Vec::new();
        Read::take(&mut *content, SMALL_BYTES as u64).read_to_end(&mut start)?;
        let digest = if start.len() < SMALL_BYTES {
            let digest = Digest::of(images::FUNCTION, &start);
            self.put_small(digest, start.into()).map_err(io::Error::other)?;
            digest
        } else {
            let (digest, file) = spool(&start, content)?;
            self.put_large(digest, file).map_err(io::Error::other)?;
            digest
        };
        self.files += 1;
        self.bytes += digest.size_bytes();
        self.progress.show(&format!("{} files ({})", self.files, size(self.bytes)));
        Ok(digest)
    }

    fn put_directory(&mut self, digest: &Digest, message: Bytes) -> io::Result<()> {
        self.put_small(*digest, message).map_err(io::Error::other)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.send_batch().map_err(io::Error::other)
    }
}

/// Writes a file to a temporary one, for its digest must be known before it is sent.
fn spool(start: &[u8], rest: &mut dyn Read) -> io::Result<(Digest, File)> {
    let mut file = tempfile::tempfile()?;
    let mut hasher = BlobHasher::new(images::FUNCTION);
    let mut portion = vec![0; PORTION_BYTES];
    hasher.update(start);
    file.write_all(start)?;
    loop {
        match rest.read(&mut portion)? {
            0 => break,
            read => {
                hasher.update(&portion[..read]);
                file.write_all(&portion[..read])?;
            }
        }
    }
    file.rewind()?;
    Ok((hasher.finish(), file))
}

/// The messages of one upload; they end early where the file can't be read.
struct Messages {
    name: String,
    file: File,
    offset: u64,
    left: u64,
    failure: Arc<OnceLock<io::Error>>,
}

impl Iterator for Messages {
    type Item = WriteRequest;

    fn next(&mut self) -> Option<WriteRequest> {
        if self.left == 0 {
            return None;
        }
        let length = self.left.min(PORTION_BYTES as u64);
        let mut data = vec![0; length as usize];
        if let Err(error) = self.file.read_exact(&mut data) {
            // There is one failure at most: it ends the messages.
            let _ = self.failure.set(error);
            self.left = 0;
            return None;
        }
        let write_offset = i64::try_from(self.offset).unwrap_or(i64::MAX);
        self.offset += length;
        self.left -= length;
        Some(WriteRequest {
            // Of all messages the first one must have it.
            resource_name: std::mem::take(&mut self.name),
            write_offset,
            finish_write: self.left == 0,
            data: data.into(),
        })
    }
}
