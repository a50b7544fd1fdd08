//! Inodes of directories and symlinks, compact where that suffices.

use std::mem::size_of;

use model::ACTION_ID;
use zerocopy::{FromZeros, IntoBytes};

use super::format::{DataLayout, FileType, InodeCompact, InodeExtended};
use crate::access::MODIFIED_SECONDS;

/// An inode without extended attributes that belongs to the action.
pub(super) struct Inode {
    pub(super) file_type: FileType,
    pub(super) permissions: u16,
    pub(super) nlink: u32,
    pub(super) size_bytes: u64,
    pub(super) layout: DataLayout,
    /// `i_u`: a block address.
    pub(super) blkaddr: u32,
    pub(super) ino: u32,
}

impl Inode {
    /// The bytes that an inode of this size and link count takes.
    pub(super) const fn bytes(size_bytes: u64, nlink: u32) -> usize {
        if size_bytes > u32::MAX as u64 || nlink > u16::MAX as u32 {
            size_of::<InodeExtended>()
        } else {
            size_of::<InodeCompact>()
        }
    }

    /// Writes the inode to the start of `at`.
    pub(super) fn write(&self, at: &mut [u8]) {
        if Self::bytes(self.size_bytes, self.nlink) == size_of::<InodeExtended>() {
            at[..size_of::<InodeExtended>()].copy_from_slice(self.extended().as_bytes());
        } else {
            at[..size_of::<InodeCompact>()].copy_from_slice(self.compact().as_bytes());
        }
    }

    fn mode(&self) -> u16 {
        self.file_type.mode_bits() | self.permissions
    }

    /// Size and links fit, as [`Self::bytes`] has seen.
    pub(super) fn compact(&self) -> InodeCompact {
        let owner = (ACTION_ID as u16).into();
        InodeCompact {
            i_format: self.layout.compact(),
            i_mode: self.mode().into(),
            i_nlink: (self.nlink as u16).into(),
            i_size: (self.size_bytes as u32).into(),
            i_u: self.blkaddr.into(),
            i_ino: self.ino.into(),
            i_uid: owner,
            i_gid: owner,
            ..FromZeros::new_zeroed()
        }
    }

    fn extended(&self) -> InodeExtended {
        InodeExtended {
            i_format: self.layout.extended(),
            i_mode: self.mode().into(),
            i_size: self.size_bytes.into(),
            i_u: self.blkaddr.into(),
            i_ino: self.ino.into(),
            i_uid: ACTION_ID.into(),
            i_gid: ACTION_ID.into(),
            i_mtime: MODIFIED_SECONDS.into(),
            i_nlink: self.nlink.into(),
            ..FromZeros::new_zeroed()
        }
    }
}

const _: () = assert!(ACTION_ID <= u16::MAX as u32);
