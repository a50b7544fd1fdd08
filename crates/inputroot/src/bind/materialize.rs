//! Fills a directory with what a tree has, as far as files can do it.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::{ACTION_ID, Digest, Entry, InputTree, TreeDirectory};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use store::BlobPath;

use super::executables::Executables;
use super::failed;
use crate::access::{Access, DIRECTORY_MODE, PLACEHOLDER_MODE, file_mode};
use crate::directory::open_directory;
use crate::error::PresentError;
use crate::outputs::origin;

/// What fills a staging directory with a tree.
pub(super) struct Materializer<'a> {
    pub(super) tree: &'a InputTree,
    pub(super) access: Access,
    pub(super) blobs: &'a OwnedFd,
    pub(super) executables: &'a Executables,
}

impl Materializer<'_> {
    pub(super) fn fill(&self, root: &OwnedFd) -> Result<(), PresentError> {
        let first_numbers = origin::first_numbers(self.tree);
        walk(self.tree, root.as_fd(), &mut |directory, index| {
            let content = &self.tree.directories()[index].content;
            let mut numbered = (first_numbers[index]..).zip(content.entries());
            numbered.try_for_each(|(number, entry)| self.make(directory, &entry, number))
        })
    }

    fn make(
        &self,
        directory: BorrowedFd<'_>,
        entry: &Entry<'_>,
        number: u64,
    ) -> Result<(), PresentError> {
        let name = c_string(entry.name());
        match *entry {
            Entry::Directory { .. } => self.directory(directory, &name),
            Entry::Symlink { target, .. } => {
                let target = c_string(target);
                rustix::fs::symlinkat(&*target, directory, &*name)
                    .map_err(failed("symlink", &name))?;
                own(directory, &name, ACTION_ID)
            }
            Entry::File { digest, executable, .. }
                if self.access == Access::Strict && is_bound(&digest, executable) =>
            {
                placeholder(directory, &name, number)
            }
            Entry::File { digest, executable, .. } => {
                self.file(directory, &name, &digest, executable)
            }
        }
    }

    fn directory(&self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), PresentError> {
        let mode = Mode::from_raw_mode(DIRECTORY_MODE.into());
        match rustix::fs::mkdirat(parent, name, mode) {
            // One of those that were made because the action wants something below.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("mkdir", name)(errno)),
        }
        // The umask of the process may have taken bits away.
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(failed("chmod", name))?;
        own(parent, name, ACTION_ID)
    }

    fn file(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        digest: &Digest,
        executable: bool,
    ) -> Result<(), PresentError> {
        let is_empty = digest.is_empty_blob();
        if self.access == Access::Strict && executable && !is_empty {
            return self.executables.link(self.blobs, digest, directory, name);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(file_mode(executable).into());
        let file =
            rustix::fs::openat(directory, name, flags, mode).map_err(failed("open", name))?;
        if self.access == Access::Mutable && !is_empty {
            copy(self.blobs, digest, &file).map_err(failed("copy to", name))?;
        }
        rustix::fs::fchmod(&file, mode).map_err(failed("chmod", name))?;
        match self.access.file_owner() {
            0 => Ok(()),
            owner => own(directory, name, owner),
        }
    }
}

fn own(directory: BorrowedFd<'_>, name: &CStr, owner: u32) -> Result<(), PresentError> {
    let (user, group) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    rustix::fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("chown", name))
}

/// Makes the file that a blob is mounted over. Its size is the number of the input, which tells
/// what lies there when the mount is gone, wherever the action moved the directory.
fn placeholder(directory: BorrowedFd<'_>, name: &CStr, number: u64) -> Result<(), PresentError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(PLACEHOLDER_MODE);
    let file = rustix::fs::openat(directory, name, flags, mode).map_err(failed("open", name))?;
    rustix::fs::ftruncate(&file, number).map_err(failed("ftruncate", name))
}

/// Copies a blob, without copying where the file system can share blocks.
pub(super) fn copy(blobs: &OwnedFd, digest: &Digest, to: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = BlobPath::new(digest);
    let blob = rustix::fs::openat(blobs, path.as_c_str(), flags, Mode::empty())?;
    if rustix::fs::ioctl_ficlone(to, &blob).is_ok() {
        return Ok(());
    }
    let mut to = File::from(to.try_clone().map_err(errno)?);
    std::io::copy(&mut File::from(blob), &mut to).map_err(errno)?;
    Ok(())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Whether a file is shown by a mount: all that have content and are not executable.
pub(super) fn is_bound(digest: &Digest, executable: bool) -> bool {
    !executable && !digest.is_empty_blob()
}

/// What to do in each directory of a tree, with the directory open and its index in the tree.
type Visit<'a> = dyn FnMut(BorrowedFd<'_>, usize) -> Result<(), PresentError> + 'a;

/// Visits every directory of `tree` below `root`, each before those in it, with no more open at
/// once than the tree is deep.
pub(super) fn walk(
    tree: &InputTree,
    root: BorrowedFd<'_>,
    visit: &mut Visit<'_>,
) -> Result<(), PresentError> {
    visit(root, 0)?;
    let mut open: Vec<Level<'_>> = vec![Level::new(&tree.directories()[0])];
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    while let Some(level) = open.last_mut() {
        let Some((name, index)) = level.next() else {
            open.pop();
            descriptors.pop();
            continue;
        };
        let above = descriptors.last().map_or(root, AsFd::as_fd);
        let name = c_string(name);
        let directory = open_directory(above, &name).map_err(failed("open", &name))?;
        let below = &tree.directories()[index as usize];
        visit(directory.as_fd(), index as usize)?;
        descriptors.push(directory);
        open.push(Level::new(below));
    }
    Ok(())
}

/// The directories of a directory that are still to be visited.
struct Level<'a> {
    names: Box<dyn Iterator<Item = &'a [u8]> + 'a>,
    next_index: u32,
}

impl<'a> Level<'a> {
    fn new(directory: &'a TreeDirectory) -> Self {
        let names = directory.content.entries().filter_map(|entry| match entry {
            Entry::Directory { name, .. } => Some(name),
            Entry::File { .. } | Entry::Symlink { .. } => None,
        });
        Self { names: Box::new(names), next_index: directory.first_child }
    }
}

impl<'a> Iterator for Level<'a> {
    type Item = (&'a [u8], u32);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.names.next()?;
        let index = self.next_index;
        self.next_index += 1;
        Some((name, index))
    }
}

/// Names and targets in a tree have no NUL, so the fallback is never taken.
pub(super) fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

/// Makes an empty regular file that is nobody's but root's.
pub(super) fn make_file(directory: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    // What a copy that failed left behind is in the way.
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(directory, name, FileType::RegularFile, mode, 0)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}
