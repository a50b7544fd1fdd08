//! Tells which input a file is, wherever an action moved it.

use std::os::fd::OwnedFd;

use model::{Entry, Found, InputTree, RelPath, TreeDirectory};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::entry::OutputError;

/// The attributes by which a directory hides the one in the lower layer, or shows another one.
const DETACHED: [&[u8]; 4] = [
    b"trusted.overlay.opaque",
    b"trusted.overlay.redirect",
    b"user.overlay.opaque",
    b"user.overlay.redirect",
];

/// The tree's directory that `path` shows, if neither it nor a directory above it was replaced or
/// moved there from elsewhere.
pub(super) fn tree_directory(
    tree: &InputTree,
    upper: &OwnedFd,
    path: &RelPath,
) -> Result<Option<u32>, OutputError> {
    let failed = |step| {
        move |errno| OutputError::Read { step, path: path.as_str().to_owned(), source: errno }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut index = 0;
    // Nothing below a directory that is only in the tree is in the upper layer.
    let mut is_merged = true;
    let mut above: Option<OwnedFd> = None;
    for name in path.components() {
        let Some(Found::Directory(below)) = tree.lookup_in(index, name.as_bytes()) else {
            return Ok(None);
        };
        index = below;
        if !is_merged {
            continue;
        }
        match rustix::fs::openat(above.as_ref().unwrap_or(upper), name, flags, Mode::empty()) {
            Ok(next) => {
                if is_detached(&next).map_err(failed("flistxattr(upper)"))? {
                    return Ok(None);
                }
                above = Some(next);
            }
            Err(Errno::NOENT) => is_merged = false,
            // A mark that the directory is gone, or what the action put in its place.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(failed("openat(upper)")(errno)),
        }
    }
    Ok(Some(index))
}

fn is_detached(directory: &OwnedFd) -> Result<bool, Errno> {
    let mut names = [0; 1024];
    match rustix::fs::flistxattr(directory, &mut names) {
        Ok(length) => {
            let mut names = names[..length].split(|byte| *byte == 0);
            Ok(names.any(|name| DETACHED.contains(&name)))
        }
        // The action set many of its own; then its files are copied, whatever they are.
        Err(Errno::RANGE) => Ok(true),
        Err(Errno::NOTSUP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The number of the first entry of each directory; the others have the next ones. No number is 0.
///
/// A file can stand for the entry that has its number, wherever it is moved.
pub(crate) fn first_numbers(tree: &InputTree) -> Vec<u64> {
    let mut next = 1;
    let number = |directory: &TreeDirectory| {
        let first = next;
        next += directory.content.len() as u64;
        first
    };
    tree.directories().iter().map(number).collect()
}

/// The entry that has a number.
pub(super) fn numbered(tree: &InputTree, number: u64) -> Option<Entry<'_>> {
    let mut index = usize::try_from(number).ok()?.checked_sub(1)?;
    for directory in tree.directories() {
        if index < directory.content.len() {
            return directory.content.entries().nth(index);
        }
        index -= directory.content.len();
    }
    None
}
