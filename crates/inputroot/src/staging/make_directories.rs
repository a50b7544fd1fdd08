//! Directories that have to be there when the action starts, and are not in its input tree.
//!
//! They are made in the upper directory before anything is mounted on it. It is empty and no other
//! process knows it, so no path of a client is resolved through anything that a client made.
//! Overlayfs merges a directory of both layers and shows the attributes of the upper one. All
//! directories of an input root have the same attributes, but for those with node properties, which the
//! upper ones are given too.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use model::{Found, InputTree, RelPath};

use crate::directory::{make_for_action, open_directory, set_directory_properties};
use crate::error::PresentError;
use crate::interrupt::Interrupt;

/// Makes `paths` and what is missing above them.
pub(crate) fn make_directories(
    upper: &OwnedFd,
    tree: &InputTree,
    paths: &[RelPath],
    interrupt: Interrupt<'_>,
) -> Result<(), PresentError> {
    let mut made = HashSet::new();
    for path in paths {
        if depth_in_tree(tree, path)? == path.depth() {
            continue;
        }
        for prefix in prefixes(path) {
            if made.insert(prefix) {
                interrupt.check(made.len())?;
                // A clean path has no NUL.
                let name = CString::new(prefix).unwrap_or_default();
                make_for_action(upper, &name)
                    .map_err(PresentError::staging(format!("mkdir({prefix})")))?;
            }
        }
    }
    if tree.has_properties() { give_properties(upper, tree, made) } else { Ok(()) }
}

/// Gives the root and the directories that were made the properties that they have in the tree: to the
/// inner ones first, because a mode may keep others out.
fn give_properties(
    upper: &OwnedFd,
    tree: &InputTree,
    made: HashSet<&str>,
) -> Result<(), PresentError> {
    let mut made: Vec<_> = made.into_iter().collect();
    made.sort_unstable_by(|one, other| other.cmp(one));
    for path in made {
        let directory = RelPath::parse(path).ok().and_then(|path| tree.lookup(&path));
        let Some(Found::Directory(index)) = directory else { continue };
        let own = tree.directories()[index as usize].content.own_properties();
        if own.is_empty() {
            continue;
        }
        let name = CString::new(path).unwrap_or_default();
        open_directory(upper, &name)
            .and_then(|directory| set_directory_properties(directory, &own))
            .map_err(PresentError::staging(format!("attributes of {path}")))?;
    }
    let own = tree.directories()[0].content.own_properties();
    set_directory_properties(upper, &own).map_err(PresentError::staging("attributes of the root"))
}

/// Every path from the first component of `path` to all of it.
fn prefixes(path: &RelPath) -> impl Iterator<Item = &str> {
    let text = path.as_str();
    let ends = text.match_indices('/').map(|(end, _)| end).chain([text.len()]);
    ends.map(move |end| &text[..end])
}

/// The number of components of `path`, from its start, that are directories of the tree.
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
