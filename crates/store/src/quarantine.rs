//! Where files go that stood under a blob's name and are no such blob.
//!
//! The disk could not give them back, or they changed, or they are no files. They are kept for the
//! operator to look at, a few of them; what matters is that the name is free, so that the blob is
//! missing and the next upload brings it back.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Digest;
use rustix::fs::{AtFlags, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::blob_path::BlobPath;
use crate::empty_directory::each_entry;

/// So many are kept; more say nothing new, and take room from blobs.
const FILES_MAX: u64 = 64;

/// See the module.
pub(crate) struct Quarantine {
    directory: OwnedFd,
    files: AtomicU64,
    bytes_at_open: u64,
}

impl Quarantine {
    /// What is in the directory stays.
    pub(crate) fn new(directory: OwnedFd) -> rustix::io::Result<Self> {
        let (mut files, mut bytes_at_open) = (0, 0);
        each_entry(&directory, |name, _| -> Result<(), Errno> {
            let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            files += 1;
            bytes_at_open += stat.st_blocks as u64 * 512;
            Ok(())
        })?;
        Ok(Self { directory, files: AtomicU64::new(files), bytes_at_open })
    }

    /// What the files take of the disk that were there at the start.
    pub(crate) fn bytes_at_open(&self) -> u64 {
        self.bytes_at_open
    }

    /// Takes what stands under a blob's name away from there. Returns whether it was kept.
    pub(crate) fn take(&self, blobs: &OwnedFd, digest: &Digest) -> rustix::io::Result<bool> {
        let path = BlobPath::new(digest);
        if self.files.load(Ordering::Relaxed) < FILES_MAX {
            let name = format!("{}-{}", digest.function().name(), digest.hex());
            match renameat(blobs, path.as_c_str(), &self.directory, &name) {
                Ok(()) => {
                    self.files.fetch_add(1, Ordering::Relaxed);
                    return Ok(true);
                }
                Err(Errno::NOENT) => return Ok(false),
                // Another one of that name is there, of another kind: that one is kept.
                Err(_) => {}
            }
        }
        match unlinkat(blobs, path.as_c_str(), AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                unlinkat(blobs, path.as_c_str(), AtFlags::REMOVEDIR).map(|()| false)
            }
            Ok(()) | Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Whether an error is of that file, and not of a want of descriptors or memory that passes.
pub(crate) fn is_of_file(error: Errno) -> bool {
    matches!(
        error,
        Errno::IO
            | Errno::LOOP
            | Errno::NXIO
            | Errno::ISDIR
            | Errno::NODEV
            | Errno::UCLEAN
            | Errno::BADMSG
            | Errno::NODATA
            | Errno::AGAIN
    )
}
