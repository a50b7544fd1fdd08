//! A directory on disk that is the content of a lower layer.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::directory::open_directory;

/// A directory that is deleted with all that is in it when this is dropped.
#[derive(Debug)]
pub(crate) struct LayerDirectory {
    parent: OwnedFd,
    name: CString,
}

impl LayerDirectory {
    /// Takes over `name` in `parent`, which may be still to be made.
    pub(crate) fn new(parent: OwnedFd, name: CString) -> Self {
        Self { parent, name }
    }

    fn delete(&self) -> Result<(), Errno> {
        let directory = match open_directory(&self.parent, &self.name) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        store::empty_directory(directory.as_fd())?;
        rustix::fs::unlinkat(&self.parent, &*self.name, AtFlags::REMOVEDIR)
    }
}

impl Drop for LayerDirectory {
    fn drop(&mut self) {
        if let Err(errno) = self.delete() {
            // It stays until the next start and is not used again.
            tracing::warn!(directory = ?self.name, %errno, "a tree of links could not be deleted");
        }
    }
}
