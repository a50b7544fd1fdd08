//! Reads `Directory` messages, and refuses all that is not canonical.
//!
//! Written by hand over the wire format, because generated code copies every name and hash into a
//! string of its own; 10,000 entries take 0.65 ms here.

use super::{Content, MAX_NAME_BYTES, MAX_SYMLINK_TARGET_BYTES, Node, NodeHash, Properties};
use crate::digest::Digest;
use crate::digest_error::DigestError;
use crate::digest_function::DigestFunction;
use crate::node_properties::{self, Fault};
use crate::wire::{Reader, Span, Value, WireError};

/// The largest directory message: room for 500,000 files with long names. Above it, one blob could
/// make the server hold memory out of all proportion.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The most entries of one directory. An entry can be as small as 8 bytes of message and always
/// takes 56 of memory: without this bound the one above would allow half a gigabyte.
pub(super) const MAX_ENTRIES: usize = 1 << 20;

/// The shortest entry: a symlink with a name of one byte and no target.
pub(super) const MIN_ENTRY_BYTES: u64 = 5;

/// The shortest entry with node properties: four bytes more for an empty mode.
pub(super) const MIN_PROPERTIES_BYTES: u64 = MIN_ENTRY_BYTES + 4;

/// The field numbers of a `Directory`'s lists, which are also the kinds of entries.
const FILES: u32 = 1;
const DIRECTORIES: u32 = 2;
const SYMLINKS: u32 = 3;
/// The field number of a `Directory`'s own node properties.
const PROPERTIES: u32 = 5;

/// An error of a blob that is not a canonical REAPI `Directory`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// The message is larger than 64 MiB.
    #[error("the directory takes {0} bytes, more than {MAX_MESSAGE_BYTES}")]
    MessageTooLarge(u64),
    /// There are more than 2^20 entries.
    #[error("the directory has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    /// The bytes are not a protobuf message.
    #[error("the directory is not a protobuf message")]
    Wire(#[from] WireError),
    /// A known field has the wire type of something else.
    #[error("field {field} of a {message} has the wrong type")]
    FieldType {
        /// The name of the message.
        message: &'static str,
        /// The number of the field.
        field: u32,
    },
    /// A field that may be there once is there twice; readers differ in what they make of that.
    #[error("field {field} of a {message} is repeated")]
    RepeatedField {
        /// The name of the message.
        message: &'static str,
        /// The number of the field.
        field: u32,
    },
    /// A name is empty, `.`, `..`, too long, no UTF-8, or has a slash or a NUL.
    #[error("{0:?} is not a file name")]
    Name(String),
    /// The entries of one kind are not sorted by the bytes of their names, or one is there twice.
    #[error("the entry {0:?} is out of order")]
    NotSorted(String),
    /// Two entries of different kinds have one name.
    #[error("there are two entries with the name {0:?}")]
    DuplicateName(String),
    /// A file or directory has no digest, or none that can be.
    #[error("entry {name:?}")]
    Digest {
        /// The name of the entry.
        name: String,
        /// The problem with its digest.
        source: DigestError,
    },
    /// A node property has the wrong type, is there twice, or has an impossible value.
    #[error("the node property {0} is malformed")]
    NodeProperty(&'static str),
    /// A node property that only other servers know.
    #[error("the node property {0:?} is not supported")]
    UnknownNodeProperty(String),
    /// A symlink's target is too long, no UTF-8, or has a NUL.
    #[error("the symlink {0:?} has an impossible target")]
    SymlinkTarget(String),
}

/// Refuses a message of that size if none may be so large.
pub(super) fn check_size(size_bytes: u64) -> Result<(), DirectoryError> {
    if size_bytes > MAX_MESSAGE_BYTES as u64 {
        return Err(DirectoryError::MessageTooLarge(size_bytes));
    }
    Ok(())
}

/// How many entries a message has at most: up to the first fault, and to the bound.
pub(super) fn count(message: &[u8]) -> u64 {
    if check_size(message.len() as u64).is_err() {
        return 0;
    }
    let mut reader = Reader::new(message);
    let mut entries = 0;
    while entries < MAX_ENTRIES as u64
        && let Ok(Some((field, _))) = reader.next_field()
    {
        entries += u64::from((FILES..=SYMLINKS).contains(&field));
    }
    entries
}

/// The content of a message.
pub(super) struct Parsed {
    /// Sorted by name.
    pub(super) nodes: Vec<Node>,
    pub(super) properties: Option<Box<Properties>>,
}

/// Parses a message.
pub(super) fn parse(message: &[u8], function: DigestFunction) -> Result<Parsed, DirectoryError> {
    check_size(message.len() as u64)?;
    let mut parser = Parser {
        message,
        function,
        // A file takes 80 bytes and its name: rarely does the list grow after this.
        nodes: Vec::with_capacity(message.len() / 84),
        last_names: [None; 3],
        properties: None,
    };
    parser.directory()?;
    let properties = parser.take_properties();
    Ok(Parsed { nodes: parser.merged()?, properties })
}

struct Parser<'a> {
    message: &'a [u8],
    function: DigestFunction,
    nodes: Vec<Node>,
    /// The name read last in each list: every list must be sorted in itself.
    last_names: [Option<Span>; 3],
    properties: Option<Box<Properties>>,
}

/// The fields of a `FileNode`, `DirectoryNode` or `SymlinkNode`; the second field is the digest of
/// the first two and the target of the last.
#[derive(Default)]
struct RawNode {
    name: Option<Span>,
    second: Option<Span>,
    executable: Option<bool>,
    properties: Option<Span>,
}

impl Parser<'_> {
    fn directory(&mut self) -> Result<(), DirectoryError> {
        let mut reader = Reader::new(self.message);
        while let Some((field, value)) = reader.next_field()? {
            match (field, value) {
                (FILES..=SYMLINKS, Value::Bytes(span)) => self.push(field, span)?,
                (PROPERTIES, Value::Bytes(span)) => self.own_properties(span)?,
                (FILES..=SYMLINKS | PROPERTIES, _) => {
                    let message = "Directory";
                    return Err(DirectoryError::FieldType { message, field });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn push(&mut self, kind: u32, span: Span) -> Result<(), DirectoryError> {
        if self.nodes.len() == MAX_ENTRIES {
            return Err(DirectoryError::TooManyEntries);
        }
        let raw = self.raw_node(kind, span)?;
        let name = self.name(kind, raw.name)?;
        if let Some(span) = raw.properties {
            self.properties_of(name, span)?;
        }
        let content = match kind {
            FILES => {
                let (hash, size_bytes) = self.digest(name, raw.second)?;
                Content::File { hash, size_bytes, executable: raw.executable.unwrap_or(false) }
            }
            DIRECTORIES => {
                let (hash, size_bytes) = self.digest(name, raw.second)?;
                Content::Directory { hash, size_bytes, ordinal: 0 }
            }
            _ => Content::Symlink { target: self.target(name, raw.second)? },
        };
        self.nodes.push(Node { name, content });
        Ok(())
    }

    fn raw_node(&self, kind: u32, span: Span) -> Result<RawNode, DirectoryError> {
        let message = match kind {
            FILES => "FileNode",
            DIRECTORIES => "DirectoryNode",
            _ => "SymlinkNode",
        };
        let mut raw = RawNode::default();
        let mut reader = Reader::within(self.message, span);
        while let Some((field, value)) = reader.next_field()? {
            let repeated = match (field, value) {
                (1, Value::Bytes(span)) => raw.name.replace(span).is_some(),
                (2, Value::Bytes(span)) => raw.second.replace(span).is_some(),
                (4, Value::Varint(value)) if kind == FILES => {
                    raw.executable.replace(value != 0).is_some()
                }
                (6, Value::Bytes(span)) if kind == FILES => raw.properties.replace(span).is_some(),
                (4, Value::Bytes(span)) if kind == SYMLINKS => {
                    raw.properties.replace(span).is_some()
                }
                (1 | 2, _) => return Err(DirectoryError::FieldType { message, field }),
                (4 | 6, _) if kind == FILES => {
                    return Err(DirectoryError::FieldType { message, field });
                }
                (4, _) if kind == SYMLINKS => {
                    return Err(DirectoryError::FieldType { message, field });
                }
                _ => false,
            };
            if repeated {
                return Err(DirectoryError::RepeatedField { message, field });
            }
        }
        Ok(raw)
    }

    fn name(&mut self, kind: u32, name: Option<Span>) -> Result<Span, DirectoryError> {
        let span = name.unwrap_or(Span { start: 0, len: 0 });
        let name = span.of(self.message);
        if !is_name(name) {
            return Err(DirectoryError::Name(shown(name)));
        }
        let last = &mut self.last_names[kind as usize - 1];
        if last.is_some_and(|last| last.of(self.message) >= name) {
            return Err(DirectoryError::NotSorted(shown(name)));
        }
        *last = Some(span);
        Ok(span)
    }

    /// The node properties of the directory itself, at `span`.
    fn own_properties(&mut self, span: Span) -> Result<(), DirectoryError> {
        let read = self.read_properties(span)?;
        let properties = self.properties.get_or_insert_default();
        if !properties.own.is_empty() || properties.subtree_read_only.is_some() {
            let (message, field) = ("Directory", PROPERTIES);
            return Err(DirectoryError::RepeatedField { message, field });
        }
        properties.own = read.known;
        properties.subtree_read_only = read.subtree_read_only.map(|(value, _)| value);
        Ok(())
    }

    /// The node properties of an entry, at `span`.
    fn properties_of(&mut self, name: Span, span: Span) -> Result<(), DirectoryError> {
        let read = self.read_properties(span)?;
        if !read.known.is_empty() {
            let properties = self.properties.get_or_insert_default();
            properties.of_nodes.push((name.start, read.known));
        }
        if let Some((_, name)) = read.subtree_read_only {
            // A property of directories alone.
            self.properties.get_or_insert_default().unknown = Some(name);
        }
        Ok(())
    }

    fn read_properties(&mut self, span: Span) -> Result<node_properties::Read, DirectoryError> {
        let read = node_properties::read(self.message, span).map_err(|fault| match fault {
            Fault::Wire(error) => DirectoryError::Wire(error),
            Fault::Field(2) => DirectoryError::NodeProperty("mtime"),
            Fault::Field(3) => DirectoryError::NodeProperty("unix_mode"),
            Fault::Field(_) => DirectoryError::NodeProperty("properties"),
        })?;
        if read.unknown.is_some() {
            self.properties.get_or_insert_default().unknown = read.unknown;
        }
        Ok(read)
    }

    fn take_properties(&mut self) -> Option<Box<Properties>> {
        let mut properties = self.properties.take()?;
        properties.of_nodes.sort_unstable_by_key(|(start, _)| *start);
        let is_empty = properties.own.is_empty()
            && properties.subtree_read_only.is_none()
            && properties.of_nodes.is_empty()
            && properties.unknown.is_none();
        (!is_empty).then_some(properties)
    }

    /// An empty target is kept; [`super::Directory`] shows it as `.`.
    fn target(&self, name: Span, target: Option<Span>) -> Result<Span, DirectoryError> {
        let span = target.unwrap_or(Span { start: 0, len: 0 });
        let target = span.of(self.message);
        let is_target = target.len() <= MAX_SYMLINK_TARGET_BYTES
            && !target.contains(&0)
            && str::from_utf8(target).is_ok();
        if !is_target {
            return Err(DirectoryError::SymlinkTarget(shown(name.of(self.message))));
        }
        Ok(span)
    }

    fn digest(
        &self,
        name: Span,
        digest: Option<Span>,
    ) -> Result<(NodeHash, [u8; 8]), DirectoryError> {
        let refuse = |source| DirectoryError::Digest { name: shown(name.of(self.message)), source };
        let span = digest.ok_or_else(|| refuse(DigestError::Missing))?;
        let (hash, size_bytes) = self.digest_fields(span)?;
        let size_bytes =
            u64::try_from(size_bytes).map_err(|_| refuse(DigestError::Size(size_bytes.into())))?;
        let digest = Digest::parse_hex_bytes(self.function, hash.of(self.message), size_bytes)
            .map_err(refuse)?;
        Ok((NodeHash::new(digest.hash(), hash), size_bytes.to_ne_bytes()))
    }

    fn digest_fields(&self, span: Span) -> Result<(Span, i64), DirectoryError> {
        let message = "Digest";
        let (mut hash, mut size_bytes) = (None, None);
        let mut reader = Reader::within(self.message, span);
        while let Some((field, value)) = reader.next_field()? {
            let repeated = match (field, value) {
                (1, Value::Bytes(span)) => hash.replace(span).is_some(),
                (2, Value::Varint(value)) => size_bytes.replace(value as i64).is_some(),
                (1 | 2, _) => return Err(DirectoryError::FieldType { message, field }),
                _ => false,
            };
            if repeated {
                return Err(DirectoryError::RepeatedField { message, field });
            }
        }
        let hash = hash.unwrap_or(Span { start: 0, len: 0 });
        Ok((hash, size_bytes.unwrap_or_default()))
    }

    /// Merges the sorted lists; the standard library's stable sort finds the runs by itself.
    fn merged(mut self) -> Result<Vec<Node>, DirectoryError> {
        let lists = self.last_names.iter().flatten().count();
        if lists < 2 {
            return Ok(self.nodes);
        }
        let name = |node: &Node| node.name.of(self.message);
        self.nodes.sort_by(|a, b| name(a).cmp(name(b)));
        match self.nodes.windows(2).find(|two| name(&two[0]) == name(&two[1])) {
            Some(two) => Err(DirectoryError::DuplicateName(shown(name(&two[0])))),
            None => Ok(self.nodes),
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= MAX_NAME_BYTES
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
        && str::from_utf8(name).is_ok()
}

/// A name for an error's text: of bounded length, whatever was sent.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(MAX_NAME_BYTES)]).into_owned()
}
