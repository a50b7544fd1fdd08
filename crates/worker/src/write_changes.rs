//! Directories of the input tree that the client closed for the action's writes.
//!
//! The node property `SubtreeReadOnly` closes a directory with all below it, or opens one in it. BuildStream
//! sends it with every build: the root is closed, and the directories of the build and of what it installs
//! are open. Each change is a mount in the sandbox: one on a plain tree, and with bound files one more of each file
//! below it, which `inputroot` counts.

use model::{Chain, InputTree, Properties, RelPath, WriteChangesError};
use sandbox::MAX_MOUNT_PATH_BYTES;

use crate::error::ActionError;
use crate::whole_root;

/// The most changes in a tree. Each costs two system calls and a mount before the action starts; BuildStream
/// makes six.
const MAX: usize = 256;

/// The directories of `tree` from which on writes are closed (`true`) or open, each before those below it.
///
/// # Errors
/// [`ActionError::Invalid`] if there are more than [`MAX`], or one has a path at which nothing can be mounted.
pub(crate) fn of(
    tree: &InputTree,
    properties: &Properties,
) -> Result<Vec<(RelPath, bool)>, ActionError> {
    let mut changes = tree.write_changes(MAX, MAX_MOUNT_PATH_BYTES).map_err(refused)?;
    if whole_root::is_wanted(properties) {
        changes.retain(|(path, _)| !whole_root::is_covered(path));
    }
    Ok(changes)
}

fn refused(error: WriteChangesError) -> ActionError {
    let cure = match error {
        WriteChangesError::TooMany(_) => "close or open fewer directories",
        WriteChangesError::PathTooLong { .. } | WriteChangesError::Path(_) => {
            "close or open a directory above it, or give it a shorter path"
        }
    };
    ActionError::Invalid(format!("{}; {cure}", Chain(&error)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::sync::Arc;

    use model::{Digest, DigestFunction, Directory, Loaded, SUBTREE_READ_ONLY, TreeLimits, proto};
    use prost::Message as _;
    use runtimes::INPUT_ROOT;

    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    /// A tree with the directories of one path, of which the last is closed, at `copies` names.
    fn tree(names: &[String], copies: usize) -> InputTree {
        let mut blobs = HashMap::new();
        let mut add = |message: &proto::Directory| {
            let blob = message.encode_to_vec();
            let digest = Digest::of(FUNCTION, &blob);
            blobs.insert(digest, blob);
            Some(digest.to_proto())
        };
        let property =
            proto::NodeProperty { name: SUBTREE_READ_ONLY.to_owned(), value: "true".to_owned() };
        let properties = proto::NodeProperties { properties: vec![property], ..Default::default() };
        let last = proto::Directory { node_properties: Some(properties), ..Default::default() };
        let (last_name, above) = names.split_last().unwrap();
        let digest = add(&last);
        let mut below = proto::Directory::default();
        for copy in 0..copies {
            let name = if copy == 0 { last_name.clone() } else { format!("{copy:03}") };
            below.directories.push(proto::DirectoryNode { name, digest: digest.clone() });
        }
        below.directories.sort_by(|one, other| one.name.cmp(&other.name));
        for name in above.iter().rev() {
            let node = proto::DirectoryNode { name: name.clone(), digest: add(&below) };
            below = proto::Directory { directories: vec![node], ..Default::default() };
        }
        let root = Digest::from_proto(&add(&below).unwrap(), FUNCTION).unwrap();
        let mut load = |digest: &Digest| -> Loaded<Infallible> {
            let blob = blobs.get(digest).cloned();
            Ok(blob.map(|blob| Arc::new(Directory::parse(blob.into(), FUNCTION).unwrap())))
        };
        InputTree::assemble(root, TreeLimits::default(), &mut load).unwrap()
    }

    /// The names of a path with that many bytes below a directory.
    fn names(first: &str, bytes: usize) -> Vec<String> {
        let rest = bytes - first.len() - 1;
        let mut names = vec![first.to_owned()];
        names.extend(std::iter::repeat_n("d".repeat(255), rest / 256));
        names.push("e".repeat(rest % 256));
        names
    }

    #[track_caller]
    fn check(tree: &InputTree, expected: Result<usize, &str>) {
        match (of(tree, &Properties::default()), expected) {
            (Ok(changes), Ok(count)) => assert_eq!(changes.len(), count),
            (Err(ActionError::Invalid(text)), Err(part)) => {
                assert!(text.contains(part) && text.contains(SUBTREE_READ_ONLY), "{text}");
            }
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn too_many_changes_and_paths_that_are_too_long_are_invalid() {
        check(&tree(&names("x", 4085), 1), Ok(1));
        let too_long = Err("longer than 4085 bytes");
        for bytes in [4086, 4095, 4096, 5000] {
            check(&tree(&names("x", bytes), 1), too_long);
        }
        check(&tree(&names("x", 9), MAX), Ok(MAX));
        check(&tree(&names("x", 9), MAX + 1), Err("more than 256 directories"));
    }

    #[test]
    fn changes_below_the_sandboxes_own_mounts_are_left_out() {
        let properties =
            Properties { rootfs: Some(INPUT_ROOT.to_owned()), ..Properties::default() };
        for (first, count) in [("tmp", 0), ("x", 1)] {
            assert_eq!(of(&tree(&names(first, 9), 1), &properties).unwrap().len(), count);
        }
    }
}
