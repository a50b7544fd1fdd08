//! From a layout to a tree in the store.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::result::TreeBuilder;
use model::{Chain, Digest, DigestFunction, proto};
use store::{Store, StoreError};

use crate::layers::{Files, Node};
use crate::layout::{Layout, LayoutError};
use crate::record::{self, ImageName, Record, RecordError};

/// The digest function for files in layers, so that the same file is the same blob in every image.
const FUNCTION: DigestFunction = DigestFunction::Sha256;

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
    Store(#[from] StoreError),
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
/// of the same name is replaced.
///
/// # Errors
/// See [`ImportError`].
pub fn import(store: &Store, name: &ImageName, path: &Path) -> Result<Imported, ImportError> {
    let layout = Layout::open(path)?;
    let manifest = layout.manifest()?;
    let mut files = Files::default();
    for descriptor in &manifest.layers {
        tracing::info!(digest = descriptor.digest, media_type = descriptor.media_type, "layer");
        let blob = layout.blob(descriptor)?;
        files.apply(blob, &mut |content| put(store, content)).map_err(|source| {
            let digest = descriptor.digest.clone();
            ImportError::Layer { path: path.to_owned(), digest, source }
        })?;
    }
    let entries = files.public();
    let root = put_tree(store, path, &entries)?;
    let record = Record { name: name.clone(), root, manifest: manifest.digest };
    record::save(store.path(), &record)?;
    Ok(Imported { record, entry_count: entries.len() })
}

fn put(store: &Store, content: &mut dyn Read) -> io::Result<Digest> {
    let mut writer = store.cas().writer(FUNCTION, None);
    let mut portion = vec![0; PORTION_BYTES];
    loop {
        match content.read(&mut portion)? {
            0 => return writer.commit().map_err(io::Error::other),
            read => writer.write(&portion[..read]).map_err(io::Error::other)?,
        }
    }
}

/// Stores the directories, and gives the root's digest.
fn put_tree(store: &Store, path: &Path, entries: &[(&str, &Node)]) -> Result<Digest, ImportError> {
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
        store.cas().put_expected(digest, message)?;
    }
    Ok(tree.root_digest())
}
