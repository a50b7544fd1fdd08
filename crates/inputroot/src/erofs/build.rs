//! Puts an image together.

use std::mem::size_of;

use model::{Entry, InputTree};
use zerocopy::IntoBytes;

use super::directories::{DirectoryLayout, DirectoryWriter};
use super::error::ImageError;
use super::format::{
    BLOCK_SIZE, FileType, Metacopy, SHARED_XATTR_OFFSET, SUPER_OFFSET, SuperBlock,
};
use super::leaves::LeafWriter;
use crate::access::Access;

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
                    let properties = directory.content.properties_of(name);
                    let nid = leaves.file(&digest, executable, &properties, image)?;
                    directories.entry(name, nid, FileType::Regular, image);
                }
                Entry::Symlink { name, target } => {
                    let properties = directory.content.properties_of(name);
                    let nid = leaves.symlink(target, properties.mtime, image);
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
    let inos = (tree.directories().len() + leaves.count()) as u64;
    let superblock = SuperBlock::new(layout.root_nid(), inos, blocks);
    image[SUPER_OFFSET..][..size_of::<SuperBlock>()].copy_from_slice(superblock.as_bytes());
    image[SHARED_XATTR_OFFSET..][..size_of::<Metacopy>()].copy_from_slice(Metacopy::NEW.as_bytes());
    Ok(())
}
