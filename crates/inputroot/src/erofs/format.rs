//! The structures of the EROFS disk format that the images use.
//!
//! Names are those of the kernel's `fs/erofs/erofs_fs.h`. All numbers are little-endian, and no
//! structure needs an alignment.

use std::mem::size_of;

use model::DigestFunction;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::access::MODIFIED_SECONDS;

/// Size of a block; the only one that every kernel with EROFS can mount.
pub(super) const BLOCK_SIZE: usize = 1 << BLOCK_SIZE_BITS;
pub(super) const BLOCK_SIZE_BITS: u8 = 12;
/// The offset of an inode in units of this is its number.
pub(super) const SLOT_SIZE: usize = 32;
/// Offset of the superblock.
pub(super) const SUPER_OFFSET: usize = 1024;
/// Offset of the one shared extended attribute.
pub(super) const SHARED_XATTR_OFFSET: usize = SUPER_OFFSET + size_of::<SuperBlock>();
/// The first byte behind the superblock and the shared attribute at which an inode may lie.
pub(super) const FIRST_INODE_OFFSET: usize =
    (SHARED_XATTR_OFFSET + size_of::<Metacopy>()).next_multiple_of(SLOT_SIZE);

/// EROFS_NULL_ADDR: a chunk without data.
pub(super) const NULL_ADDR: U32 = U32::new(u32::MAX);
/// EROFS_NAME_LEN.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) const NAME_LEN: usize = 255;
/// EROFS_FEATURE_COMPAT_MTIME: times are modification times.
pub(super) const FEATURE_COMPAT_MTIME: u32 = 0x2;
/// EROFS_FEATURE_INCOMPAT_CHUNKED_FILE.
pub(super) const FEATURE_INCOMPAT_CHUNKED_FILE: u32 = 0x4;
#[cfg(any(test, feature = "fuzzing"))]
/// EROFS_CHUNK_FORMAT_BLKBITS_MASK. Other bits of a chunk format mean features that no image has.
pub(super) const CHUNK_FORMAT_BLKBITS_MASK: u16 = 0x1f;

/// `erofs_super_block`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SuperBlock {
    pub(super) magic: U32,
    pub(super) checksum: U32,
    pub(super) feature_compat: U32,
    pub(super) blkszbits: u8,
    pub(super) sb_extslots: u8,
    pub(super) root_nid: U16,
    pub(super) inos: U64,
    /// Modification time of every compact inode, in seconds since 1970.
    pub(super) build_time: U64,
    pub(super) build_time_nsec: U32,
    pub(super) blocks: U32,
    pub(super) meta_blkaddr: U32,
    pub(super) xattr_blkaddr: U32,
    pub(super) uuid: [u8; 16],
    pub(super) volume_name: [u8; 16],
    pub(super) feature_incompat: U32,
    pub(super) available_compr_algs: U16,
    pub(super) extra_devices: U16,
    pub(super) devt_slotoff: U16,
    pub(super) dirblkbits: u8,
    pub(super) xattr_prefix_count: u8,
    pub(super) xattr_prefix_start: U32,
    pub(super) packed_nid: U64,
    pub(super) xattr_filter_reserved: u8,
    pub(super) reserved2: [u8; 23],
}

impl SuperBlock {
    /// EROFS_SUPER_MAGIC_V1.
    pub(super) const MAGIC: U32 = U32::new(0xE0F5_E1E2);

    /// The superblock of an image without checksum. Inodes and shared attributes are addressed from
    /// the start of the image.
    pub(super) fn new(root_nid: u16, inos: u64, blocks: u32) -> Self {
        Self {
            magic: Self::MAGIC,
            feature_compat: FEATURE_COMPAT_MTIME.into(),
            blkszbits: BLOCK_SIZE_BITS,
            root_nid: root_nid.into(),
            inos: inos.into(),
            build_time: MODIFIED_SECONDS.into(),
            blocks: blocks.into(),
            feature_incompat: FEATURE_INCOMPAT_CHUNKED_FILE.into(),
            ..zerocopy::FromZeros::new_zeroed()
        }
    }
}

/// The layout of an inode's data (`EROFS_INODE_*`, bits 1 to 3 of `i_format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// All blocks are contiguous at `i_u`.
    FlatPlain = 0,
    /// Full blocks are contiguous at `i_u`, and the rest follows the inode.
    FlatInline = 2,
    /// A table of chunk addresses follows the inode, and `i_u` has the chunk size.
    ChunkBased = 4,
}

impl DataLayout {
    /// `i_format` of a compact inode.
    pub(super) const fn compact(self) -> U16 {
        U16::new((self as u16) << 1)
    }

    /// `i_format` of an extended inode.
    pub(super) const fn extended(self) -> U16 {
        U16::new((self as u16) << 1 | 1)
    }
}

/// The type of a file, in a directory entry and in a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    Regular = 1,
    Directory = 2,
    Symlink = 7,
}

impl FileType {
    /// `S_IFMT`.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) const MODE_MASK: u16 = 0o170_000;

    /// Its bits in `i_mode`.
    pub(super) const fn mode_bits(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
        }
    }
}

/// `erofs_inode_compact`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InodeCompact {
    pub(super) i_format: U16,
    pub(super) i_xattr_icount: U16,
    pub(super) i_mode: U16,
    pub(super) i_nlink: U16,
    pub(super) i_size: U32,
    pub(super) i_reserved: U32,
    /// A block address or a chunk format, as the data layout says.
    pub(super) i_u: U32,
    /// Unique in the image.
    pub(super) i_ino: U32,
    pub(super) i_uid: U16,
    pub(super) i_gid: U16,
    pub(super) i_reserved2: U32,
}

/// `erofs_inode_extended`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InodeExtended {
    pub(super) i_format: U16,
    pub(super) i_xattr_icount: U16,
    pub(super) i_mode: U16,
    pub(super) i_reserved: U16,
    pub(super) i_size: U64,
    pub(super) i_u: U32,
    pub(super) i_ino: U32,
    pub(super) i_uid: U32,
    pub(super) i_gid: U32,
    pub(super) i_mtime: U64,
    pub(super) i_mtime_nsec: U32,
    pub(super) i_nlink: U32,
    pub(super) i_reserved2: [u8; 16],
}

/// `erofs_dirent`. The names of a block follow its array of these.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Dirent {
    pub(super) nid: U64,
    /// Offset of the name in its block.
    pub(super) nameoff: U16,
    pub(super) file_type: u8,
    pub(super) reserved: u8,
}

/// `erofs_xattr_ibody_header`. Precedes the numbers of an inode's shared attributes, which are their
/// offsets in units of four bytes, and its own attributes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct XattrIbodyHeader {
    pub(super) h_name_filter: U32,
    pub(super) h_shared_count: u8,
    pub(super) h_reserved2: [u8; 7],
}

impl XattrIbodyHeader {
    /// `i_xattr_icount` of an inode with `bytes` behind this header.
    pub(super) const fn icount(bytes: usize) -> U16 {
        U16::new((1 + bytes / 4) as u16)
    }
}

/// `erofs_xattr_entry`. Name and value follow, padded to four bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct XattrEntry {
    pub(super) e_name_len: u8,
    pub(super) e_name_index: u8,
    pub(super) e_value_size: U16,
}

impl XattrEntry {
    /// EROFS_XATTR_INDEX_TRUSTED: stands for the prefix `trusted.`.
    pub(super) const INDEX_TRUSTED: u8 = 4;

    const fn trusted(name: &[u8], value_bytes: usize) -> Self {
        Self {
            e_name_len: name.len() as u8,
            e_name_index: Self::INDEX_TRUSTED,
            e_value_size: U16::new(value_bytes as u16),
        }
    }
}

/// `overlay.metacopy`, the name of the shared attribute behind `trusted.`.
pub(super) const METACOPY_NAME: [u8; 16] = *b"overlay.metacopy";
/// `overlay.redirect`, the name of each file's attribute behind `trusted.`.
pub(super) const REDIRECT_NAME: [u8; 16] = *b"overlay.redirect";

/// `trusted.overlay.metacopy` with an empty value: the file has no content of its own.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Metacopy {
    entry: XattrEntry,
    name: [u8; METACOPY_NAME.len()],
}

impl Metacopy {
    pub(super) const NEW: Self =
        Self { entry: XattrEntry::trusted(&METACOPY_NAME, 0), name: METACOPY_NAME };
}

/// Characters of the directory that holds the blobs whose hash begins with them.
const SHARD_CHARS: usize = 2;

/// The part of a file with content behind its inode, up to the next slot: the header of its extended
/// attributes, the number of the shared one, its redirect, and a chunk table of one entry.
///
/// `trusted.overlay.redirect` says that the content is the file `/<function>/<shard>/<hash>` of the
/// data-only layer. Its length is that of the digest function.
pub(super) struct FileBody {
    bytes: Vec<u8>,
    /// Offset of the shard in the bytes.
    shard_at: usize,
    /// Offset of the hash in the bytes.
    hash_at: usize,
    icount: U16,
}

impl FileBody {
    /// A body whose hash is still to be set.
    pub(super) fn new(function: DigestFunction) -> Self {
        let header = XattrIbodyHeader { h_shared_count: 1, ..zerocopy::FromZeros::new_zeroed() };
        let prefix = format!("/{}/", function.name());
        let hash_chars = 2 * function.hash_bytes();
        let path_bytes = prefix.len() + SHARD_CHARS + 1 + hash_chars;
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(U32::new((SHARED_XATTR_OFFSET / 4) as u32).as_bytes());
        bytes.extend_from_slice(XattrEntry::trusted(&REDIRECT_NAME, path_bytes).as_bytes());
        bytes.extend_from_slice(&REDIRECT_NAME);
        bytes.extend_from_slice(prefix.as_bytes());
        let shard_at = bytes.len();
        bytes.extend_from_slice(&[0; SHARD_CHARS]);
        bytes.push(b'/');
        let hash_at = bytes.len();
        bytes.resize((hash_at + hash_chars).next_multiple_of(4), 0);
        let icount = XattrIbodyHeader::icount(bytes.len() - size_of::<XattrIbodyHeader>());
        bytes.extend_from_slice(NULL_ADDR.as_bytes());
        // Inodes begin at slots.
        bytes.resize(bytes.len().next_multiple_of(SLOT_SIZE), 0);
        Self { bytes, shard_at, hash_at, icount }
    }

    /// `i_xattr_icount` of the inode before it.
    pub(super) fn icount(&self) -> U16 {
        self.icount
    }

    #[inline]
    pub(super) fn set_hash(&mut self, hash: &[u8]) {
        self.bytes[self.shard_at..][..SHARD_CHARS].copy_from_slice(&hash[..SHARD_CHARS]);
        self.bytes[self.hash_at..][..hash.len()].copy_from_slice(hash);
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

const _: () = {
    assert!(size_of::<SuperBlock>() == 128);
    assert!(size_of::<InodeCompact>() == 32);
    assert!(size_of::<InodeExtended>() == 64);
    assert!(size_of::<Dirent>() == 12);
    assert!(size_of::<XattrIbodyHeader>() == 12);
    assert!(size_of::<XattrEntry>() == 4);
    // The padding of attributes is theirs.
    assert!(size_of::<Metacopy>().is_multiple_of(4));
};
