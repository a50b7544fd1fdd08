//! Results: which blobs one names, and the messages that output directories are stored as.
//!
//! A result itself is a [`proto::ActionResult`]; it has no type of its own, because nothing in the
//! house decides by its fields once it is made.

use std::collections::{HashMap, HashSet};

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::encode_varint;

use crate::digest::Digest;
use crate::digest_error::DigestError;
use crate::digest_function::DigestFunction;
use crate::directory::{Directory, DirectoryError, Entry};
use crate::proto;
use crate::wire::{Reader, Value, WireError};

/// The blobs that an `ActionResult` names. Each list is sorted, names nothing twice, and leaves
/// out the empty blob, which is always there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Files, and the captured streams.
    pub blobs: Vec<Digest>,
    /// `Tree` messages; the files in them are found with [`tree_digests`].
    pub trees: Vec<Digest>,
    /// The root `Directory` messages of output directories; what hangs below one is the same as in
    /// the `Tree` of that output, if there is one.
    pub root_directories: Vec<Digest>,
}

/// The digests that a `Tree` message has in it. Each list is sorted, names nothing twice, and
/// leaves out the empty blob.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeDigests {
    /// The files, each of which must be in the store for the tree to be of use.
    pub files: Vec<Digest>,
    /// The child directories. They are inside the message; as blobs of their own they are only
    /// needed where a root directory is named too.
    pub directories: Vec<Digest>,
}

/// An error of a blob that is not a `Tree` message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// It is 4 GiB or larger.
    #[error("the tree takes {0} bytes")]
    TooLarge(usize),
    /// It is not a protobuf message.
    #[error("the tree is not a protobuf message")]
    Wire(#[from] WireError),
    /// A known field has the wire type of something else.
    #[error("field {0} of the tree has the wrong type")]
    FieldType(u32),
    /// It has no root directory, or several.
    #[error("the tree has {0} root directories")]
    Roots(usize),
    /// It has more directories than its reader takes.
    #[error("the tree has more than {0} different directories")]
    Directories(usize),
    /// One of its directories is not canonical.
    #[error("a directory of the tree")]
    Directory(#[from] DirectoryError),
}

/// Lists every blob that `result` names, by digests of `function`; a field that must have a digest
/// and has none is an error.
pub fn referenced_digests(
    result: &proto::ActionResult,
    function: DigestFunction,
) -> Result<References, DigestError> {
    let read = |digest: Option<&proto::Digest>| Digest::from_proto_field(digest, function);
    let mut references = References::default();
    for file in &result.output_files {
        references.blobs.push(read(file.digest.as_ref())?);
    }
    for stream in [&result.stdout_digest, &result.stderr_digest] {
        if stream.is_some() {
            references.blobs.push(read(stream.as_ref())?);
        }
    }
    for directory in &result.output_directories {
        let (tree, root) = (&directory.tree_digest, &directory.root_directory_digest);
        if tree.is_some() || root.is_none() {
            references.trees.push(read(tree.as_ref())?);
        }
        if root.is_some() {
            references.root_directories.push(read(root.as_ref())?);
        }
    }
    references.tidy();
    Ok(references)
}

impl References {
    /// Sorts each list and leaves out what it has twice, and the empty blob.
    pub(crate) fn tidy(&mut self) {
        tidy(&mut self.blobs);
        tidy(&mut self.trees);
        tidy(&mut self.root_directories);
    }
}

/// The largest `Tree` message that a cached result may name: as large as the largest Directory. A
/// result with a larger one is never served, and its tree is not read.
pub const MAX_TREE_BYTES: u64 = 64 << 20;

/// The digests of the directories that are in a `Tree` message, the root included.
///
/// # Errors
/// [`TreeError::Directories`] when more than `directories_max` of them differ: a directory of a few bytes has a
/// digest of 80 in memory.
pub fn tree_directories(
    message: &Bytes,
    function: DigestFunction,
    directories_max: usize,
) -> Result<HashSet<Digest>, TreeError> {
    let mut directories = HashSet::new();
    each_directory(message, |_, directory| {
        directories.insert(Digest::of(function, &directory));
        check_count(directories.len(), directories_max)
    })?;
    Ok(directories)
}

/// The directories of a `Tree` message, as they are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeMessages {
    /// The digest of the root.
    pub root: Digest,
    /// The `Directory` messages by their digests, the root's too: slices of the `Tree`.
    pub directories: HashMap<Digest, Bytes>,
}

/// Takes a `Tree` message apart, without a look into its directories.
///
/// # Errors
/// [`TreeError::Directories`] when more than `directories_max` directories differ, and others when it is no `Tree`.
pub fn tree_messages(
    message: &Bytes,
    function: DigestFunction,
    directories_max: usize,
) -> Result<TreeMessages, TreeError> {
    let mut directories = HashMap::new();
    let (mut root, mut roots) = (None, 0);
    each_directory(message, |is_root, directory| {
        let digest = Digest::of(function, &directory);
        if is_root {
            root = Some(digest);
            roots += 1;
        }
        directories.insert(digest, directory);
        check_count(directories.len(), directories_max)
    })?;
    match root {
        Some(root) if roots == 1 => Ok(TreeMessages { root, directories }),
        _ => Err(TreeError::Roots(roots)),
    }
}

fn check_count(directories: usize, directories_max: usize) -> Result<(), TreeError> {
    if directories > directories_max {
        return Err(TreeError::Directories(directories_max));
    }
    Ok(())
}

/// Hands each `Directory` message of a `Tree` to `take`, with whether it is the root.
fn each_directory(
    message: &Bytes,
    mut take: impl FnMut(bool, Bytes) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    if u32::try_from(message.len()).is_err() {
        return Err(TreeError::TooLarge(message.len()));
    }
    let mut reader = Reader::new(message);
    while let Some((field, value)) = reader.next_field()? {
        match (field, value) {
            (1 | 2, Value::Bytes(span)) => take(field == 1, message.slice_ref(span.of(message)))?,
            (1 | 2, _) => return Err(TreeError::FieldType(field)),
            _ => {}
        }
    }
    Ok(())
}

/// Lists every digest inside a `Tree` message.
pub fn tree_digests(message: &Bytes, function: DigestFunction) -> Result<TreeDigests, TreeError> {
    let mut digests = TreeDigests::default();
    let mut roots = 0;
    each_directory(message, |is_root, directory| {
        roots += usize::from(is_root);
        digests.extend(&Directory::parse(directory, function)?);
        Ok(())
    })?;
    if roots != 1 {
        return Err(TreeError::Roots(roots));
    }
    tidy(&mut digests.files);
    tidy(&mut digests.directories);
    Ok(digests)
}

impl TreeDigests {
    /// The memory that the digests in a `Tree` message of that size take at most.
    pub fn bytes_max(size_bytes: u64) -> u64 {
        // An entry with a digest has a name, 32 hexadecimal digits at least, and eight bytes of keys and lengths. A
        // growing list may have room for twice its digests.
        2 * size_bytes / 41 * size_of::<Digest>() as u64
    }

    fn extend(&mut self, directory: &Directory) {
        for entry in directory.entries() {
            match entry {
                Entry::File { digest, .. } => self.files.push(digest),
                Entry::Directory { digest, .. } => self.directories.push(digest),
                Entry::Symlink { .. } => {}
            }
        }
    }
}

fn tidy(digests: &mut Vec<Digest>) {
    digests.retain(|digest| !digest.is_empty_blob());
    digests.sort_unstable();
    digests.dedup();
}

/// Builds the messages of one output directory, from the deepest directories up.
///
/// A directory is added after those it contains, so the reverse of the order of adding has every
/// parent before its children, which is what `is_topologically_sorted` promises; equal directories
/// are kept once.
#[derive(Debug)]
pub struct TreeBuilder {
    function: DigestFunction,
    /// The directories in the order of their first adding.
    directories: Vec<(Digest, Bytes)>,
    known: HashSet<Digest>,
}

/// A directory names a child that was not added before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the output directory's child {name:?} ({digest:?}) was not added before it")]
pub struct UnknownChild {
    /// The name of the child.
    pub name: String,
    /// The digest that its parent has for it.
    pub digest: Option<proto::Digest>,
}

/// The messages of an output directory, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltTree {
    /// The digest of the `Tree` message.
    pub tree_digest: Digest,
    /// The `Tree` message, encoded as REAPI's `is_topologically_sorted` demands.
    pub tree: Bytes,
    /// Every `Directory` message, parents first; the first is the root.
    pub directories: Vec<(Digest, Bytes)>,
}

impl TreeBuilder {
    /// A builder that makes digests of `function`.
    pub fn new(function: DigestFunction) -> Self {
        Self { function, directories: Vec::new(), known: HashSet::new() }
    }

    /// Adds a directory whose child directories have all been added, and gives its digest. The
    /// lists need not be sorted.
    pub fn add(&mut self, directory: proto::Directory) -> Result<Digest, UnknownChild> {
        self.check_children(&directory)?;
        let message = encode_canonical(directory);
        let digest = Digest::of(self.function, &message);
        if self.known.insert(digest) {
            self.directories.push((digest, message));
        }
        Ok(digest)
    }

    /// Adds the root, whose descendants must be all that was added, and encodes the whole.
    pub fn finish(mut self, root: proto::Directory) -> Result<BuiltTree, UnknownChild> {
        self.add(root)?;
        self.directories.reverse();
        let size = self.directories.iter().map(|(_, message)| message.len() + 11);
        let mut tree = Vec::with_capacity(size.sum());
        for (index, (_, message)) in self.directories.iter().enumerate() {
            // The root is field 1 of `Tree`, the children are field 2; both length-delimited.
            tree.put_u8(if index == 0 { 0x0a } else { 0x12 });
            encode_varint(message.len() as u64, &mut tree);
            tree.put_slice(message);
        }
        Ok(BuiltTree {
            tree_digest: Digest::of(self.function, &tree),
            tree: tree.into(),
            directories: self.directories,
        })
    }

    fn check_children(&self, directory: &proto::Directory) -> Result<(), UnknownChild> {
        let is_known = |child: &proto::DirectoryNode| {
            Digest::from_proto_field(child.digest.as_ref(), self.function)
                .is_ok_and(|digest| self.known.contains(&digest))
        };
        match directory.directories.iter().find(|child| !is_known(child)) {
            Some(child) => {
                Err(UnknownChild { name: child.name.clone(), digest: child.digest.clone() })
            }
            None => Ok(()),
        }
    }
}

impl BuiltTree {
    /// The digest of the root's `Directory` message.
    pub fn root_digest(&self) -> Digest {
        self.directories[0].0
    }

    /// The entry of an `ActionResult` for this directory; `path` is the output as the client declared
    /// it.
    pub fn output_directory(&self, path: &str) -> proto::OutputDirectory {
        proto::OutputDirectory {
            path: path.to_owned(),
            tree_digest: Some(self.tree_digest.to_proto()),
            is_topologically_sorted: true,
            root_directory_digest: Some(self.root_digest().to_proto()),
        }
    }
}

/// The canonical form of a directory: the lists sorted by the bytes of the names, the fields in the
/// order of their numbers.
fn encode_canonical(mut directory: proto::Directory) -> Bytes {
    directory.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    directory.directories.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    directory.symlinks.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    directory.encode_to_vec().into()
}
