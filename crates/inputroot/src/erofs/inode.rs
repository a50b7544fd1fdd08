//! Inodes of directories and symlinks, compact where that suffices: only an extended one has a time of
//! its own.

use std::mem::size_of;

use model::{ACTION_ID, Mtime, NodeProperties};
use zerocopy::{FromZeros, IntoBytes};

use super::format::{DataLayout, FileType, InodeCompact, InodeExtended};
use crate::access::modified;

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
    /// `None` for the time of the whole image.
    pub(super) mtime: Option<Mtime>,
}

impl Inode {
    /// The bytes that an inode of this size and link count takes, with or without a time of its own.
    pub(super) const fn bytes(size_bytes: u64, nlink: u32, has_mtime: bool) -> usize {
        if has_mtime || size_bytes > u32::MAX as u64 || nlink > u16::MAX as u32 {
            size_of::<InodeExtended>()
        } else {
            size_of::<InodeCompact>()
        }
    }

    /// Writes the inode to the start of `at`.
    pub(super) fn write(&self, at: &mut [u8]) {
        if self.is_extended() {
            at[..size_of::<InodeExtended>()].copy_from_slice(self.extended().as_bytes());
        } else {
            at[..size_of::<InodeCompact>()].copy_from_slice(self.compact().as_bytes());
        }
    }

    /// Appends the inode to `image`.
    pub(super) fn append(&self, image: &mut Vec<u8>) {
        if self.is_extended() {
            image.extend_from_slice(self.extended().as_bytes());
        } else {
            image.extend_from_slice(self.compact().as_bytes());
        }
    }

    fn is_extended(&self) -> bool {
        let bytes = Self::bytes(self.size_bytes, self.nlink, self.mtime.is_some());
        bytes == size_of::<InodeExtended>()
    }

    fn mode(&self) -> u16 {
        self.file_type.mode_bits() | self.permissions
    }

    /// Size and links fit, as [`Self::bytes`] has seen.
    fn compact(&self) -> InodeCompact {
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
        let mtime = modified(&NodeProperties { mtime: self.mtime, unix_mode: None });
        InodeExtended {
            i_format: self.layout.extended(),
            i_mode: self.mode().into(),
            i_size: self.size_bytes.into(),
            i_u: self.blkaddr.into(),
            i_ino: self.ino.into(),
            i_uid: ACTION_ID.into(),
            i_gid: ACTION_ID.into(),
            i_mtime: mtime_seconds(mtime).into(),
            i_mtime_nsec: mtime.nanos.into(),
            i_nlink: self.nlink.into(),
            ..FromZeros::new_zeroed()
        }
    }
}

const _: () = assert!(ACTION_ID <= u16::MAX as u32);

/// `i_mtime`: the kernel reads it as a signed number.
pub(super) const fn mtime_seconds(mtime: Mtime) -> u64 {
    mtime.seconds as u64
}
