//! Fills a directory with the entries of a tree, and with links to blobs or placeholders for them.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::{Digest, Entry, InputTree, NodeProperties};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use store::BlobPath;

use super::executables::Executables;
use super::files::copy;
use super::walk::{c_string, failed, is_bound, walk};
use crate::access::{Access, PLACEHOLDER_MODE, action_id, file_rights};
use crate::directory::{give, give_to, make_for_action, set_directory_properties, set_modified};
use crate::error::PresentError;
use crate::interrupt::Interrupt;
use crate::staging::first_numbers;

/// The way in which a file that is no executable gets its content in strict mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// A mount that is made later. Until then there is a placeholder.
    Mounted,
    /// It is a hard link to the blob.
    Linked,
}

/// Fills a directory with a tree.
pub(crate) struct Materializer<'a> {
    pub(crate) tree: &'a InputTree,
    pub(crate) access: Access,
    pub(crate) blobs: &'a OwnedFd,
    pub(crate) executables: &'a Executables,
    pub(crate) content: Content,
    pub(crate) interrupt: Interrupt<'a>,
}

impl Materializer<'_> {
    pub(crate) fn fill(&self, root: &OwnedFd) -> Result<(), PresentError> {
        self.make_all(root)?;
        if !self.tree.has_properties() {
            return Ok(());
        }
        // Last, because every name that is made in a directory changes its time.
        walk(self.tree, root.as_fd(), &mut |directory, index| {
            let own = self.tree.directories()[index].content.own_properties();
            set_directory_properties(directory, &own).map_err(failed("attributes of", c"."))
        })
    }

    fn make_all(&self, root: &OwnedFd) -> Result<(), PresentError> {
        let first_numbers = first_numbers(self.tree);
        walk(self.tree, root.as_fd(), &mut |directory, index| {
            let content = &self.tree.directories()[index].content;
            let mut numbered = (first_numbers[index]..).zip(content.entries());
            numbered.try_for_each(|(number, entry)| {
                self.interrupt.check(number as usize)?;
                let properties = content.properties_of(entry.name());
                self.make(directory, &entry, &properties, number)
            })
        })
    }

    fn make(
        &self,
        directory: BorrowedFd<'_>,
        entry: &Entry<'_>,
        properties: &NodeProperties,
        number: u64,
    ) -> Result<(), PresentError> {
        let name = c_string(entry.name());
        match *entry {
            Entry::Directory { .. } => {
                make_for_action(directory, &name).map_err(failed("make the directory", &name))
            }
            Entry::Symlink { target, .. } => {
                let target = c_string(target);
                rustix::fs::symlinkat(&*target, directory, &*name)
                    .map_err(failed("symlink", &name))?;
                give_to(action_id(), directory, &name).map_err(failed("chown", &name))?;
                set_modified(directory, &name, properties).map_err(failed("utimensat", &name))
            }
            Entry::File { digest, executable, .. }
                if self.access == Access::Strict && is_bound(&digest, executable, properties) =>
            {
                match self.content {
                    Content::Mounted => placeholder(directory, &name, number),
                    Content::Linked => self.link(directory, &name, &digest),
                }
            }
            Entry::File { digest, executable, .. } => {
                self.file(directory, &name, &digest, executable, properties)
            }
        }
    }

    /// Links a blob, or copies it when it has all the links that a file can have.
    fn link(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        digest: &Digest,
    ) -> Result<(), PresentError> {
        let path = BlobPath::new(digest);
        let none = AtFlags::empty();
        match rustix::fs::linkat(self.blobs, path.as_c_str(), directory, name, none) {
            Err(Errno::MLINK) => {
                self.file(directory, name, digest, false, &NodeProperties::default())
            }
            linked => linked.map_err(failed("link", name)),
        }
    }

    fn file(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        digest: &Digest,
        executable: bool,
        properties: &NodeProperties,
    ) -> Result<(), PresentError> {
        let is_empty = digest.is_empty_blob();
        let is_plain = properties.is_empty();
        if self.access == Access::Strict && executable && !is_empty && is_plain {
            return self.executables.link(self.blobs, digest, directory, name);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let (mode, group) = file_rights(executable, properties, self.access);
        let mode = Mode::from_raw_mode(mode.into());
        let file =
            rustix::fs::openat(directory, name, flags, mode).map_err(failed("open", name))?;
        if !is_empty {
            copy(self.blobs, digest, &file).map_err(failed("copy to", name))?;
        }
        rustix::fs::fchmod(&file, mode).map_err(failed("chmod", name))?;
        match (self.access.file_owner(), group) {
            (0, 0) => {}
            (owner, group) => give(owner, group, directory, name).map_err(failed("chown", name))?,
        }
        set_modified(directory, name, properties).map_err(failed("utimensat", name))
    }
}

/// Makes the file that a blob is mounted over. Its size is the number of the input, which identifies
/// it when the mount is gone, wherever the action moved its directory.
fn placeholder(directory: BorrowedFd<'_>, name: &CStr, number: u64) -> Result<(), PresentError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(PLACEHOLDER_MODE);
    let file = rustix::fs::openat(directory, name, flags, mode).map_err(failed("open", name))?;
    rustix::fs::ftruncate(&file, number).map_err(failed("ftruncate", name))
}
