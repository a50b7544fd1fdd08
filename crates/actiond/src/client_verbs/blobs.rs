//! Blobs of the server, as the verbs read them.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use history::compare::Blobs;
use model::{Digest, Directory, Entry, proto};
use proto::Message;
use proto::google::bytestream::ReadRequest;
use proto::google::bytestream::byte_stream_client::ByteStreamClient;
use tonic::Code;

use crate::server::{self, Authorized, Server};

/// The largest blob that is read into memory, to be shown or compared.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// The most directories of one tree. A tree of a real build has thousands.
const DIRECTORIES_MAX: usize = 1_000_000;

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
    pub(crate) fn stream(
        &mut self,
        digest: &Digest,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        if digest.size_bytes() == 0 {
            return Ok(true);
        }
        let segment = digest.function().resource_name_segment();
        let function = segment.map(|name| format!("{name}/")).unwrap_or_default();
        let resource_name = format!("blobs/{function}{digest}");
        let request = ReadRequest { resource_name, ..ReadRequest::default() };
        let said = server::said("read");
        self.server.wait(async {
            let mut pieces = match self.client.read(request).await {
                Ok(pieces) => pieces.into_inner(),
                Err(status) if status.code() == Code::NotFound => return Ok(false),
                Err(status) => return Err(said(status)),
            };
            loop {
                match pieces.message().await {
                    Ok(Some(piece)) => take(&piece.data)?,
                    Ok(None) => return Ok(true),
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
    pub(crate) fn message<M: Message + Default>(
        &mut self,
        digest: &Digest,
        what: &str,
    ) -> anyhow::Result<M> {
        let bytes = self.blob(digest).with_context(|| format!("reading the {what}"))?;
        M::decode(bytes).with_context(|| format!("{digest} is no {what}"))
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

    /// Hands every entry below a directory to `take`, with its path: a directory before what is in it.
    pub(crate) fn walk(
        &mut self,
        root: Digest,
        mut take: impl FnMut(&mut Self, &str, &Entry<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut waiting = vec![(String::new(), root)];
        // Equal directories are read once, and not kept if they are large.
        let mut known: BTreeMap<String, Directory> = BTreeMap::new();
        let mut count = 0;
        while let Some((path, digest)) = waiting.pop() {
            count += 1;
            if count > DIRECTORIES_MAX {
                bail!("the tree has more than {DIRECTORIES_MAX} directories");
            }
            let key = digest.to_string();
            let directory = match known.get(&key) {
                Some(directory) => directory.clone(),
                None => {
                    let directory = self.directory(&digest)?;
                    if known.len() < KNOWN_MAX {
                        known.insert(key, directory.clone());
                    }
                    directory
                }
            };
            let mut below = Vec::new();
            for entry in directory.entries() {
                let path = joined(&path, entry.name());
                take(self, &path, &entry)?;
                if let Entry::Directory { digest, .. } = entry {
                    below.push((path, digest));
                }
            }
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }
}

/// Directories of one tree that are kept in case that they come again.
const KNOWN_MAX: usize = 1000;

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
        paths.chain(older.into_iter().flatten()).cloned().collect()
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
