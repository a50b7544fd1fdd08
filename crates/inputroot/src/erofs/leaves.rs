//! Writes the inodes of files and symlinks, each at the end of the image so far.

use model::{ACTION_ID, Digest, InputTree};

use super::directories::within_block;
use super::error::ImageError;
use super::format::{
    AttributeHeader, BLOCK_SIZE, DataLayout, FileType, Inode, METACOPY, NULL_ADDRESS, REDIRECT,
    SLOT_SIZE, put,
};
use crate::access::{Access, file_mode};

const HASH_HEX_BYTES: usize = 64;
const SHARD_HEX_BYTES: usize = 2;
const CHUNK_TABLE_BYTES: usize = 4;
/// The longest file record: extended inode, attributes, chunk table.
const MAX_RECORD_BYTES: usize = 192;
/// A chunk has 2^(12 + 31) bytes at most, and one null chunk stands for all the content.
const MAX_CHUNK_BITS: u32 = 31;
const MAX_FILE_BYTES: u64 = (BLOCK_SIZE as u64) << MAX_CHUNK_BITS;

/// Appends files and symlinks to an image.
pub(super) struct LeafWriter {
    access: Access,
    /// Inode number of the next leaf; directories have the ones from 1.
    next_number: u32,
    first_number: u32,
    plain: FileRecord,
    large: FileRecord,
}

impl LeafWriter {
    pub(super) fn new(tree: &InputTree, access: Access) -> Self {
        let first_number = tree.directories().len() as u32 + 1;
        let function = tree.root_digest().function().name();
        Self {
            access,
            next_number: first_number,
            first_number,
            plain: FileRecord::new(Inode::COMPACT_BYTES, function),
            large: FileRecord::new(Inode::EXTENDED_BYTES, function),
        }
    }

    /// How many were written.
    pub(super) fn count(&self) -> usize {
        (self.next_number - self.first_number) as usize
    }

    /// Appends a file whose content is the blob `digest`; returns its nid.
    #[inline]
    pub(super) fn file(
        &mut self,
        digest: &Digest,
        executable: bool,
        image: &mut Vec<u8>,
    ) -> Result<u64, ImageError> {
        let size_bytes = digest.size_bytes();
        if size_bytes > MAX_FILE_BYTES {
            return Err(ImageError::FileTooLarge { digest: *digest, max_bytes: MAX_FILE_BYTES });
        }
        let nid = (image.len() / SLOT_SIZE) as u64;
        let mut inode = self.inode(FileType::Regular, size_bytes);
        inode.permissions = file_mode(executable);
        inode.owner = self.access.file_owner();
        if size_bytes == 0 {
            let mut record = [0; Inode::COMPACT_BYTES];
            inode.write(&mut record);
            image.extend_from_slice(&record);
            return Ok(nid);
        }
        inode.layout = DataLayout::ChunkBased;
        inode.data = chunk_bits(size_bytes);
        inode.attribute_units = self.plain.attribute_units;
        let record = match Inode::bytes(size_bytes, inode.links) {
            Inode::COMPACT_BYTES => &mut self.plain,
            _ => &mut self.large,
        };
        image.extend_from_slice(record.fill(&inode, digest));
        Ok(nid)
    }

    /// Appends a symlink; returns its nid.
    pub(super) fn symlink(&mut self, target: &[u8], image: &mut Vec<u8>) -> u64 {
        let mut inode = self.inode(FileType::Symlink, target.len() as u64);
        inode.permissions = 0o777;
        let bytes = Inode::COMPACT_BYTES + target.len();
        let inline = bytes <= BLOCK_SIZE;
        if inline {
            inode.layout = DataLayout::FlatInline;
            image.resize(within_block(image.len(), bytes), 0);
        } else {
            let block = image.len().next_multiple_of(BLOCK_SIZE);
            image.resize(block, 0);
            image.extend_from_slice(target);
            image.resize(block + BLOCK_SIZE, 0);
            inode.data = (block / BLOCK_SIZE) as u32;
        }
        let nid = (image.len() / SLOT_SIZE) as u64;
        let mut record = [0; Inode::COMPACT_BYTES];
        inode.write(&mut record);
        image.extend_from_slice(&record);
        if inline {
            image.extend_from_slice(target);
            image.resize(image.len().next_multiple_of(SLOT_SIZE), 0);
        }
        nid
    }

    fn inode(&mut self, file_type: FileType, size_bytes: u64) -> Inode {
        let number = self.next_number;
        self.next_number += 1;
        Inode {
            file_type,
            permissions: 0,
            owner: ACTION_ID,
            links: 1,
            size_bytes,
            layout: DataLayout::FlatPlain,
            data: 0,
            number,
            attribute_units: 0,
        }
    }
}

/// `i_u` of a file in one chunk: the chunk's size as a power of two, less the block's.
fn chunk_bits(size_bytes: u64) -> u32 {
    let blocks = size_bytes.div_ceil(BLOCK_SIZE as u64);
    blocks.next_power_of_two().trailing_zeros()
}

/// A file's bytes with everything filled in that all files share: only the inode and the hash in
/// the redirect change from file to file.
struct FileRecord {
    bytes: [u8; MAX_RECORD_BYTES],
    /// Offset of the two hex digits of the shard; the whole hash follows after a slash.
    shard_offset: usize,
    record_bytes: usize,
    attribute_units: u16,
}

impl FileRecord {
    fn new(inode_bytes: usize, function: &str) -> Self {
        let shard_offset_in_value = 1 + function.len() + 1;
        let value_bytes = shard_offset_in_value + SHARD_HEX_BYTES + 1 + HASH_HEX_BYTES;
        let attribute = inode_bytes + AttributeHeader::BYTES;
        let value = attribute + REDIRECT.value_offset();
        let chunk_table = attribute + REDIRECT.bytes(value_bytes);

        let mut bytes = [0; MAX_RECORD_BYTES];
        AttributeHeader::write(&mut bytes[inode_bytes..], &METACOPY);
        REDIRECT.write_head(&mut bytes[attribute..], value_bytes as u16);
        bytes[value] = b'/';
        bytes[value + 1..][..function.len()].copy_from_slice(function.as_bytes());
        bytes[value + 1 + function.len()] = b'/';
        bytes[value + shard_offset_in_value + SHARD_HEX_BYTES] = b'/';
        put(&mut bytes, chunk_table, NULL_ADDRESS.to_le_bytes());
        Self {
            bytes,
            shard_offset: value + shard_offset_in_value,
            record_bytes: (chunk_table + CHUNK_TABLE_BYTES).next_multiple_of(SLOT_SIZE),
            attribute_units: AttributeHeader::units(REDIRECT.bytes(value_bytes)),
        }
    }

    #[inline]
    fn fill(&mut self, inode: &Inode, digest: &Digest) -> &[u8] {
        let hash: [u8; HASH_HEX_BYTES] = digest.hex_bytes();
        inode.write(&mut self.bytes);
        self.bytes[self.shard_offset..][..SHARD_HEX_BYTES]
            .copy_from_slice(&hash[..SHARD_HEX_BYTES]);
        put(&mut self.bytes, self.shard_offset + SHARD_HEX_BYTES + 1, hash);
        &self.bytes[..self.record_bytes]
    }
}
