//! One directory that an action left, and its entries.

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::{Digest, Entry, Found, InputTree, NodeProperties, RelPath};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use super::entry::{OutputEntry, OutputError, OutputFile, StagedFile};
use super::origin::{numbered, tree_directory};
use crate::access::{Access, PLACEHOLDER_MODE, action_id, file_rights, modified};

/// Attributes by which overlayfs remembers that a file is not, or not wholly, the upper one's.
const OVERLAY_ATTRIBUTES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Opens the directory at `path`; `None` if there is none, or a symlink is on the way.
pub(super) fn open_beneath(
    root: &Arc<OwnedFd>,
    path: &RelPath,
) -> Result<Option<Arc<OwnedFd>>, OutputError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let text = if path.is_root() { "." } else { path.as_str() };
    match rustix::fs::openat2(&**root, text, flags, Mode::empty(), resolve) {
        Ok(directory) => Ok(Some(Arc::new(directory))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(OutputError::Read {
            step: "openat2",
            path: path.as_str().to_owned(),
            source: errno,
        }),
    }
}

/// An open directory of the view.
pub(super) struct Folder<'a> {
    path: &'a RelPath,
    directory: Arc<OwnedFd>,
    files: Files<'a>,
}

/// The way to tell the kinds of a folder's regular files.
pub(super) enum Files<'a> {
    /// All are whole.
    Made,
    /// Files of the action are whole and lie in `made` too; files of root are inputs.
    ByOwner {
        tree: &'a InputTree,
        upper: &'a OwnedFd,
        made: Option<Arc<OwnedFd>>,
        /// The folder's directory in the tree, looked up for the first input in it.
        origin: OnceCell<Option<u32>>,
    },
    /// Files of the action are whole; files of root are inputs, or placeholders with the number of an
    /// input.
    Bound { tree: &'a InputTree },
    /// A file is whole if it lies in this directory too, without marks of overlayfs.
    Unmarked(Option<Arc<OwnedFd>>),
}

impl<'a> Files<'a> {
    pub(super) fn by_owner(
        tree: &'a InputTree,
        upper: &'a OwnedFd,
        made: Option<Arc<OwnedFd>>,
    ) -> Self {
        Self::ByOwner { tree, upper, made, origin: OnceCell::new() }
    }
}

impl<'a> Folder<'a> {
    pub(super) fn new(path: &'a RelPath, directory: Arc<OwnedFd>, files: Files<'a>) -> Self {
        Self { path, directory, files }
    }

    /// A directory of what an action made.
    pub(super) fn made(path: &'a RelPath, directory: Arc<OwnedFd>) -> Self {
        Self::new(path, directory, Files::Made)
    }

    /// The file that an action made as a whole under `name`, if there is one.
    pub(super) fn made_entry(&self, name: &CStr) -> Result<Option<OutputEntry>, OutputError> {
        let is_made = |stat: &Stat| is_regular(stat) && stat.st_uid == action_id();
        Ok(match self.stat(&self.directory, name)? {
            Some(stat) if is_made(&stat) => Some(self.staged(&self.directory, name, false)),
            _ => None,
        })
    }

    /// The entry `name`; `kind` is its type in a listing.
    pub(super) fn entry(
        &self,
        name: &CStr,
        kind: FileType,
    ) -> Result<Option<OutputEntry>, OutputError> {
        let kind = match kind {
            FileType::Unknown => {
                let stat = self.stat(&self.directory, name)?;
                stat.map(|stat| FileType::from_raw_mode(stat.st_mode))
            }
            known => Some(known),
        };
        let Some(kind) = kind else { return Ok(None) };
        Ok(Some(match kind {
            FileType::RegularFile => self.file(name)?,
            FileType::Directory => OutputEntry::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&*self.directory, name, Vec::new())
                    .map_err(|errno| self.failed("readlinkat", name, errno))?;
                OutputEntry::Symlink(target.into_bytes())
            }
            _ => OutputEntry::Special,
        }))
    }

    fn file(&self, name: &CStr) -> Result<OutputEntry, OutputError> {
        match &self.files {
            Files::Made => Ok(self.staged(&self.directory, name, false)),
            Files::ByOwner { tree, upper, made, origin } => {
                let stat = made.as_ref().map(|made| self.stat(made, name)).transpose()?.flatten();
                match (stat, made) {
                    (Some(stat), Some(made)) if stat.st_uid == action_id() => {
                        Ok(self.staged(made, name, false))
                    }
                    // An input that was moved here.
                    (Some(_), _) => Ok(self.staged(&self.directory, name, true)),
                    (None, _) => {
                        let index = match origin.get() {
                            Some(index) => *index,
                            None => {
                                let index = tree_directory(tree, upper, self.path)?;
                                *origin.get_or_init(|| index)
                            }
                        };
                        let found = index.and_then(|at| tree.lookup_in(at, name.to_bytes()));
                        Ok(match (found, index) {
                            (Some(Found::File { digest, executable }), Some(at)) => {
                                let content = &tree.directories()[at as usize].content;
                                let properties = content.properties_of(name.to_bytes());
                                input(digest, executable, &properties)
                            }
                            _ => self.staged(&self.directory, name, true),
                        })
                    }
                }
            }
            Files::Bound { tree } => self.bound_file(tree, name),
            Files::Unmarked(upper) => Ok(match upper {
                Some(upper) if self.is_unmarked(upper, name)? => self.staged(upper, name, false),
                _ => self.staged(&self.directory, name, true),
            }),
        }
    }

    fn bound_file(&self, tree: &InputTree, name: &CStr) -> Result<OutputEntry, OutputError> {
        let stat = self.stat(&self.directory, name)?;
        let stat = stat.ok_or_else(|| self.failed("fstatat", name, Errno::NOENT))?;
        if stat.st_uid == action_id() {
            return Ok(self.staged(&self.directory, name, false));
        }
        if stat.st_mode & 0o7777 != PLACEHOLDER_MODE {
            // The copy of an executable, or an empty file.
            return Ok(self.staged(&self.directory, name, true));
        }
        match numbered(tree, stat.st_size as u64) {
            // An input with node properties is no placeholder.
            Some(Entry::File { digest, executable, .. }) => {
                Ok(input(digest, executable, &NodeProperties::default()))
            }
            _ => Err(self.failed("number", name, Errno::INVAL)),
        }
    }

    fn staged(&self, directory: &Arc<OwnedFd>, name: &CStr, must_copy: bool) -> OutputEntry {
        let directory = Arc::clone(directory);
        let file = StagedFile { directory, name: CString::from(name), must_copy };
        OutputEntry::File(OutputFile::Staged(file))
    }

    fn stat(&self, directory: &OwnedFd, name: &CStr) -> Result<Option<Stat>, OutputError> {
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("fstatat", name, errno)),
        }
    }

    /// Whether the upper directory has a regular file there that is all of the file: a copy that
    /// overlayfs made may lack its content, and carries marks in any case.
    fn is_unmarked(&self, upper: &OwnedFd, name: &CStr) -> Result<bool, OutputError> {
        let failed = |step| move |errno| self.failed(step, name, errno);
        // O_NONBLOCK: what is in the way may be a FIFO.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(upper, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(false),
            Err(errno) => return Err(self.failed("openat(upper)", name, errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed("fstat(upper)"))?;
        if !is_regular(&stat) {
            return Ok(false);
        }
        // Attributes that do not fit were not all set by overlayfs; such a file is copied.
        let mut names = [0; 1024];
        match rustix::fs::flistxattr(&file, &mut names) {
            Ok(length) => {
                let mut names = names[..length].split(|byte| *byte == 0);
                Ok(!names
                    .any(|name| OVERLAY_ATTRIBUTES.iter().any(|prefix| name.starts_with(prefix))))
            }
            Err(Errno::RANGE) => Ok(false),
            Err(Errno::NOTSUP) => Ok(true),
            Err(errno) => Err(self.failed("flistxattr(upper)", name, errno)),
        }
    }

    pub(super) fn list(
        &self,
        mut visit: impl FnMut(&CStr, FileType) -> Result<(), OutputError>,
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

    fn failed(&self, step: &'static str, name: &CStr, errno: Errno) -> OutputError {
        let path = format!("{}/{}", self.path.as_str(), name.to_string_lossy());
        OutputError::Read { step, path, source: errno }
    }
}

/// An input that cannot have changed, as a strict action saw it.
fn input(digest: Digest, executable: bool, properties: &NodeProperties) -> OutputEntry {
    let (mode, _) = file_rights(executable, properties, Access::Strict);
    let shown = NodeProperties { mtime: Some(modified(properties)), unix_mode: Some(mode) };
    OutputEntry::File(OutputFile::Input { digest, executable: mode & 0o111 != 0, shown })
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
