//! The tree in an image, and the errors of images that cannot be read.

use model::Mtime;

/// An error of reading an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A structure lies beyond the end of the image.
    #[error("the {what} at {offset} is not in the image")]
    Outside {
        /// The structure.
        what: &'static str,
        /// Its offset in bytes.
        offset: u64,
    },
    /// The image uses what the writer never does.
    #[error("unsupported: {what} (inode {nid})")]
    Unsupported {
        /// The feature.
        what: &'static str,
        /// The inode's number, or 0 for the whole image.
        nid: u64,
    },
    /// The image contradicts itself or the format.
    #[error("{what} (inode {nid})")]
    Malformed {
        /// The contradiction.
        what: &'static str,
        /// The inode's number, or 0 for the whole image.
        nid: u64,
    },
    /// Structures lie over each other.
    #[error("the structures of the image overlap")]
    Overlap,
}

/// The tree in an image. The root comes first, and directories in the order of a breadth-first walk.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) directories: Vec<Directory<'a>>,
}

/// A directory, without "." and "..".
#[derive(Debug)]
pub(crate) struct Directory<'a> {
    pub(crate) attributes: Attributes,
    pub(crate) entries: Vec<Entry<'a>>,
}

/// A named entry of a directory.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) node: Node<'a>,
}

/// The file behind a name.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    /// A file without content of its own.
    File {
        attributes: Attributes,
        xattrs: Vec<Xattr<'a>>,
    },
    Symlink {
        attributes: Attributes,
        target: &'a [u8],
    },
    /// A directory, by its index in the tree.
    Directory(usize),
}

/// The attributes that `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) permissions: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) size_bytes: u64,
    pub(crate) modified: Mtime,
}

/// An extended attribute whose name begins with `trusted.`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Xattr<'a> {
    /// The name behind that prefix.
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
}
