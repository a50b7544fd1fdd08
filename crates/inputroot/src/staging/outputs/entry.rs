//! The kinds of outputs.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use model::{Digest, DigestFunction, NodeProperties};
use rustix::io::Errno;
use store::{AdoptError, Adopted, Cas};

/// An error of reading the outputs.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A system call failed.
    #[error("{step}({path})")]
    Read {
        /// The system call.
        step: &'static str,
        /// The path, below the input root.
        path: String,
        /// The kernel's error.
        source: Errno,
    },
    /// There is no directory at the path.
    #[error("{path} is no directory")]
    NotADirectory {
        /// The path, below the input root.
        path: String,
    },
    /// A directory has more entries than the caller can take.
    #[error("{path} has more than {max_entries} entries")]
    TooManyEntries {
        /// The path, below the input root.
        path: String,
        /// The number that the caller can take.
        max_entries: usize,
    },
}

/// An output at a path, after the action.
#[derive(Debug)]
pub enum OutputEntry {
    /// A regular file.
    File(OutputFile),
    /// A directory; see [`OutputView::read_dir`].
    Directory,
    /// A symbolic link, with its target as the action wrote it: any bytes but NUL.
    Symlink(Vec<u8>),
    /// A FIFO, socket or device.
    Special,
}

/// A regular file after the action.
#[derive(Debug)]
pub enum OutputFile {
    /// A file on disk.
    Staged(StagedFile),
    /// An input that cannot have changed.
    Input {
        /// Its content.
        digest: Digest,
        /// Whether it can be executed.
        executable: bool,
        /// The time of modification and the mode that the action saw, both set.
        shown: NodeProperties,
    },
}

/// A regular file that the action made or changed.
#[derive(Debug, Clone)]
pub struct StagedFile {
    pub(super) directory: Arc<OwnedFd>,
    pub(super) name: CString,
    pub(super) must_copy: bool,
}

impl StagedFile {
    /// The file `name` in `directory`, which is all of it.
    pub fn new(directory: Arc<OwnedFd>, name: CString) -> Self {
        Self { directory, name, must_copy: false }
    }

    /// The directory that holds the file.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The file's name in it.
    pub fn name(&self) -> &std::ffi::CStr {
        &self.name
    }

    /// True if the file is only a view on content elsewhere, and cannot be moved away.
    pub fn must_copy(&self) -> bool {
        self.must_copy
    }

    /// Makes the file a blob; see [`Cas::adopt`]. A view is on a file system of its own (that of
    /// the overlay), so the store copies it.
    pub fn adopt(
        &self,
        cas: &Cas,
        function: DigestFunction,
        max_bytes: u64,
    ) -> Result<Adopted, AdoptError> {
        cas.adopt(function, self.directory.as_fd(), &self.name, max_bytes)
    }
}

/// One entry of a directory. The name is what the action chose: any bytes but `/` and NUL.
#[derive(Debug)]
pub struct NamedEntry {
    /// Its name in the directory.
    pub name: Vec<u8>,
    /// The entry.
    pub entry: OutputEntry,
}
