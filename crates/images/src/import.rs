//! From a layout to a tree in the store.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::result::TreeBuilder;
use model::{Chain, Digest, DigestFunction, proto};
use store::Store;

use crate::destination::Destination;
use crate::layers::{Files, Node};
use crate::layout::{Layout, LayoutError};
use crate::record::{self, ImageName, Record, RecordError};

/// The digest function of the blobs that images are made of, so that the same file is the same blob in every
/// image.
pub const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Bytes that go into the store at a time.
const PORTION_BYTES: usize = 256 << 10;

/// The reason why an image was not imported. Nothing refers to the blobs that were stored by then, so the
/// store evicts them.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The layout can't be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A layer is damaged, or a file of it can't be stored.
    #[error("cannot import layer {digest} of {}", path.display())]
    Layer {
        /// The layout.
        path: PathBuf,
        /// The layer.
        digest: String,
        /// The problem.
        source: io::Error,
    },
    /// A directory can't be stored.
    #[error("storing a directory of the image")]
    Store(#[source] io::Error),
    /// The image has a file of a name or an order that no tree can have.
    #[error("the files of {} make no tree: {problem}", path.display())]
    Tree {
        /// The layout.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The image can't be kept.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// An imported image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its record.
    pub record: Record,
    /// The number of its files, directories and links.
    pub entry_count: usize,
}

/// Imports the OCI image layout at `path`, a directory or a tar archive, under that name. An image
/// of the same name is replaced. For a store that no server has: a server that runs would not show the image.
///
/// # Errors
/// See [`ImportError`].
pub fn import(store: &Store, name: &ImageName, path: &Path) -> Result<Imported, ImportError> {
    let imported = unpack(&mut Here(store), name, path)?;
    record::save(store.path(), &imported.record)?;
    Ok(imported)
}

/// Unpacks the OCI image layout at `path` into blobs, which go to `destination`, and returns what the
/// image's record has to say.
///
/// # Errors
/// See [`ImportError`].
pub fn unpack(
    destination: &mut dyn Destination,
    name: &ImageName,
    path: &Path,
) -> Result<Imported, ImportError> {
    let layout = Layout::open(path)?;
    let manifest = layout.manifest()?;
    let mut files = Files::default();
    for descriptor in &manifest.layers {
        tracing::info!(digest = descriptor.digest, media_type = descriptor.media_type, "layer");
        let blob = layout.blob(descriptor)?;
        files.apply(blob, &mut |content| destination.put_file(content)).map_err(|source| {
            let digest = descriptor.digest.clone();
            ImportError::Layer { path: path.to_owned(), digest, source }
        })?;
    }
    let entries = files.public();
    let root = put_tree(destination, path, &entries)?;
    destination.finish().map_err(ImportError::Store)?;
    let record = Record { name: name.clone(), root, manifest: manifest.digest };
    Ok(Imported { record, entry_count: entries.len() })
}

/// A store that this process has.
struct Here<'a>(&'a Store);

impl Destination for Here<'_> {
    fn put_file(&mut self, content: &mut dyn Read) -> io::Result<Digest> {
        let mut writer = self.0.cas().writer(FUNCTION, None);
        let mut portion = vec![0; PORTION_BYTES];
        loop {
            match content.read(&mut portion)? {
                0 => return writer.commit().map_err(io::Error::other),
                read => writer.write(&portion[..read]).map_err(io::Error::other)?,
            }
        }
    }

    fn put_directory(&mut self, digest: &Digest, message: Bytes) -> io::Result<()> {
        self.0.cas().put_expected(digest, &message).map_err(io::Error::other)
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Stores the directories, and gives the root's digest.
fn put_tree(
    destination: &mut dyn Destination,
    path: &Path,
    entries: &[(&str, &Node)],
) -> Result<Digest, ImportError> {
    let malformed = |problem: String| ImportError::Tree { path: path.to_owned(), problem };
    let mut directories: HashMap<&str, proto::Directory> = HashMap::new();
    let mut tree = TreeBuilder::new(FUNCTION);
    // A directory comes before what is in it, so from the end every directory is complete when it
    // is come to.
    for (path, node) in entries.iter().rev() {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let own = directories.remove(path).unwrap_or_default();
        let directory = directories.entry(parent).or_default();
        let name = name.to_owned();
        match node {
            Node::Directory => {
                let digest = tree.add(own).map_err(|error| malformed(Chain(&error).to_string()))?;
                let digest = Some(digest.to_proto());
                directory.directories.push(proto::DirectoryNode { name, digest });
            }
            Node::File { digest, executable } => directory.files.push(proto::FileNode {
                name,
                digest: Some(digest.to_proto()),
                is_executable: *executable,
                ..proto::FileNode::default()
            }),
            Node::Symlink(target) => directory.symlinks.push(proto::SymlinkNode {
                name,
                target: target.clone(),
                ..proto::SymlinkNode::default()
            }),
        }
    }
    let root = directories.remove("").unwrap_or_default();
    let tree = tree.finish(root).map_err(|error| malformed(Chain(&error).to_string()))?;
    for (digest, message) in &tree.directories {
        model::Directory::parse(message.clone(), FUNCTION)
            .map_err(|error| malformed(Chain(&error).to_string()))?;
        destination.put_directory(digest, message.clone()).map_err(ImportError::Store)?;
    }
    Ok(tree.root_digest())
}
