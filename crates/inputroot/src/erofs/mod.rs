//! The metadata image of an input tree: an EROFS file system that has names, modes and sizes but
//! no content.
//!
//! One mount call shows a tree of any size, so the set-up of an action costs one pass over
//! directories that are in memory already, and no system call per input. Each file carries the two
//! extended attributes by which overlayfs takes its content from a path in the data-only layer, the
//! store's blob directory.
//!
//! The image is little-endian, has blocks of 4096 bytes, and depends only on the tree and on
//! [`Access`](crate::access::Access). Each inode lies at a multiple of 32; that multiple is its
//! number (nid).
//!
//! ```text
//! 0     nothing (room for a boot sector)
//! 1024  superblock, 128 bytes
//! 1152  one shared extended attribute: trusted.overlay.metacopy = ""
//! 1184  the directories' inodes, breadth first, the root's first; behind each the last,
//!       partly filled block of its entries, if it has at most 2048 bytes
//! (block aligned)
//!       the other blocks of directory entries
//! (block aligned)
//!       the inodes of files and symlinks, directory by directory, in entry order:
//!         file     inode 32 (64 above 4 GiB), attribute header 12, reference to the shared
//!                  attribute 4, trusted.overlay.redirect 96, chunk table 4: 160 (192) in all
//!         empty    inode 32, no attribute: it has no content
//!         symlink  inode 32, target; a target above 4064 bytes has a block of its own before it
//! (end, block aligned)
//! ```
//!
//! A block of directory entries is an array of 12-byte heads (nid, offset of the name, type)
//! followed by the names; heads are in the byte order of their names, over all blocks.
//!
//! This room does not store, mount or cache images. There is no checksum, because no image outlives
//! the process that built it.

mod build;
mod directories;
mod error;
mod format;
mod inode;
mod leaves;
#[cfg(any(test, feature = "fuzzing"))]
mod reader;

pub(crate) use build::build;
pub use error::ImageError;
#[cfg(any(test, feature = "fuzzing"))]
pub use reader::{ReadError, RoundTripError};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use reader::{read, round_trip};

#[cfg(test)]
mod tests;
