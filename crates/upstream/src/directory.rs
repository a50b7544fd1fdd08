//! Objects as files of a directory that others may write to.
//!
//! The server may run as root, and everybody with the permission to write below the directory decides what is at each
//! name there. So the kernel resolves names from a descriptor of the directory and follows no symbolic link below it
//! (openat2(2)), an object is only opened once it is known to be a regular file, and one that is written is a new file
//! that takes the place of whatever had its name. The path of the directory itself may have symbolic links: it is the
//! operator's.
//!
//! ```text
//!  create ─► write … ─► publish      <name>#<random> ─► <name>; dropped before that, the file is deleted
//! ```
//!
//! Everything here blocks, for as long as a network file system does.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, fsync, mkdirat, open, openat, openat2,
    renameat, unlinkat,
};
use rustix::io::Errno;
use tonic::Status;

use crate::call_error::CallError;
use crate::object_error::failed;

/// The resolution of every name below the directory.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A directory that is opened to write below it. Syncing it needs more than `O_PATH`.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory with objects.
pub(crate) struct Directory {
    path: PathBuf,
}

/// A file that has no name of an object yet; deleted when dropped.
pub(crate) struct Staged {
    folder: OwnedFd,
    name: String,
    temporary: String,
    file: File,
    /// The path of the object, for errors.
    path: PathBuf,
    is_published: bool,
}

impl Directory {
    /// The directory at that path, which need not exist yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Fails if the path is not a directory.
    pub(crate) fn is_there(&self) -> Result<(), CallError> {
        self.top(OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).map(drop)
    }

    /// The size of an object in bytes.
    ///
    /// # Errors
    /// [`CallError::Missing`] without one, [`CallError::Damaged`] for something else than a regular file.
    pub(crate) fn size(&self, name: &str) -> Result<u64, CallError> {
        self.find(name).map(|(_, size)| size)
    }

    /// An object to read, and its size in bytes.
    ///
    /// # Errors
    /// As those of [`Directory::size`].
    pub(crate) fn read(&self, name: &str) -> Result<(File, u64), CallError> {
        let (found, size) = self.find(name)?;
        // The same file once more, and not by its name, at which there may be a device or a named pipe by now: opening
        // those does something or waits. Without O_NONBLOCK a lease (fcntl(2)) makes this wait.
        let same = format!("/proc/self/fd/{}", found.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = open(same, flags, Mode::empty());
        Ok((file.map_err(|errno| self.error("opening", name, errno))?.into(), size))
    }

    /// A new object of that name, to be written and published. The directories on the way are made.
    ///
    /// # Errors
    /// When the directory itself is gone, for its mount may be gone; when there is something else than a directory on
    /// the way; and when the file system fails.
    pub(crate) fn create(&self, name: &str) -> Result<Staged, CallError> {
        let (folder, file_name) = name.rsplit_once('/').unwrap_or((".", name));
        let folder = self.make(folder)?;
        let temporary = format!("{file_name}#{}", uuid::Uuid::new_v4().simple());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&folder, &temporary, flags, Mode::from_raw_mode(0o666));
        let file = file.map_err(|errno| self.write_error("making", name, errno))?;
        Ok(Staged {
            folder,
            name: file_name.to_owned(),
            temporary,
            file: file.into(),
            path: self.path.join(name),
            is_published: false,
        })
    }

    fn top(&self, flags: OFlags) -> Result<OwnedFd, CallError> {
        open(&self.path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => failed("the directory is gone"),
            errno => self.error("opening", "", errno),
        })
    }

    /// The regular file of that name, not opened yet, and its size in bytes.
    fn find(&self, name: &str) -> Result<(OwnedFd, u64), CallError> {
        let top = self.top(OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        // A symbolic link in the place of an object is found as one and not refused as one on the way.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat2(&top, name, flags, Mode::empty(), RESOLVE);
        let found = found.map_err(|errno| self.error("opening", name, errno))?;
        let stat = fstat(&found).map_err(|errno| self.error("looking at", name, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((found, u64::try_from(stat.st_size).unwrap_or(0))),
            _ => Err(CallError::Damaged),
        }
    }

    /// Opens a directory below this one, and makes it if need be.
    fn make(&self, folder: &str) -> Result<OwnedFd, CallError> {
        let top = self.top(FOLDER)?;
        match openat2(&top, folder, FOLDER, Mode::empty(), RESOLVE) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(|errno| self.write_error("opening", folder, errno)),
        }
        let mut here = top;
        for level in folder.split('/') {
            let made = match mkdirat(&here, level, Mode::from_raw_mode(0o777)) {
                Err(Errno::EXIST) => Ok(()),
                made => made.and_then(|()| fsync(&here)),
            };
            made.map_err(|errno| self.write_error("making", folder, errno))?;
            let next = openat2(&here, level, FOLDER, Mode::empty(), RESOLVE);
            here = next.map_err(|errno| self.write_error("opening", folder, errno))?;
        }
        Ok(here)
    }

    fn error(&self, step: &str, name: &str, errno: Errno) -> CallError {
        match errno {
            Errno::NOENT => CallError::Missing,
            errno => io_error(step, &self.path.join(name), errno),
        }
    }

    /// The error of a write: what is missing then was there a moment ago.
    fn write_error(&self, step: &str, name: &str, errno: Errno) -> CallError {
        io_error(step, &self.path.join(name), errno)
    }
}

impl Staged {
    /// Appends to the content.
    pub(crate) fn write(&mut self, pieces: &[Bytes]) -> Result<(), CallError> {
        let written = pieces.iter().try_for_each(|piece| self.file.write_all(piece));
        written.map_err(|error| failed(&format!("writing {}: {error}", self.path.display())))
    }

    /// Gives the file the name of the object, in place of what had it. On the disk it is whole or not there.
    pub(crate) fn publish(mut self) -> Result<(), CallError> {
        // Without it a crash of the machine leaves names of blobs without their content.
        fsync(&self.file).map_err(|errno| io_error("syncing", &self.path, errno))?;
        let (folder, name) = (self.folder.as_fd(), self.name.as_str());
        let renamed = renameat(folder, &self.temporary, folder, name);
        renamed.map_err(|errno| io_error("renaming to", &self.path, errno))?;
        self.is_published = true;
        fsync(&self.folder).map_err(|errno| io_error("syncing", &self.path, errno))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_published {
            // It was tried. The documentation tells how what is left is known.
            let _ = unlinkat(&self.folder, &self.temporary, AtFlags::empty());
        }
    }
}

fn io_error(step: &str, path: &Path, errno: Errno) -> CallError {
    let path = path.display();
    match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
            let text = format!(
                "{path} is not used: a symbolic link or something else than a directory is on its way; remove it"
            );
            CallError::Refused(Box::new(Status::failed_precondition(text)))
        }
        errno => failed(&format!("{step} {path}: {errno}")),
    }
}

#[cfg(test)]
mod tests;
