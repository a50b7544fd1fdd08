//! Blobs of the server, as the verbs read them.

use std::collections::HashSet;

use anyhow::{Context as _, bail, ensure};
use bytes::{Bytes, BytesMut};
use history::compare::Blobs;
use model::{Digest, Directory, proto};
use proto::google::bytestream::ReadRequest;
use proto::google::bytestream::byte_stream_client::ByteStreamClient;
use proto::{Message, Shaped, decoded_bytes};
use tonic::Code;

use crate::server::{self, Authorized, Server};

/// The largest blob that is read into memory: the largest Directory or Tree that the server takes.
pub(crate) const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// The most memory for a decoded message, which can take a hundred times what its bytes take.
const DECODED_BYTES_MAX: u64 = 256 << 20;

/// Reads blobs from a server.
pub(crate) struct Reader<'a> {
    server: &'a Server,
    client: ByteStreamClient<Authorized>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(server: &'a Server) -> Self {
        Self { server, client: ByteStreamClient::new(server.channel()) }
    }

    /// Hands a blob to `take`, piece by piece. Returns whether there is such a blob.
    ///
    /// Fails where the server sends more or fewer bytes than the blob has.
    pub(crate) fn stream(
        &mut self,
        digest: &Digest,
        take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        self.stream_up_to(digest, digest.size_bytes(), take)
    }

    /// The first bytes of a blob, `bytes_max` at most. `None` if it is gone.
    pub(crate) fn beginning(
        &mut self,
        digest: &Digest,
        bytes_max: u64,
    ) -> anyhow::Result<Option<Bytes>> {
        let mut bytes = BytesMut::new();
        let size_bytes = digest.size_bytes().min(bytes_max);
        let is_there = self.stream_up_to(digest, size_bytes, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(is_there.then(|| bytes.freeze()))
    }

    fn stream_up_to(
        &mut self,
        digest: &Digest,
        size_bytes: u64,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        if size_bytes == 0 {
            return Ok(true);
        }
        let segment = digest.function().resource_name_segment();
        let function = segment.map(|name| format!("{name}/")).unwrap_or_default();
        let resource_name = format!("blobs/{function}{digest}");
        let read_limit = if size_bytes < digest.size_bytes() { size_bytes } else { 0 };
        let read_limit = i64::try_from(read_limit).unwrap_or_default();
        let request = ReadRequest { resource_name, read_limit, ..ReadRequest::default() };
        let said = server::said("read");
        self.server.wait(async {
            let mut pieces = match self.client.read(request).await {
                Ok(pieces) => pieces.into_inner(),
                Err(status) if status.code() == Code::NotFound => return Ok(false),
                Err(status) => return Err(said(status)),
            };
            let mut left = size_bytes;
            loop {
                match pieces.message().await {
                    Ok(Some(piece)) => {
                        let rest = left.checked_sub(piece.data.len() as u64);
                        left =
                            rest.with_context(|| format!("the server sent more than {digest}"))?;
                        take(&piece.data)?;
                    }
                    Ok(None) => {
                        ensure!(left == 0, "the server sent only a part of {digest}");
                        return Ok(true);
                    }
                    Err(status) if status.code() == Code::NotFound => return Ok(false),
                    Err(status) => return Err(said(status)),
                }
            }
        })
    }

    /// The blob, or an error that says that it is gone.
    pub(crate) fn blob(&mut self, digest: &Digest) -> anyhow::Result<Bytes> {
        self.read(digest)?.with_context(|| gone(digest))
    }

    /// A message that is stored as a blob.
    pub(crate) fn message<M: Message + Default + Shaped>(
        &mut self,
        digest: &Digest,
        what: &str,
    ) -> anyhow::Result<M> {
        let bytes = self.blob(digest).with_context(|| format!("reading the {what}"))?;
        decode(&bytes).with_context(|| format!("{digest} is no {what}"))
    }

    /// An Action and its Command.
    pub(crate) fn action(&mut self, digest: &Digest) -> anyhow::Result<ReadAction> {
        let action: proto::Action = self.message(digest, "Action")?;
        let of = |field: &Option<proto::Digest>, name: &str| {
            let read = Digest::from_proto_field(field.as_ref(), digest.function());
            read.with_context(|| format!("the {name} of {digest}, which may be no Action"))
        };
        let command_digest = of(&action.command_digest, "command_digest")?;
        let input_root = of(&action.input_root_digest, "input_root_digest")?;
        let command = self.message(&command_digest, "Command")?;
        Ok(ReadAction { action, command, input_root })
    }

    /// A directory of an input tree.
    pub(crate) fn directory(&mut self, digest: &Digest) -> anyhow::Result<Directory> {
        let bytes = self.blob(digest)?;
        let directory = Directory::parse(bytes, digest.function());
        directory.with_context(|| format!("{digest} is no Directory"))
    }
}

/// Decodes a message, if that takes a bounded amount of memory.
pub(crate) fn decode<M: Message + Default + Shaped>(bytes: &Bytes) -> anyhow::Result<M> {
    let takes = decoded_bytes::<M>(bytes, DECODED_BYTES_MAX);
    ensure!(takes <= DECODED_BYTES_MAX, "it takes more than {DECODED_BYTES_MAX} bytes of memory");
    Ok(M::decode(bytes.clone())?)
}

impl Blobs for Reader<'_> {
    type Error = anyhow::Error;

    fn read(&mut self, digest: &Digest) -> anyhow::Result<Option<Bytes>> {
        if digest.size_bytes() > MEMORY_BYTES_MAX {
            bail!("{digest} is larger than {MEMORY_BYTES_MAX} bytes; `cat` writes it out");
        }
        let mut bytes = BytesMut::new();
        let is_there = self.stream(digest, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(is_there.then(|| bytes.freeze()))
    }
}

/// An Action with its Command.
pub(crate) struct ReadAction {
    pub(crate) action: proto::Action,
    pub(crate) command: proto::Command,
    pub(crate) input_root: Digest,
}

impl ReadAction {
    /// The platform: that of the Action, or of the Command where clients of older versions say it.
    pub(crate) fn platform(&self) -> Vec<(String, String)> {
        #[allow(deprecated, reason = "clients of older versions of the API say it there")]
        let platform = self.action.platform.as_ref().or(self.command.platform.as_ref());
        let properties = platform.iter().flat_map(|platform| &platform.properties);
        properties.map(|property| (property.name.clone(), property.value.clone())).collect()
    }

    /// The declared outputs, of all versions of the API.
    pub(crate) fn outputs(&self) -> Vec<String> {
        #[allow(deprecated, reason = "clients of older versions of the API say it there")]
        let older = [&self.command.output_files, &self.command.output_directories];
        let paths = self.command.output_paths.iter();
        let mut seen = HashSet::new();
        // Clients for several versions of the API name them twice.
        let paths = paths.chain(older.into_iter().flatten()).filter(|path| seen.insert(*path));
        paths.cloned().collect()
    }
}

/// The path of an entry in a directory.
pub(crate) fn joined(directory: &str, name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    if directory.is_empty() { name.into_owned() } else { format!("{directory}/{name}") }
}

/// Words about a blob that is not there.
pub(crate) fn gone(digest: &Digest) -> String {
    format!(
        "the server has no blob {}:{digest}; it was evicted, or never uploaded. A build that needs it uploads \
         it again",
        digest.function()
    )
}
