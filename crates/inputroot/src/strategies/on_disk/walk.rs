//! A walk over the directories of a tree and their counterparts on disk.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::{Digest, Entry, InputTree, NodeProperties, TreeDirectory};
use rustix::io::Errno;

use crate::directory::open_directory;
use crate::error::PresentError;

/// A visitor of directories: gets the open directory and its index in the tree.
type Visit<'a> = dyn FnMut(BorrowedFd<'_>, usize) -> Result<(), PresentError> + 'a;

/// Visits every directory of `tree` below `root`, each before those in it, with no more open at
/// once than the tree is deep.
pub(crate) fn walk(
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

/// Whether a mount shows the file: it has content, is not executable, and has no node properties, which
/// a mount of the blob would not show.
pub(crate) fn is_bound(digest: &Digest, executable: bool, properties: &NodeProperties) -> bool {
    !executable && !digest.is_empty_blob() && properties.is_empty()
}

/// Names and targets in a tree have no NUL, so the fallback is never taken.
pub(crate) fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

/// For `map_err`: a failed step on an entry of the tree.
pub(crate) fn failed(step: &str, name: &CStr) -> impl FnOnce(Errno) -> PresentError {
    PresentError::staging(format!("{step}({})", name.to_string_lossy()))
}
