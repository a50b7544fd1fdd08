//! Directories that have to be there when the action starts, and are not in its input tree.
//!
//! They are made in the upper directory before anything is mounted on it: it is empty and nobody
//! else knows it, so no path of a client is resolved through anything that a client made. Overlayfs
//! merges a directory of both layers and shows the upper one's attributes, which are therefore
//! given the same as the tree's.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use model::{ACTION_ID, Found, InputTree, RelPath};
use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;

use crate::access::Access;
use crate::error::PresentError;

/// Permission bits of a directory that is not in the tree. It is the action's own, so that it can
/// do with it what it likes.
const MODE: u32 = 0o755;

/// Makes `paths` and what is missing above them.
pub(crate) fn make_directories(
    upper: &OwnedFd,
    tree: &InputTree,
    access: Access,
    paths: &[RelPath],
) -> Result<(), PresentError> {
    let mut made = HashSet::new();
    for path in paths {
        let in_tree = depth_in_tree(tree, path)?;
        if in_tree == path.depth() {
            continue;
        }
        for (depth, prefix) in (1..).zip(prefixes(path)) {
            if made.insert(prefix) {
                make(upper, prefix, access, depth <= in_tree)
                    .map_err(PresentError::staging(format!("mkdir({prefix})")))?;
            }
        }
    }
    Ok(())
}

/// Every path from the first component of `path` to all of it.
fn prefixes(path: &RelPath) -> impl Iterator<Item = &str> {
    let text = path.as_str();
    let ends = text.match_indices('/').map(|(end, _)| end).chain([text.len()]);
    ends.map(move |end| &text[..end])
}

/// How many components of `path`, from its start, are directories of the tree.
fn depth_in_tree(tree: &InputTree, path: &RelPath) -> Result<usize, PresentError> {
    let mut directory = 0;
    for ((depth, name), prefix) in path.components().enumerate().zip(prefixes(path)) {
        let kind = match tree.lookup_in(directory, name.as_bytes()) {
            None => return Ok(depth),
            Some(Found::Directory(index)) => {
                directory = index;
                continue;
            }
            Some(Found::File { .. }) => "file",
            Some(Found::Symlink { .. }) => "symlink",
        };
        // A part of a clean path is a clean path.
        let obstacle = RelPath::parse(prefix).unwrap_or_else(|_| path.clone());
        return Err(PresentError::Obstructed { wanted: path.clone(), obstacle, kind });
    }
    Ok(path.depth())
}

fn make(upper: &OwnedFd, path: &str, access: Access, in_tree: bool) -> Result<(), Errno> {
    let (owner, mode) = match in_tree {
        true => (access.owner(), access.directory_mode().into()),
        false => (ACTION_ID, MODE),
    };
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::mkdirat(upper, path, mode)?;
    // The umask of the process may have taken bits away.
    rustix::fs::chmodat(upper, path, mode, AtFlags::empty())?;
    let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
    rustix::fs::chownat(upper, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
}
