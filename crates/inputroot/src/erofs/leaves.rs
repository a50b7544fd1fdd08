//! Writes the inodes of files and symlinks, each at the end of the image so far.

use model::{Digest, InputTree, Mtime, NodeProperties};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::directories::within_block;
use super::error::ImageError;
use super::format::{
    BLOCK_SIZE, DataLayout, FileBody, FileType, InodeCompact, InodeExtended, SLOT_SIZE,
};
use super::inode::{Inode, mtime_seconds};
use crate::access::{Access, MODIFIED_SECONDS, file_mode, file_rights, modified};

/// A chunk has 2^(12 + 31) bytes at most, and one null chunk stands for all the content.
const MAX_CHUNK_BITS: u32 = 31;
const MAX_FILE_BYTES: u64 = (BLOCK_SIZE as u64) << MAX_CHUNK_BITS;

/// Appends files and symlinks to an image.
pub(super) struct LeafWriter {
    /// Inode number of the next leaf; directories have the ones from 1.
    next_ino: u32,
    first_ino: u32,
    access: Access,
    empty: InodeCompact,
    file: FileRecord<InodeCompact>,
    large: FileRecord<InodeExtended>,
}

/// A file with content. All that files share is filled in once: only mode, size, number and hash
/// change from file to file.
struct FileRecord<I> {
    inode: I,
    body: FileBody,
}

impl<I: IntoBytes + Immutable> FileRecord<I> {
    #[inline]
    fn append_to(&self, image: &mut Vec<u8>) {
        image.extend_from_slice(self.inode.as_bytes());
        image.extend_from_slice(self.body.as_bytes());
    }
}

impl LeafWriter {
    pub(super) fn new(tree: &InputTree, access: Access) -> Self {
        let first_ino = tree.directories().len() as u32 + 1;
        let body = || FileBody::new(tree.root_digest().function());
        let icount = body().icount();
        let owner = access.file_owner();
        let small_owner = (owner as u16).into();
        let compact = |layout: DataLayout, icount| InodeCompact {
            i_format: layout.compact(),
            i_xattr_icount: icount,
            i_nlink: 1.into(),
            i_uid: small_owner,
            i_gid: small_owner,
            ..FromZeros::new_zeroed()
        };
        let extended = InodeExtended {
            i_format: DataLayout::ChunkBased.extended(),
            i_xattr_icount: icount,
            i_nlink: 1.into(),
            i_uid: owner.into(),
            i_gid: owner.into(),
            i_mtime: MODIFIED_SECONDS.into(),
            ..FromZeros::new_zeroed()
        };
        Self {
            next_ino: first_ino,
            first_ino,
            access,
            empty: compact(DataLayout::FlatPlain, 0.into()),
            file: FileRecord { inode: compact(DataLayout::ChunkBased, icount), body: body() },
            large: FileRecord { inode: extended, body: body() },
        }
    }

    /// The number of leaves written.
    pub(super) fn count(&self) -> usize {
        (self.next_ino - self.first_ino) as usize
    }

    /// Appends a file whose content is the blob `digest`; returns its nid.
    #[inline]
    pub(super) fn file(
        &mut self,
        digest: &Digest,
        executable: bool,
        properties: &NodeProperties,
        image: &mut Vec<u8>,
    ) -> Result<u64, ImageError> {
        let size_bytes = digest.size_bytes();
        if size_bytes > MAX_FILE_BYTES {
            return Err(ImageError::FileTooLarge { digest: *digest, max_bytes: MAX_FILE_BYTES });
        }
        let nid = (image.len() / SLOT_SIZE) as u64;
        if !properties.is_empty() {
            self.file_with_properties(digest, executable, properties, image);
            return Ok(nid);
        }
        let mode = (FileType::Regular.mode_bits() | file_mode(executable)).into();
        let ino = self.next_ino().into();
        if size_bytes == 0 {
            self.empty.i_mode = mode;
            self.empty.i_ino = ino;
            image.extend_from_slice(self.empty.as_bytes());
        } else if let Ok(size) = u32::try_from(size_bytes) {
            let FileRecord { inode, body } = &mut self.file;
            inode.i_mode = mode;
            inode.i_ino = ino;
            inode.i_size = size.into();
            inode.i_u = chunk_format(size_bytes).into();
            body.set_hash(&digest.hex_bytes());
            self.file.append_to(image);
        } else {
            let FileRecord { inode, body } = &mut self.large;
            inode.i_mode = mode;
            inode.i_ino = ino;
            inode.i_size = size_bytes.into();
            inode.i_u = chunk_format(size_bytes).into();
            body.set_hash(&digest.hex_bytes());
            self.large.append_to(image);
        }
        Ok(nid)
    }

    fn file_with_properties(
        &mut self,
        digest: &Digest,
        executable: bool,
        properties: &NodeProperties,
        image: &mut Vec<u8>,
    ) {
        let (mode, group) = file_rights(executable, properties, self.access);
        let mode = FileType::Regular.mode_bits() | mode;
        let mtime = modified(properties);
        let size_bytes = digest.size_bytes();
        let ino = self.next_ino();
        let before = self.large.inode;
        let inode = &mut self.large.inode;
        inode.i_mode = mode.into();
        inode.i_ino = ino.into();
        inode.i_gid = group.into();
        inode.i_size = size_bytes.into();
        inode.i_mtime = mtime_seconds(mtime).into();
        inode.i_mtime_nsec = mtime.nanos.into();
        if size_bytes == 0 {
            inode.i_format = DataLayout::FlatPlain.extended();
            inode.i_xattr_icount = 0.into();
            inode.i_u = 0.into();
            image.extend_from_slice(inode.as_bytes());
        } else {
            inode.i_u = chunk_format(size_bytes).into();
            self.large.body.set_hash(&digest.hex_bytes());
            self.large.append_to(image);
        }
        self.large.inode = before;
    }

    /// Appends a symlink; returns its nid.
    pub(super) fn symlink(
        &mut self,
        target: &[u8],
        mtime: Option<Mtime>,
        image: &mut Vec<u8>,
    ) -> u64 {
        let bytes = Inode::bytes(target.len() as u64, 1, mtime.is_some()) + target.len();
        let inline = bytes <= BLOCK_SIZE;
        let mut blkaddr = 0;
        if inline {
            image.resize(within_block(image.len(), bytes), 0);
        } else {
            let block = image.len().next_multiple_of(BLOCK_SIZE);
            image.resize(block, 0);
            image.extend_from_slice(target);
            image.resize(block + BLOCK_SIZE, 0);
            blkaddr = (block / BLOCK_SIZE) as u32;
        }
        let nid = (image.len() / SLOT_SIZE) as u64;
        let inode = Inode {
            file_type: FileType::Symlink,
            permissions: 0o777,
            nlink: 1,
            size_bytes: target.len() as u64,
            layout: if inline { DataLayout::FlatInline } else { DataLayout::FlatPlain },
            blkaddr,
            ino: self.next_ino(),
            mtime,
        };
        inode.append(image);
        if inline {
            image.extend_from_slice(target);
            image.resize(image.len().next_multiple_of(SLOT_SIZE), 0);
        }
        nid
    }

    #[inline]
    fn next_ino(&mut self) -> u32 {
        self.next_ino += 1;
        self.next_ino - 1
    }
}

/// `i_u` of a file in one chunk: the chunk's size as a power of two, less that of a block.
fn chunk_format(size_bytes: u64) -> u32 {
    let blocks = size_bytes.div_ceil(BLOCK_SIZE as u64);
    blocks.next_power_of_two().trailing_zeros()
}
