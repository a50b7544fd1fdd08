//! Puts an image together.

use model::{Entry, InputTree};

use super::directories::{DirectoryLayout, DirectoryWriter};
use super::error::ImageError;
use super::format::{BLOCK_SIZE, FileType, METACOPY, SUPERBLOCK_OFFSET, Superblock};
use super::leaves::LeafWriter;
use crate::access::{Access, MODIFIED_SECONDS};

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
    METACOPY.write(image);
    Ok(())
}
