//! Moves damaged blobs away from their names.
//!
//! A blob is damaged when the disk cannot read it, when its size or content has changed, or when
//! something else than a regular file has its name. Moving it away makes the blob missing, so that the
//! next upload stores it again. Some of the damaged files are kept for the operator to look at.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Digest;
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use crate::blob_path::BlobPath;
use crate::disk::{renameat, unlinkat};
use crate::empty_directory::each_entry;

/// The number of files that are kept. More would tell the operator nothing new, and they take room
/// from blobs.
const FILES_MAX: u64 = 64;

/// The directory of damaged blobs, and what is in it.
pub(crate) struct Quarantine {
    directory: OwnedFd,
    files: AtomicU64,
    bytes: AtomicU64,
    taken: AtomicU64,
}

impl Quarantine {
    /// Counts what is in the directory, which stays there.
    pub(crate) fn new(directory: OwnedFd) -> rustix::io::Result<Self> {
        let (mut files, mut bytes) = (0, 0);
        each_entry(&directory, |name, _| -> Result<(), Errno> {
            let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            files += 1;
            bytes += stat.st_blocks as u64 * 512;
            Ok(())
        })?;
        Ok(Self {
            directory,
            files: AtomicU64::new(files),
            bytes: AtomicU64::new(bytes),
            taken: AtomicU64::new(0),
        })
    }

    /// The number of files that are kept.
    pub(crate) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// The disk space that they take, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The number of damaged blobs since the start, whether they were kept or not.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Moves the file under a blob's name, which takes `cost` bytes of the disk, into the directory,
    /// or deletes it. Returns whether it was kept.
    pub(crate) fn take(
        &self,
        blobs: &OwnedFd,
        digest: &Digest,
        cost: u64,
    ) -> rustix::io::Result<bool> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        let path = BlobPath::new(digest);
        if self.files.load(Ordering::Relaxed) < FILES_MAX {
            let name = format!("{}-{}", digest.function().name(), digest.hex());
            match renameat(blobs, path.as_c_str(), &self.directory, &name) {
                Ok(()) => {
                    self.files.fetch_add(1, Ordering::Relaxed);
                    self.bytes.fetch_add(cost, Ordering::Relaxed);
                    return Ok(true);
                }
                Err(Errno::NOENT) => return Ok(false),
                // A directory of that name is there, and is kept.
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

/// Whether an error concerns that one file. Others, such as a lack of descriptors or memory, pass.
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
