//! Byte for byte, the parts of the EROFS disk format that the images use.
//!
//! Names and offsets are those of the kernel's `fs/erofs/erofs_fs.h`.

use crate::access::MODIFIED_SECONDS;

/// Size of a block; the only one that every kernel with EROFS can mount.
pub(super) const BLOCK_SIZE: usize = 4096;
const BLOCK_SIZE_BITS: u8 = 12;
/// An inode's offset in units of this is its number.
pub(super) const SLOT_SIZE: usize = 32;
/// Where the superblock lies.
pub(super) const SUPERBLOCK_OFFSET: usize = 1024;
/// The first byte after the superblock and the shared attribute at which an inode may lie.
pub(super) const FIRST_INODE_OFFSET: usize = METACOPY.end().next_multiple_of(SLOT_SIZE);

/// The address that means "a hole" in a chunk table.
pub(super) const NULL_ADDRESS: u32 = u32::MAX;

/// `erofs_super_block`.
pub(super) struct Superblock {
    pub(super) root_nid: u16,
    pub(super) inode_count: u64,
    /// Modification time of every compact inode, in seconds since 1970.
    pub(super) build_time: u64,
    pub(super) blocks: u32,
}

impl Superblock {
    pub(super) const BYTES: usize = 128;
    const MAGIC: u32 = 0xE0F5_E1E2;
    /// EROFS_FEATURE_COMPAT_MTIME: times are modification times.
    const COMPATIBLE_MTIME: u32 = 0x2;
    /// EROFS_FEATURE_INCOMPAT_CHUNKED_FILE.
    const INCOMPATIBLE_CHUNKED_FILE: u32 = 0x4;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        put(&mut bytes, 0, Self::MAGIC.to_le_bytes());
        put(&mut bytes, 8, Self::COMPATIBLE_MTIME.to_le_bytes());
        bytes[12] = BLOCK_SIZE_BITS;
        put(&mut bytes, 14, self.root_nid.to_le_bytes());
        put(&mut bytes, 16, self.inode_count.to_le_bytes());
        put(&mut bytes, 24, self.build_time.to_le_bytes());
        put(&mut bytes, 36, self.blocks.to_le_bytes());
        // meta_blkaddr (40) and xattr_blkaddr (44) stay 0: inodes and shared attributes are
        // addressed from the start of the image.
        put(&mut bytes, 80, Self::INCOMPATIBLE_CHUNKED_FILE.to_le_bytes());
        bytes
    }
}

/// How an inode's data is found (`i_format` bits 1 to 3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// All blocks are contiguous at `i_u`.
    FlatPlain = 0,
    /// Full blocks are contiguous at `i_u`, the rest follows the inode.
    FlatInline = 2,
    /// A table of chunk addresses follows the inode; `i_u` has the chunk size.
    ChunkBased = 4,
}

/// The type of a file, in a directory entry and in a mode.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    Regular = 1,
    Directory = 2,
    Symlink = 7,
}

impl FileType {
    const fn mode_bits(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// `erofs_inode_compact`, or `erofs_inode_extended` where size or link count need it.
pub(super) struct Inode {
    pub(super) file_type: FileType,
    pub(super) permissions: u16,
    /// User and group.
    pub(super) owner: u32,
    pub(super) links: u32,
    pub(super) size_bytes: u64,
    pub(super) layout: DataLayout,
    /// `i_u`: block address or chunk format, as `layout` says.
    pub(super) data: u32,
    /// `i_ino`, unique in the image.
    pub(super) number: u32,
    /// `i_xattr_icount`.
    pub(super) attribute_units: u16,
}

impl Inode {
    pub(super) const COMPACT_BYTES: usize = 32;
    pub(super) const EXTENDED_BYTES: usize = 64;

    /// How many bytes an inode of this size and link count takes.
    pub(super) const fn bytes(size_bytes: u64, links: u32) -> usize {
        if size_bytes > u32::MAX as u64 || links > u16::MAX as u32 {
            Self::EXTENDED_BYTES
        } else {
            Self::COMPACT_BYTES
        }
    }

    /// Writes the inode to the start of `at`; returns how many bytes it took.
    pub(super) fn write(&self, at: &mut [u8]) -> usize {
        let bytes = Self::bytes(self.size_bytes, self.links);
        let extended = bytes == Self::EXTENDED_BYTES;
        let format = ((self.layout as u16) << 1) | u16::from(extended);
        put(at, 0, format.to_le_bytes());
        put(at, 2, self.attribute_units.to_le_bytes());
        put(at, 4, (self.file_type.mode_bits() | self.permissions).to_le_bytes());
        put(at, 16, self.data.to_le_bytes());
        put(at, 20, self.number.to_le_bytes());
        if extended {
            put(at, 8, self.size_bytes.to_le_bytes());
            put(at, 24, self.owner.to_le_bytes());
            put(at, 28, self.owner.to_le_bytes());
            put(at, 32, MODIFIED_SECONDS.to_le_bytes());
            put(at, 44, self.links.to_le_bytes());
        } else {
            // Both owners that occur (0 and 65534) fit, and so do size and links.
            put(at, 6, (self.links as u16).to_le_bytes());
            put(at, 8, (self.size_bytes as u32).to_le_bytes());
            put(at, 24, (self.owner as u16).to_le_bytes());
            put(at, 26, (self.owner as u16).to_le_bytes());
        }
        bytes
    }
}

/// `erofs_dirent`: the fixed part of a directory entry.
pub(super) struct DirectoryEntry {
    pub(super) nid: u64,
    /// Offset of the name in its block.
    pub(super) name_offset: u16,
    pub(super) file_type: FileType,
}

impl DirectoryEntry {
    pub(super) const BYTES: usize = 12;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        put(&mut bytes, 0, self.nid.to_le_bytes());
        put(&mut bytes, 8, self.name_offset.to_le_bytes());
        bytes[10] = self.file_type as u8;
        bytes
    }
}

/// An extended attribute `trusted.<name>` (`erofs_xattr_entry`): head, name, value, padding.
pub(super) struct TrustedAttribute {
    name: &'static [u8],
}

impl TrustedAttribute {
    /// EROFS_XATTR_INDEX_TRUSTED: stands for the prefix `trusted.`.
    const PREFIX_TRUSTED: u8 = 4;
    const HEAD_BYTES: usize = 4;

    /// How many bytes the attribute takes with a value of `value_bytes`.
    pub(super) const fn bytes(&self, value_bytes: usize) -> usize {
        (Self::HEAD_BYTES + self.name.len() + value_bytes).next_multiple_of(4)
    }

    /// Offset of the value from the attribute's start.
    pub(super) const fn value_offset(&self) -> usize {
        Self::HEAD_BYTES + self.name.len()
    }

    /// Writes head and name for a value of `value_bytes`, which the caller puts behind them.
    pub(super) fn write_head(&self, at: &mut [u8], value_bytes: u16) {
        at[0] = self.name.len() as u8;
        at[1] = Self::PREFIX_TRUSTED;
        put(at, 2, value_bytes.to_le_bytes());
        at[Self::HEAD_BYTES..self.value_offset()].copy_from_slice(self.name);
    }
}

/// `trusted.overlay.redirect`: the path of the content, from the root of the data-only layer.
pub(super) const REDIRECT: TrustedAttribute = TrustedAttribute { name: b"overlay.redirect" };

/// `trusted.overlay.metacopy` with an empty value, stored once and shared by all files.
pub(super) const METACOPY: SharedAttribute = SharedAttribute {
    attribute: TrustedAttribute { name: b"overlay.metacopy" },
    offset: SUPERBLOCK_OFFSET + Superblock::BYTES,
};

/// An attribute without value that inodes refer to by its place.
pub(super) struct SharedAttribute {
    attribute: TrustedAttribute,
    offset: usize,
}

impl SharedAttribute {
    const fn end(&self) -> usize {
        self.offset + self.attribute.bytes(0)
    }

    /// What an inode's list of shared attributes holds: the offset in units of four bytes.
    pub(super) const fn reference(&self) -> u32 {
        (self.offset / 4) as u32
    }

    pub(super) fn write(&self, image: &mut [u8]) {
        self.attribute.write_head(&mut image[self.offset..], 0);
    }
}

/// `erofs_xattr_ibody_header` and one shared reference: what precedes an inode's own attributes.
pub(super) struct AttributeHeader;

impl AttributeHeader {
    const FIXED_BYTES: usize = 12;
    const REFERENCE_BYTES: usize = 4;
    pub(super) const BYTES: usize = Self::FIXED_BYTES + Self::REFERENCE_BYTES;

    /// `i_xattr_icount` of an inode with this header and `own_bytes` of attributes behind it.
    pub(super) const fn units(own_bytes: usize) -> u16 {
        (1 + (Self::REFERENCE_BYTES + own_bytes) / 4) as u16
    }

    pub(super) fn write(at: &mut [u8], shared: &SharedAttribute) {
        at[4] = 1; // h_shared_count
        put(at, Self::FIXED_BYTES, shared.reference().to_le_bytes());
    }
}

/// Overwrites the bytes at `offset`.
#[inline]
pub(super) fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) {
    bytes[offset..offset + N].copy_from_slice(&value);
}
