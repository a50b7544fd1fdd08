//! The number of mounts that a tree of bound files has in the sandbox.
//!
//! The sandbox mounts the input root onto itself when the action may not write everywhere, and then each
//! directory at which that changes, outer ones first. Each of those mounts takes along a copy of every
//! bound file below it, and nothing else: the directories below it are no mounts yet.

use std::collections::HashSet;

use model::{Entry, Found, InputTree, RelPath};

use super::super::on_disk::is_bound;

/// The mounts beside the input root itself and the second one on top of it.
pub(super) fn in_sandbox(tree: &InputTree, write_changes: &[(RelPath, bool)]) -> u64 {
    // The second mount of the input root is that of a change at the root, too.
    let directories = || write_changes.iter().filter(|(path, _)| !path.is_root());
    let changed: HashSet<u32> = directories()
        .filter_map(|(path, _)| match tree.lookup(path) {
            Some(Found::Directory(index)) => Some(index),
            _ => None,
        })
        .collect();
    let mut mounts = directories().count() as u64;
    let mut copies: Vec<u64> = Vec::with_capacity(tree.directories().len());
    for (index, directory) in tree.directories().iter().enumerate() {
        let copies_here = match index {
            0 if write_changes.is_empty() => 1,
            0 => 2,
            _ => copies[directory.parent as usize] + u64::from(changed.contains(&(index as u32))),
        };
        copies.push(copies_here);
        let content = &directory.content;
        let is_mount = |entry: &Entry<'_>| match entry {
            Entry::File { name, digest, executable } => {
                is_bound(digest, *executable, &content.properties_of(name))
            }
            Entry::Directory { .. } | Entry::Symlink { .. } => false,
        };
        mounts += copies_here * content.entries().filter(is_mount).count() as u64;
    }
    mounts
}

#[cfg(test)]
mod tests {
    use model::{Mtime, NodeProperties};

    use super::*;
    use crate::tree_fixture::TreeFixture;

    fn path(text: &str) -> RelPath {
        RelPath::resolve(&RelPath::root(), text).unwrap()
    }

    #[test]
    fn a_file_is_one_more_mount_for_each_change_above_it() {
        let mtime = Some(Mtime { seconds: 1, nanos: 0 });
        let own = NodeProperties { mtime, ..NodeProperties::default() };
        let (tree, _) = TreeFixture::new()
            .file("top", b"1")
            .file("a/one", b"1")
            .file("a/b/two", b"1")
            .file("a/b/three", b"2")
            .file("c/four", b"1")
            .directory("d")
            // These are no mounts.
            .file("a/empty", b"")
            .file("a/copied", b"1")
            .properties("a/copied", own)
            .executable("a/tool", b"1")
            .symlink("a/link", "one")
            .build();
        let check = |changes: &[&str], expected: u64| {
            let changes = Vec::from_iter(changes.iter().map(|text| (path(text), true)));
            assert_eq!(in_sandbox(&tree, &changes), expected, "{changes:?}");
        };
        check(&[], 5);
        check(&[""], 2 * 5);
        check(&["d"], 2 * 5 + 1);
        check(&["a"], 2 * 5 + 1 + 3);
        check(&["", "a"], 2 * 5 + 1 + 3);
        check(&["", "a", "a/b"], 2 * 5 + (1 + 3) + (1 + 2));
        check(&["", "a", "c", "a/b"], 2 * 5 + (1 + 3) + (1 + 1) + (1 + 2));
    }
}
