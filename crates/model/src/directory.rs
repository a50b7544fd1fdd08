//! One directory of an input tree, parsed from the REAPI `Directory` message it is stored as.
//!
//! The message is kept as it came and the entries point into it, so a directory costs one
//! allocation of 56 bytes an entry, whatever its names. A message that the parser accepts is canonical:
//! a path has one meaning, and two directories that look the same have one digest.
//!
//! Few clients send node properties, so those that there are lie in a table beside the entries.

use bytes::Bytes;

use crate::digest::Digest;
use crate::digest_function::DigestFunction;
use crate::hash_bytes::HashBytes;
use crate::node_properties::NodeProperties;
use crate::wire::Span;

mod parser;

pub use parser::DirectoryError;

/// The longest name of an entry in bytes, Linux's `NAME_MAX`.
pub const MAX_NAME_BYTES: usize = 255;
/// The longest target of a symlink in bytes; with its NUL it fills `PATH_MAX`.
pub const MAX_SYMLINK_TARGET_BYTES: usize = 4095;

/// One entry of a [`Directory`]. Names and targets are UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A regular file.
    File {
        /// Its name in the directory.
        name: &'a [u8],
        /// The blob that is its content.
        digest: Digest,
        /// Whether it can be executed.
        executable: bool,
    },
    /// A directory below.
    Directory {
        /// Its name in the directory.
        name: &'a [u8],
        /// The blob that is its `Directory` message.
        digest: Digest,
    },
    /// A symbolic link.
    Symlink {
        /// Its name in the directory.
        name: &'a [u8],
        /// Its target: relative or absolute, not checked against anything.
        target: &'a [u8],
    },
}

impl<'a> Entry<'a> {
    /// The entry's name.
    pub fn name(&self) -> &'a [u8] {
        match self {
            Self::File { name, .. } | Self::Directory { name, .. } | Self::Symlink { name, .. } => {
                name
            }
        }
    }
}

/// A parsed, canonical REAPI `Directory`.
#[derive(Debug, Clone)]
pub struct Directory {
    message: Bytes,
    function: DigestFunction,
    /// Sorted by name.
    nodes: Vec<Node>,
    files: u32,
    directories: u32,
    /// `None` if nothing in the message has node properties.
    properties: Option<Box<Properties>>,
}

/// The node properties in a directory.
#[derive(Debug, Clone, Default)]
struct Properties {
    /// Those of the directory itself.
    own: NodeProperties,
    /// [`SUBTREE_READ_ONLY`](crate::SUBTREE_READ_ONLY) of the directory.
    subtree_read_only: Option<bool>,
    /// Those of files and symlinks, by the start of the entry's name in the message, sorted.
    of_nodes: Vec<(u32, NodeProperties)>,
    /// The name of a property that this server does not know.
    unknown: Option<Span>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    name: Span,
    content: Content,
}

/// The digests are kept without their function, which is one for the whole directory.
#[derive(Debug, Clone, Copy)]
enum Content {
    File {
        hash: NodeHash,
        size_bytes: [u8; 8],
        executable: bool,
    },
    Directory {
        hash: NodeHash,
        size_bytes: [u8; 8],
        /// The number of directories before it among the entries.
        ordinal: u32,
    },
    Symlink {
        target: Span,
    },
}

/// The bytes of a hash, as long as SHA-256's at most. A longer one is not kept: here is its place in
/// the message, from which it is decoded again. So nodes stay small for the functions that nearly
/// all clients use.
#[derive(Debug, Clone, Copy)]
struct NodeHash([u8; NODE_HASH_BYTES]);

const NODE_HASH_BYTES: usize = 32;

impl NodeHash {
    /// A hash, whose hexadecimal form is at `span` of the message.
    fn new(hash: &HashBytes, span: Span) -> Self {
        let mut bytes = [0; NODE_HASH_BYTES];
        match bytes.get_mut(..hash.len()) {
            Some(place) => place.copy_from_slice(hash),
            None => {
                bytes[..4].copy_from_slice(&span.start.to_ne_bytes());
                bytes[4..8].copy_from_slice(&span.len.to_ne_bytes());
            }
        }
        Self(bytes)
    }

    fn get(&self, function: DigestFunction, message: &[u8]) -> HashBytes {
        if function.hash_bytes() <= NODE_HASH_BYTES {
            return HashBytes::of_start(&self.0, function.hash_bytes());
        }
        let [start, len, ..] = self.0.as_chunks::<4>().0 else { return HashBytes::of(&[]) };
        let span = Span { start: u32::from_ne_bytes(*start), len: u32::from_ne_bytes(*len) };
        // The parser has decoded it before.
        HashBytes::parse_hex(span.of(message)).unwrap_or(HashBytes::of(&[]))
    }
}

impl Directory {
    /// Parses a `Directory` message whose digests are of `function`, the function of the digest
    /// that names the message itself.
    pub fn parse(message: Bytes, function: DigestFunction) -> Result<Self, DirectoryError> {
        let parser::Parsed { nodes, properties } = parser::parse(&message, function)?;
        Ok(Self::count(message, function, nodes, properties))
    }

    /// Refuses a `Directory` message of that size if none may be so large; to be asked before the
    /// message is read.
    pub fn check_size(size_bytes: u64) -> Result<(), DirectoryError> {
        parser::check_size(size_bytes)
    }

    /// The memory that reading and parsing a `Directory` message of that size takes at most.
    pub fn parse_bytes_max(size_bytes: u64) -> u64 {
        let entries = (size_bytes / parser::MIN_ENTRY_BYTES).min(parser::MAX_ENTRIES as u64);
        // A growing list may have room for twice its entries.
        size_bytes + 2 * entries * size_of::<Node>() as u64 + properties_bytes_max(size_bytes)
    }

    /// The memory that parsing `message` takes at most, beside the message.
    pub fn entries_bytes(message: &[u8]) -> u64 {
        // A growing list may have room for twice its entries.
        2 * parser::count(message) * size_of::<Node>() as u64
            + properties_bytes_max(message.len() as u64)
    }

    /// The directory without entries, whose message is the empty blob.
    pub fn empty(function: DigestFunction) -> Self {
        Self::count(Bytes::new(), function, Vec::new(), None)
    }

    fn count(
        message: Bytes,
        function: DigestFunction,
        mut nodes: Vec<Node>,
        properties: Option<Box<Properties>>,
    ) -> Self {
        let (mut files, mut directories) = (0, 0);
        for node in &mut nodes {
            match &mut node.content {
                Content::File { .. } => files += 1,
                Content::Directory { ordinal, .. } => {
                    *ordinal = directories;
                    directories += 1;
                }
                Content::Symlink { .. } => {}
            }
        }
        Self { message, function, nodes, files, directories, properties }
    }

    /// All entries, sorted by the bytes of their names.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> + Clone {
        self.nodes.iter().map(|node| self.entry(node))
    }

    /// The names of the child directories in the order of the entries.
    pub fn directory_names(&self) -> impl Iterator<Item = &[u8]> {
        let is_directory = |node: &&Node| matches!(node.content, Content::Directory { .. });
        self.nodes.iter().filter(is_directory).map(|node| node.name.of(&self.message))
    }

    /// The entry of that name.
    pub fn get(&self, name: &[u8]) -> Option<Entry<'_>> {
        self.find(name).map(|node| self.entry(node))
    }

    /// How many of the directory's child directories stand before the one of that name; `None` if
    /// there is no directory of that name.
    pub fn directory_ordinal(&self, name: &[u8]) -> Option<u32> {
        match self.find(name)?.content {
            Content::Directory { ordinal, .. } => Some(ordinal),
            Content::File { .. } | Content::Symlink { .. } => None,
        }
    }

    /// The number of entries of every kind.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of entries that are files.
    pub fn file_count(&self) -> usize {
        self.files as usize
    }

    /// The number of entries that are directories.
    pub fn directory_count(&self) -> usize {
        self.directories as usize
    }

    /// The memory that the directory takes, in bytes, for caches that are bounded by weight.
    pub fn memory_bytes(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |properties| {
            size_of::<Properties>() + size_of_val(properties.of_nodes.as_slice())
        });
        size_of::<Self>()
            + self.message.len()
            + self.nodes.capacity() * size_of::<Node>()
            + properties
    }

    /// Whether the directory or an entry of it has node properties.
    #[inline]
    pub fn has_properties(&self) -> bool {
        self.properties.is_some()
    }

    /// The node properties of the directory itself.
    pub fn own_properties(&self) -> NodeProperties {
        self.properties.as_ref().map(|properties| properties.own).unwrap_or_default()
    }

    /// Whether the directory closes (`true`) or opens itself and all below it for the action's writes;
    /// `None` if it is as the directory above.
    pub fn subtree_read_only(&self) -> Option<bool> {
        self.properties.as_ref().and_then(|properties| properties.subtree_read_only)
    }

    /// The node properties of the file or symlink of that name.
    #[inline]
    pub fn properties_of(&self, name: &[u8]) -> NodeProperties {
        match &self.properties {
            None => NodeProperties::default(),
            Some(properties) => self.find_properties(properties, name),
        }
    }

    fn find_properties(&self, properties: &Properties, name: &[u8]) -> NodeProperties {
        let of_nodes = &properties.of_nodes;
        let node = self.find(name).map(|node| node.name.start);
        node.and_then(|start| of_nodes.binary_search_by_key(&start, |(start, _)| *start).ok())
            .map(|at| of_nodes[at].1)
            .unwrap_or_default()
    }

    /// The name of a node property that this server does not know, if the directory or an entry has one.
    pub fn unknown_property(&self) -> Option<String> {
        let name = self.properties.as_ref()?.unknown?;
        Some(parser::shown(name.of(&self.message)))
    }

    fn find(&self, name: &[u8]) -> Option<&Node> {
        self.nodes
            .binary_search_by_key(&name, |node| node.name.of(&self.message))
            .ok()
            .map(|index| &self.nodes[index])
    }

    fn entry(&self, node: &Node) -> Entry<'_> {
        let name = node.name.of(&self.message);
        let digest = |hash: NodeHash, size_bytes| {
            let hash = hash.get(self.function, &self.message);
            Digest::new(self.function, hash, u64::from_ne_bytes(size_bytes))
        };
        match node.content {
            Content::File { hash, size_bytes, executable } => {
                Entry::File { name, digest: digest(hash, size_bytes), executable }
            }
            Content::Directory { hash, size_bytes, .. } => {
                Entry::Directory { name, digest: digest(hash, size_bytes) }
            }
            Content::Symlink { target } => {
                // Bazel encodes the target `.` as the empty string.
                let target = match target.of(&self.message) {
                    b"" => b".",
                    target => target,
                };
                Entry::Symlink { name, target }
            }
        }
    }
}

/// The memory that the node properties in a message of that size take at most.
fn properties_bytes_max(size_bytes: u64) -> u64 {
    let entries = (size_bytes / parser::MIN_PROPERTIES_BYTES).min(parser::MAX_ENTRIES as u64);
    2 * entries * size_of::<(u32, NodeProperties)>() as u64
}
