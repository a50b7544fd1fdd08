//! What an action left behind, seen safely.
//!
//! To be used when every process of the action is dead, so nothing moves any more. Nothing is
//! resolved through a symlink, whoever made it, and nothing outside the root can be reached.
//!
//! In strict mode an input cannot have changed: what the tree names is answered from the tree, and
//! only the rest is looked up in the directory that collected what the action created. In mutable
//! mode everything is looked up in the merged view; files that the action created whole are found
//! in the upper directory too and can be moved from there.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use model::{Digest, DigestFunction, Entry, Found, InputTree, RelPath};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use store::{AdoptError, Adopted, Cas};

use crate::access::Access;
use crate::error::PresentError;

/// Attributes by which overlayfs remembers that a file is not, or not wholly, the upper one's.
const OVERLAY_ATTRIBUTES: &[u8] = b"trusted.overlay.";

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

#[derive(Debug, Clone)]
enum Source {
    /// Inputs are as they were; `staging` has what the action created.
    Strict { tree: Arc<InputTree>, staging: Arc<OwnedFd> },
    /// Anything may have changed; `merged` has everything, `upper` what can be moved.
    Mutable { merged: Arc<OwnedFd>, upper: Arc<OwnedFd> },
}

impl OutputView {
    /// Of the root at `mount`, with what the action made in `upper`.
    pub(crate) fn over(
        access: Access,
        tree: &Arc<InputTree>,
        mount: &OwnedFd,
        upper: Arc<OwnedFd>,
    ) -> Result<Self, PresentError> {
        match access {
            Access::Strict => Ok(Self::strict(Arc::clone(tree), upper)),
            Access::Mutable => {
                let merged =
                    mount.try_clone().map_err(|source| PresentError::Descriptor { source })?;
                Ok(Self::mutable(Arc::new(merged), upper))
            }
        }
    }

    pub(crate) fn strict(tree: Arc<InputTree>, staging: Arc<OwnedFd>) -> Self {
        Self { source: Source::Strict { tree, staging } }
    }

    /// `upper` may be `merged` itself, where no second layer exists.
    pub(crate) fn mutable(merged: Arc<OwnedFd>, upper: Arc<OwnedFd>) -> Self {
        Self { source: Source::Mutable { merged, upper } }
    }

    /// What is at `path`; `None` if there is nothing, also because something on the way to it is
    /// not a directory.
    pub fn entry(&self, path: &RelPath) -> Result<Option<OutputEntry>, OutputError> {
        if let Source::Strict { tree, .. } = &self.source
            && let Some(found) = tree.lookup(path)
        {
            return Ok(Some(input(found)));
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Some(OutputEntry::Directory));
        };
        let Some(folder) = self.open(&parent)? else {
            return Ok(None);
        };
        // A component of a clean path has no NUL.
        let Ok(name) = CString::new(name) else {
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
        let too_many =
            || OutputError::TooManyEntries { path: path.as_str().to_owned(), max_entries };
        let mut listing = Vec::new();
        let mut inputs = None;
        if let Source::Strict { tree, .. } = &self.source
            && let Some(found) = tree.lookup(path)
        {
            let Found::Directory(index) = found else {
                return Err(OutputError::NotADirectory { path: path.as_str().to_owned() });
            };
            let content = &tree.directories()[index as usize].content;
            if content.len() > max_entries {
                return Err(too_many());
            }
            listing.extend(content.entries().map(named_input));
            inputs = Some(content);
        }
        let folder = self.open(path)?;
        if folder.is_none() && inputs.is_none() {
            return Err(OutputError::NotADirectory { path: path.as_str().to_owned() });
        }
        if let Some(folder) = folder {
            folder.list(|name, kind| {
                // What the tree names is the tree's, even if a strategy has a placeholder for it.
                if inputs.is_some_and(|inputs| inputs.get(name.to_bytes()).is_some()) {
                    return Ok(());
                }
                if listing.len() == max_entries {
                    return Err(too_many());
                }
                if let Some(entry) = folder.entry(name, kind)? {
                    listing.push(NamedEntry { name: name.to_bytes().to_vec(), entry });
                }
                Ok(())
            })?;
            listing.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(listing)
    }

    /// The directory at `path` on disk; `None` if there is none.
    fn open<'a>(&self, path: &'a RelPath) -> Result<Option<Folder<'a>>, OutputError> {
        let (directory, movable) = match &self.source {
            Source::Strict { staging, .. } => (open_beneath(staging, path)?, Movable::Everything),
            Source::Mutable { merged, upper } => {
                (open_beneath(merged, path)?, Movable::Unmarked(open_beneath(upper, path)?))
            }
        };
        Ok(directory.map(|directory| Folder { path, directory, movable }))
    }
}

fn input(found: Found<'_>) -> OutputEntry {
    match found {
        Found::File { digest, executable } => {
            OutputEntry::File(OutputFile::Input { digest, executable })
        }
        Found::Directory(_) => OutputEntry::Directory,
        Found::Symlink { target } => OutputEntry::Symlink(target.to_vec()),
    }
}

fn named_input(entry: Entry<'_>) -> NamedEntry {
    let name = entry.name().to_vec();
    let entry = match entry {
        Entry::File { digest, executable, .. } => {
            OutputEntry::File(OutputFile::Input { digest, executable })
        }
        Entry::Directory { .. } => OutputEntry::Directory,
        Entry::Symlink { target, .. } => OutputEntry::Symlink(target.to_vec()),
    };
    NamedEntry { name, entry }
}

/// Opens the directory at `path`; `None` if there is none, or a symlink is on the way.
fn open_beneath(root: &Arc<OwnedFd>, path: &RelPath) -> Result<Option<Arc<OwnedFd>>, OutputError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let text = if path.is_root() { "." } else { path.as_str() };
    match rustix::fs::openat2(&**root, text, flags, Mode::empty(), resolve) {
        Ok(directory) => Ok(Some(Arc::new(directory))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => {
            Err(OutputError::Read { step: "openat2", path: path.as_str().to_owned(), errno })
        }
    }
}

/// An open directory of the view.
struct Folder<'a> {
    path: &'a RelPath,
    directory: Arc<OwnedFd>,
    movable: Movable,
}

/// Which of a folder's files can be moved away.
enum Movable {
    /// All: the folder is where they are.
    Everything,
    /// Those that are in this directory too, if there is one, without marks of overlayfs.
    Unmarked(Option<Arc<OwnedFd>>),
}

impl Folder<'_> {
    /// What is under `name`; `kind` is what a listing said about it.
    fn entry(
        &self,
        name: &std::ffi::CStr,
        kind: FileType,
    ) -> Result<Option<OutputEntry>, OutputError> {
        let kind = match kind {
            FileType::Unknown => self.kind(name)?,
            known => Some(known),
        };
        let Some(kind) = kind else { return Ok(None) };
        Ok(Some(match kind {
            FileType::RegularFile => OutputEntry::File(OutputFile::Staged(self.file(name)?)),
            FileType::Directory => OutputEntry::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&*self.directory, name, Vec::new())
                    .map_err(|errno| self.failed("readlinkat", name, errno))?;
                OutputEntry::Symlink(target.into_bytes())
            }
            _ => OutputEntry::Special,
        }))
    }

    fn kind(&self, name: &std::ffi::CStr) -> Result<Option<FileType>, OutputError> {
        match rustix::fs::statat(&*self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("fstatat", name, errno)),
        }
    }

    fn file(&self, name: &std::ffi::CStr) -> Result<StagedFile, OutputError> {
        let (directory, must_copy) = match &self.movable {
            Movable::Everything => (&self.directory, false),
            Movable::Unmarked(Some(upper)) if self.is_unmarked(upper, name)? => (upper, false),
            Movable::Unmarked(_) => (&self.directory, true),
        };
        Ok(StagedFile { directory: Arc::clone(directory), name: name.to_owned(), must_copy })
    }

    /// Whether the upper directory has a regular file there that is all of the file: a copy that
    /// overlayfs made may lack its content, and carries marks in any case.
    fn is_unmarked(&self, upper: &OwnedFd, name: &std::ffi::CStr) -> Result<bool, OutputError> {
        let failed = |step| move |errno| self.failed(step, name, errno);
        // O_NONBLOCK: what is in the way may be a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(upper, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(false),
            Err(errno) => return Err(self.failed("openat(upper)", name, errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed("fstat(upper)"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        // Attributes that do not fit were not all set by overlayfs; such a file is copied.
        let mut names = [0; 1024];
        match rustix::fs::flistxattr(&file, &mut names) {
            Ok(length) => {
                let mut names = names[..length].split(|byte| *byte == 0);
                Ok(!names.any(|name| name.starts_with(OVERLAY_ATTRIBUTES)))
            }
            Err(Errno::RANGE) => Ok(false),
            Err(Errno::NOTSUP) => Ok(true),
            Err(errno) => Err(self.failed("flistxattr(upper)", name, errno)),
        }
    }

    fn list(
        &self,
        mut visit: impl FnMut(&std::ffi::CStr, FileType) -> Result<(), OutputError>,
    ) -> Result<(), OutputError> {
        /// 32 KiB is what getdents64 fills at most in one call.
        const BUFFER_BYTES: usize = 32 << 10;
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(&*self.directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| self.failed("getdents64", c"", errno))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                visit(entry.file_name(), entry.file_type())?;
            }
        }
        Ok(())
    }

    fn failed(&self, step: &'static str, name: &std::ffi::CStr, errno: Errno) -> OutputError {
        let path = format!("{}/{}", self.path.as_str(), name.to_string_lossy());
        OutputError::Read { step, path, errno }
    }
}
