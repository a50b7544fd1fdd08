//! What an action left behind, seen safely.
//!
//! To be used when every process of the action is dead, so nothing moves any more. Nothing is
//! resolved through a symlink, whoever made it, and nothing outside the root can be reached.
//!
//! Every path is looked up in what the action sees, which is what it left: it may have moved or
//! removed inputs, and made directories of the tree anew. A file can become a blob without a copy
//! where it was made by the action as a whole; an input that lies where the tree has it is answered
//! from the tree.

mod folder;
pub(crate) mod origin;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use model::{Digest, DigestFunction, InputTree, RelPath};
use rustix::fs::FileType;
use rustix::io::Errno;
use store::{AdoptError, Adopted, Cas};

use folder::{Files, Folder, open_beneath};

/// Why the outputs could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A system call failed.
    #[error("{step}({path}): {errno}")]
    Read {
        /// The system call.
        step: &'static str,
        /// What it was about, below the input root.
        path: String,
        /// What the kernel answered.
        errno: Errno,
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
        /// How many the caller can take.
        max_entries: usize,
    },
}

/// What is at a path after the action.
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
    },
}

/// A regular file that the action made or changed.
#[derive(Debug, Clone)]
pub struct StagedFile {
    directory: Arc<OwnedFd>,
    name: CString,
    must_copy: bool,
}

impl StagedFile {
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
    /// What it is.
    pub entry: OutputEntry,
}

/// A view on an input root after its action.
#[derive(Debug, Clone)]
pub struct OutputView {
    source: Source,
}

/// Where to look.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// An overlay whose input files are root's. `merged` is what the action saw, `upper` has what
    /// it made and moved.
    Overlay { tree: Arc<InputTree>, merged: Arc<OwnedFd>, upper: Arc<OwnedFd> },
    /// A directory that has everything. Root's regular files are inputs, or stand for them.
    Bound { tree: Arc<InputTree>, root: Arc<OwnedFd> },
    /// Every file may have been changed. `merged` is what the action saw, `upper` has what can be
    /// moved; they are one where there is no second layer.
    Mutable { merged: Arc<OwnedFd>, upper: Arc<OwnedFd> },
}

impl OutputView {
    pub(crate) fn new(source: Source) -> Self {
        Self { source }
    }

    /// What is at `path`; `None` if there is nothing, also because something on the way to it is
    /// not a directory.
    pub fn entry(&self, path: &RelPath) -> Result<Option<OutputEntry>, OutputError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Some(OutputEntry::Directory));
        };
        // A component of a clean path has no NUL.
        let Ok(name) = CString::new(name) else {
            return Ok(None);
        };
        // Most outputs are files that the action made, and found without a look at the overlay.
        if let Source::Overlay { upper, .. } = &self.source
            && let Some(made) = open_beneath(upper, &parent)?
            && let Some(entry) = Folder::made(&parent, made).made_entry(&name)?
        {
            return Ok(Some(entry));
        }
        let Some(folder) = self.open(&parent)? else {
            return Ok(None);
        };
        folder.entry(&name, FileType::Unknown)
    }

    /// Everything in the directory at `path`, sorted by the bytes of the names.
    ///
    /// A directory with more than `max_entries` is refused rather than listed in part: an action
    /// can make as many files as the disk has room for.
    pub fn read_dir(
        &self,
        path: &RelPath,
        max_entries: usize,
    ) -> Result<Vec<NamedEntry>, OutputError> {
        let Some(folder) = self.open(path)? else {
            return Err(OutputError::NotADirectory { path: path.as_str().to_owned() });
        };
        let mut listing = Vec::new();
        folder.list(|name, kind| {
            if listing.len() == max_entries {
                return Err(OutputError::TooManyEntries {
                    path: path.as_str().to_owned(),
                    max_entries,
                });
            }
            if let Some(entry) = folder.entry(name, kind)? {
                listing.push(NamedEntry { name: name.to_bytes().to_vec(), entry });
            }
            Ok(())
        })?;
        listing.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(listing)
    }

    /// The directory at `path` as the action left it; `None` if there is none.
    fn open<'a>(&'a self, path: &'a RelPath) -> Result<Option<Folder<'a>>, OutputError> {
        let root = match &self.source {
            Source::Overlay { merged, .. } | Source::Mutable { merged, .. } => merged,
            Source::Bound { root, .. } => root,
        };
        let Some(directory) = open_beneath(root, path)? else {
            return Ok(None);
        };
        let files = match &self.source {
            Source::Overlay { tree, upper, .. } => {
                Files::by_owner(tree, upper, open_beneath(upper, path)?)
            }
            Source::Bound { tree, .. } => Files::Bound { tree },
            Source::Mutable { upper, .. } => Files::Unmarked(open_beneath(upper, path)?),
        };
        Ok(Some(Folder::new(path, directory, files)))
    }
}
