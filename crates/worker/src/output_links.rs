//! Outputs below symlinks of the input root.
//!
//! A command that writes to `link/out`, where `link` is an input symlink to the directory `real`, leaves
//! `real/out`. Outputs are collected without following any symlink, for the action may have put others
//! in their place. So these symlinks are followed here, before the command runs, in the input tree and
//! nowhere else. A symlink that leads out of the tree, or to nothing in it, is left: such an output is
//! refused. Where the input root is the root, an absolute symlink leads into it.

use std::collections::VecDeque;

use model::{CommandSpec, Found, InputTree, OutputPath, RelPath};

use crate::error::ActionError;
use crate::whole_root;

/// Symlinks on the way to one output, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Sets each output below a symlink to where that leads; results go on to name it as it was declared.
pub(crate) fn follow(tree: &InputTree, command: &mut CommandSpec) -> Result<(), ActionError> {
    follow_in(tree, whole_root::is_wanted(&command.properties), &mut command.outputs)
}

/// The same in a tree that is the root, or is not.
fn follow_in(
    tree: &InputTree,
    is_root: bool,
    outputs: &mut [OutputPath],
) -> Result<(), ActionError> {
    let mut has_changed = false;
    for output in &mut *outputs {
        let path = output.path.parent().and_then(|parent| real_path(tree, is_root, &parent));
        let name = output.path.file_name().map(RelPath::parse);
        if let (Some(real), Some(Ok(name))) = (path, name)
            && let Ok(path) = real.join(&name)
        {
            output.path = path;
            has_changed = true;
        }
    }
    if has_changed { refuse_twins(outputs) } else { Ok(()) }
}

/// Where a directory is, if a symlink of the tree lies on the way; `None` also where one leads nowhere.
fn real_path(tree: &InputTree, is_root: bool, path: &RelPath) -> Option<RelPath> {
    /// A component that is still to be looked up.
    struct Next {
        name: String,
        of_link: bool,
    }
    let mut waiting: VecDeque<Next> =
        path.components().map(|name| Next { name: name.to_owned(), of_link: false }).collect();
    // The way so far: names of directories, and the index of each.
    let mut way: Vec<(String, u32)> = Vec::new();
    let mut links = 0;
    while let Some(next) = waiting.pop_front() {
        match next.name.as_str() {
            "" | "." => continue,
            ".." => {
                // The directory above the root is the root.
                if way.pop().is_none() && !is_root {
                    return None;
                }
                continue;
            }
            _ => {}
        }
        let here = way.last().map_or(0, |(_, index)| *index);
        match tree.lookup_in(here, next.name.as_bytes()) {
            Some(Found::Directory(index)) => way.push((next.name, index)),
            Some(Found::Symlink { target }) => {
                let target = std::str::from_utf8(target).ok()?;
                links += 1;
                if links > MAX_LINKS || (target.starts_with('/') && !is_root) {
                    return None;
                }
                if target.starts_with('/') {
                    way.clear();
                }
                for name in target.rsplit('/') {
                    waiting.push_front(Next { name: name.to_owned(), of_link: true });
                }
            }
            Some(Found::File { .. }) => return None,
            None if next.of_link => return None,
            // Directories that are made for the output.
            None => {
                let made = waiting.into_iter().map(|next| next.name);
                let names = way.into_iter().map(|(name, _)| name);
                let names: Vec<_> = names.chain([next.name]).chain(made).collect();
                return if links > 0 { RelPath::parse(&names.join("/")).ok() } else { None };
            }
        }
    }
    if links == 0 {
        return None;
    }
    let names: Vec<_> = way.into_iter().map(|(name, _)| name).collect();
    if names.is_empty() { Some(RelPath::root()) } else { RelPath::parse(&names.join("/")).ok() }
}

/// Refuses two outputs that are one.
fn refuse_twins(outputs: &[OutputPath]) -> Result<(), ActionError> {
    let mut sorted: Vec<_> = outputs.iter().collect();
    sorted.sort_unstable_by(|one, other| one.path.as_str().cmp(other.path.as_str()));
    match sorted.windows(2).find(|pair| pair[0].path == pair[1].path) {
        Some(pair) => Err(ActionError::Invalid(format!(
            "the outputs `{}` and `{}` are the same file",
            pair[0].declared, pair[1].declared
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::sync::Arc;

    use model::{Digest, DigestFunction, Directory, Loaded, OutputKind, TreeLimits, proto};
    use prost::Message as _;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn link(name: &str, target: &str) -> proto::SymlinkNode {
        let (name, target) = (name.to_owned(), target.to_owned());
        proto::SymlinkNode { name, target, ..Default::default() }
    }

    /// `real/deep` and `file`, and symlinks.
    fn tree() -> InputTree {
        let mut blobs: HashMap<Digest, Vec<u8>> = HashMap::new();
        let mut store = |directory: &proto::Directory| {
            let blob = directory.encode_to_vec();
            let digest = Digest::of(FUNCTION, &blob);
            blobs.insert(digest, blob);
            digest
        };
        let node = |name: &str, digest: Digest| proto::DirectoryNode {
            name: name.to_owned(),
            digest: Some(digest.to_proto()),
        };
        let deep =
            store(&proto::Directory { symlinks: vec![link("up", "..")], ..Default::default() });
        let real = store(&proto::Directory {
            directories: vec![node("deep", deep)],
            ..Default::default()
        });
        let file = proto::FileNode {
            name: "file".to_owned(),
            digest: Some(Digest::of(FUNCTION, b"").to_proto()),
            ..Default::default()
        };
        let root = store(&proto::Directory {
            files: vec![file],
            directories: vec![node("real", real)],
            symlinks: vec![
                link("absolute", "/real"),
                link("away", "../real"),
                link("dangling", "nowhere"),
                link("deep", "link/./deep"),
                link("here", "."),
                link("link", "real"),
                link("loop", "loop"),
                link("tofile", "file"),
            ],
            ..Default::default()
        });
        let mut load = |digest: &Digest| -> Loaded<Infallible> {
            let blob = blobs.get(digest).cloned();
            Ok(blob.map(|blob| Arc::new(Directory::parse(blob.into(), FUNCTION).unwrap())))
        };
        InputTree::assemble(root, TreeLimits::default(), &mut load).unwrap()
    }

    fn output(path: &str) -> OutputPath {
        let (declared, kind) = (path.to_owned(), OutputKind::Any);
        OutputPath { path: RelPath::parse(path).unwrap(), declared, kind }
    }

    #[test]
    fn symlinks_are_followed_inside_of_the_tree() {
        let tree = tree();
        let check = |path: &str, expected: &str| {
            let mut outputs = [output(path)];
            follow_in(&tree, false, &mut outputs).unwrap();
            assert_eq!(outputs[0].path.as_str(), expected);
            assert_eq!(outputs[0].declared, path);
        };
        check("link/out", "real/out");
        check("link/new/out", "real/new/out");
        check("link/deep/out", "real/deep/out");
        check("deep/out", "real/deep/out");
        check("real/deep/up/out", "real/out");
        check("here/out", "out");
        check("here/here/link/out", "real/out");
        // The output itself may be a symlink; only the way to it is followed.
        check("link", "link");
        check("here/link", "link");
        for unchanged in ["out", "real/out", "new/out", "file/out", "tofile/out"] {
            check(unchanged, unchanged);
        }
        for refused in ["absolute/out", "away/out", "dangling/out", "loop/out"] {
            check(refused, refused);
        }
    }

    #[test]
    fn absolute_symlinks_lead_into_an_input_root_that_is_the_root() {
        let tree = tree();
        for (path, expected) in
            [("absolute/out", "real/out"), ("away/out", "real/out"), ("link/out", "real/out")]
        {
            let mut outputs = [output(path)];
            follow_in(&tree, true, &mut outputs).unwrap();
            assert_eq!(outputs[0].path.as_str(), expected);
        }
        for refused in ["dangling/out", "loop/out"] {
            let mut outputs = [output(refused)];
            follow_in(&tree, true, &mut outputs).unwrap();
            assert_eq!(outputs[0].path.as_str(), refused);
        }
    }

    #[test]
    fn outputs_that_become_one_are_refused() {
        let mut outputs = [output("link/out"), output("real/out")];
        let refused = follow_in(&tree(), false, &mut outputs);
        assert!(matches!(refused, Err(ActionError::Invalid(_))));
    }
}
