//! The disk that holds the guest's store: a sparse raw file, and a lock on it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// The smallest disk that a store fits on: the guest's empty file system has this size.
const MIN_MIB: u64 = 256;

/// Errors of making the disk.
#[derive(Debug, thiserror::Error)]
pub enum CasImageError {
    /// The file can't be opened, made or grown.
    #[error("the CAS image {}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Another VM has it: two guests on one disk destroy it.
    #[error("the CAS image {} is in use by another VM", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// It is neither a file nor a block device.
    #[error("the CAS image {} is neither a file nor a block device", path.display())]
    NotADisk {
        /// The image.
        path: PathBuf,
    },
    /// A size that no file system fits in.
    #[error("a CAS image of {size_mib} MiB, at least {MIN_MIB} are needed")]
    TooSmall {
        /// As asked for.
        size_mib: u64,
    },
}

/// The disk, locked against other VMs until this is dropped, or the process ends.
#[derive(Debug)]
pub struct CasImage {
    path: PathBuf,
    blank: bool,
    size_bytes: u64,
    _lock: File,
}

impl CasImage {
    /// Opens the image at `path`, which is made if it is not there: sparse, `size_mib` MiB, for the
    /// user alone. An image that is smaller grows to that size, which the guest's file system
    /// follows; a larger one stays as it is.
    ///
    /// # Errors
    /// See [`CasImageError`].
    pub fn open(path: &Path, size_mib: u64) -> Result<Self, CasImageError> {
        if size_mib < MIN_MIB {
            return Err(CasImageError::TooSmall { size_mib });
        }
        let failed = |source| CasImageError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() && !metadata.file_type().is_block_device() {
            return Err(CasImageError::NotADisk { path: path.to_owned() });
        }
        // Before anything is changed: its owner may be running.
        lock(&file, path)?;
        if metadata.is_file() && metadata.len() < size_mib.saturating_mul(MIB) {
            file.set_len(size_mib.saturating_mul(MIB)).map_err(failed)?;
        }
        let size_bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        // Not a single block was ever written: also true when we made it and were killed before a
        // guest could make a file system on it.
        let blank = metadata.is_file() && metadata.blocks() == 0;
        let path = path.canonicalize().map_err(failed)?;
        Ok(Self { path, blank, size_bytes, _lock: file })
    }

    /// The file, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds nothing at all, so that the guest may make a file system on it.
    pub fn is_blank(&self) -> bool {
        self.blank
    }

    /// Its size, in bytes; most of it is not allocated.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// An advisory lock on the open file (flock(2)): gone with the process, however it ends.
fn lock(file: &File, path: &Path) -> Result<(), CasImageError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(CasImageError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => {
            Err(CasImageError::Io { path: path.to_owned(), source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cas_image_is_sparse_blank_and_locked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cas.ext4");
        let image = CasImage::open(&path, 32_768).unwrap();
        assert!(image.is_blank());
        assert_eq!(image.size_bytes(), 32 << 30);
        let error = CasImage::open(&path, 32_768).unwrap_err();
        let expected = format!("the CAS image {} is in use by another VM", path.display());
        assert_eq!(error.to_string(), expected);
        drop(image);
        CasImage::open(&path, 32_768).unwrap();
    }

    #[test]
    fn a_cas_image_that_was_written_to_is_not_blank_and_only_grows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cas.ext4");
        std::fs::write(&path, b"something").unwrap();
        let image = CasImage::open(&path, 512).unwrap();
        assert!(!image.is_blank());
        assert_eq!(image.size_bytes(), 512 * MIB);
        drop(image);
        assert_eq!(CasImage::open(&path, 256).unwrap().size_bytes(), 512 * MIB);
    }

    #[test]
    fn a_cas_image_must_be_a_disk_of_some_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cas.ext4");
        let error = CasImage::open(&path, 255).unwrap_err();
        assert!(matches!(error, CasImageError::TooSmall { size_mib: 255 }));
        let error = CasImage::open(Path::new("/dev/null"), 512).unwrap_err();
        assert!(matches!(error, CasImageError::NotADisk { .. }), "{error}");
        let error = CasImage::open(&directory.path().join("no/dir"), 512).unwrap_err();
        assert!(matches!(error, CasImageError::Io { .. }), "{error}");
    }
}
