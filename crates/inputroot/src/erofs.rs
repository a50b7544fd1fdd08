//! The metadata image of an input tree: an EROFS file system that has names, modes and sizes but
//! no content.
//!
//! Why: one mount call shows a tree of any size, so setting up an action costs one pass over
//! directories that are in memory already, and no system call per input. Each file carries the two
//! extended attributes that overlayfs understands as "my content is the file at this path of the
//! data-only layer"; the data-only layer is the store's blob directory.
//!
//! The image is little-endian, has blocks of 4096 bytes, and is a function of the tree and of
//! [`Access`] alone. An inode lies at any multiple of 32; that multiple is its number (nid).
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
//!         empty    inode 32, no attribute: it needs no content from anywhere
//!         symlink  inode 32, target; a target above 4064 bytes has a block of its own before it
//! (end, block aligned)
//! ```
//!
//! A block of directory entries is an array of 12-byte heads (nid, offset of the name, type)
//! followed by the names; heads are in the byte order of their names, over all blocks.
//!
//! Nothing here writes, mounts or caches the image. There is no checksum: the image never outlives
//! the process that built it.

mod directories;
mod format;
mod leaves;

use model::{Entry, InputTree};

use crate::access::Access;
use directories::{DirectoryLayout, DirectoryWriter};
use format::{BLOCK_SIZE, FileType, SUPERBLOCK_OFFSET, Superblock};
use leaves::LeafWriter;

/// Modification time of everything in an input root: 2000-01-01T00:00:00Z, in seconds since 1970.
///
/// A fixed time keeps results from depending on when an action ran, and a plausible one keeps tools
/// that refuse dates before 1980 (zip) working.
pub(crate) const MODIFIED_SECONDS: u64 = 946_684_800;

/// Why a tree has no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The format holds a file without content in one chunk, which ends at 8 TiB.
    #[error("input file {digest} is larger than the {max_bytes} bytes that an image can describe")]
    FileTooLarge {
        /// The file's content.
        digest: model::Digest,
        /// The largest size that would do.
        max_bytes: u64,
    },
    /// Block numbers have 32 bits.
    #[error("the image of input root {root} would have more than 2^32 blocks")]
    ImageTooLarge {
        /// The tree's root directory.
        root: model::Digest,
    },
}

/// Builds the image of `tree` into `image`, whose content is replaced and whose capacity is reused.
pub(crate) fn build(
    tree: &InputTree,
    access: Access,
    image: &mut Vec<u8>,
) -> Result<(), ImageError> {
    let layout = DirectoryLayout::of(tree);
    image.clear();
    image.resize(layout.end(), 0);
    let mut directories = DirectoryWriter::new(&layout);
    let mut leaves = LeafWriter::new(tree, access);
    for (index, directory) in tree.directories().iter().enumerate() {
        directories.begin(tree, index, image);
        let mut child = directory.first_child as usize;
        for entry in directory.content.entries() {
            match entry {
                Entry::File { name, digest, executable } => {
                    let nid = leaves.file(&digest, executable, image)?;
                    directories.entry(name, nid, FileType::Regular, image);
                }
                Entry::Symlink { name, target } => {
                    let nid = leaves.symlink(target, image);
                    directories.entry(name, nid, FileType::Symlink, image);
                }
                Entry::Directory { name, .. } => {
                    let nid = layout.nid(child);
                    child += 1;
                    directories.entry(name, nid, FileType::Directory, image);
                }
            }
        }
        directories.finish(image);
    }
    image.resize(image.len().next_multiple_of(BLOCK_SIZE), 0);
    let blocks = u32::try_from(image.len() / BLOCK_SIZE)
        .map_err(|_| ImageError::ImageTooLarge { root: tree.root_digest() })?;
    let superblock = Superblock {
        root_nid: layout.root_nid(),
        inode_count: (tree.directories().len() + leaves.count()) as u64,
        build_time: MODIFIED_SECONDS,
        blocks,
    };
    image[SUPERBLOCK_OFFSET..][..Superblock::BYTES].copy_from_slice(&superblock.encode());
    format::METACOPY.write(image);
    Ok(())
}

#[cfg(test)]
mod tests;
