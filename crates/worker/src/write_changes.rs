//! Directories of the input tree that the client closed for the action's writes.
//!
//! The node property `SubtreeReadOnly` closes a directory with all below it, or opens one in it. BuildStream
//! sends it with every build: the root is closed, and the directories of the build and of what it installs
//! are open. Each change is a mount in the sandbox.

use model::{InputTree, Properties, RelPath, SUBTREE_READ_ONLY};

use crate::error::ActionError;
use crate::whole_root;

/// The most changes in a tree. Each costs two system calls and a mount before the action starts; BuildStream
/// makes six.
const MAX: usize = 256;

/// The directories of `tree` from which on writes are closed (`true`) or open, each before those below it.
///
/// # Errors
/// [`ActionError::Invalid`] if there are more than [`MAX`].
pub(crate) fn of(
    tree: &InputTree,
    properties: &Properties,
) -> Result<Vec<(RelPath, bool)>, ActionError> {
    let Some(mut changes) = tree.write_changes(MAX) else {
        return Err(ActionError::Invalid(format!(
            "the node property {SUBTREE_READ_ONLY} changes at more than {MAX} directories of the input tree"
        )));
    };
    if whole_root::is_wanted(properties) {
        changes.retain(|(path, _)| !whole_root::is_covered(path));
    }
    Ok(changes)
}
