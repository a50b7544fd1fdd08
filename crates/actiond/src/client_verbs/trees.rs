//! Whole trees of directories, as the verbs list and write them.
//!
//! A few small directories that name each other make a tree of 2^100 entries. So a tree is assembled first, within
//! the limits that the server has for input trees, and then walked: one that is too large is refused before a line
//! of it is printed or a file of it is written.

use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use model::result::tree_messages;
use model::{
    AssembleError, Digest, Directory, Entry, InputTree, LoadError, Loaded, MAX_PATH_BYTES,
    TreeLimits,
};

use super::blobs::{Reader, gone};

/// The tree below a Directory of the server.
pub(crate) fn of_directory(
    reader: &mut Reader<'_>,
    root: Digest,
    limits: TreeLimits,
) -> anyhow::Result<InputTree> {
    assemble(root, limits, &mut |digest| {
        Directory::check_size(digest.size_bytes())?;
        let bytes = history::compare::Blobs::read(reader, digest).map_err(LoadError::Failed)?;
        parse(bytes, digest)
    })
}

/// The tree of a Tree message, which has all of its directories.
pub(crate) fn of_message(
    message: &Bytes,
    digest: &Digest,
    limits: TreeLimits,
) -> anyhow::Result<InputTree> {
    // Each directory but the root is an entry at least.
    let directories_max = usize::try_from(limits.max_entries).unwrap_or(usize::MAX);
    let parts = tree_messages(message, digest.function(), directories_max.saturating_add(1));
    let parts = parts.with_context(|| format!("{digest} is no Tree"))?;
    let load = &mut |digest: &Digest| parse(parts.directories.get(digest).cloned(), digest);
    let tree = assemble(parts.root, limits, load);
    tree.with_context(|| format!("the Tree {digest}"))
}

fn parse(bytes: Option<Bytes>, digest: &Digest) -> Loaded<anyhow::Error> {
    let parse = |bytes| Directory::parse(bytes, digest.function()).map(Arc::new);
    Ok(bytes.map(parse).transpose()?)
}

fn assemble(
    root: Digest,
    limits: TreeLimits,
    load: &mut dyn FnMut(&Digest) -> Loaded<anyhow::Error>,
) -> anyhow::Result<InputTree> {
    match InputTree::assemble(root, limits, load) {
        Ok(tree) => Ok(tree),
        Err(AssembleError::Missing(digests)) => {
            let first = digests.first().map(gone).unwrap_or_default();
            bail!("{} directories of the tree are missing: {first}", digests.len())
        }
        Err(AssembleError::Load { source, .. }) => Err(source),
        Err(AssembleError::TooLarge(limit)) => {
            Err(anyhow::Error::new(limit).context("the tree is too large"))
        }
        Err(AssembleError::Malformed { digest, source }) => {
            Err(anyhow::Error::new(source).context(format!("{digest} is no Directory")))
        }
    }
}

/// Hands every entry of a tree to `take`, with its path: a directory before what is in it.
pub(crate) fn walk(
    tree: &InputTree,
    mut take: impl FnMut(&str, &Entry<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let places = tree.directories();
    let mut path = String::new();
    // The directories from the root to the one that is looked at: the length of the path, the entries that are left,
    // and the place of the next directory among them.
    let mut above = Vec::new();
    let mut next = Some(0);
    loop {
        if let Some(place) = next.take() {
            let place = &places[place];
            let length = path.len();
            for entry in place.content.entries() {
                append(&mut path, entry.name())?;
                take(&path, &entry)?;
                path.truncate(length);
            }
            above.push((length, place.content.entries(), place.first_child as usize));
        }
        let Some((length, entries, child)) = above.last_mut() else { return Ok(()) };
        path.truncate(*length);
        match entries.find(|entry| matches!(entry, Entry::Directory { .. })) {
            None => drop(above.pop()),
            Some(entry) => {
                append(&mut path, entry.name())?;
                next = Some(*child);
                *child += 1;
            }
        }
    }
}

fn append(path: &mut String, name: &[u8]) -> anyhow::Result<()> {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(&String::from_utf8_lossy(name));
    ensure!(
        path.len() <= MAX_PATH_BYTES,
        "a path of the tree has more than {MAX_PATH_BYTES} bytes"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use model::DigestFunction;
    use model::proto::{self, Message as _};

    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn directory(files: &[&str], below: &[(&str, &proto::Directory)]) -> proto::Directory {
        let digest = |bytes: &[u8]| Some(Digest::of(FUNCTION, bytes).to_proto());
        let file = |name: &&str| proto::FileNode {
            name: (*name).to_owned(),
            digest: digest(name.as_bytes()),
            ..Default::default()
        };
        let node = |(name, directory): &(&str, &proto::Directory)| proto::DirectoryNode {
            name: (*name).to_owned(),
            digest: digest(&directory.encode_to_vec()),
        };
        proto::Directory {
            files: files.iter().map(file).collect(),
            directories: below.iter().map(node).collect(),
            ..Default::default()
        }
    }

    fn message(root: proto::Directory, children: Vec<proto::Directory>) -> (Bytes, Digest) {
        let bytes = proto::Tree { root: Some(root), children }.encode_to_vec();
        let digest = Digest::of(FUNCTION, &bytes);
        (bytes.into(), digest)
    }

    #[test]
    fn a_directory_comes_before_what_is_in_it() {
        let deep = directory(&["x"], &[]);
        let shared = directory(&["f", "g"], &[("deep", &deep)]);
        let root = directory(&["m", "z"], &[("a", &shared), ("b", &deep), ("n", &shared)]);
        let (bytes, digest) = message(root, vec![shared, deep]);
        let tree = of_message(&bytes, &digest, TreeLimits::default()).unwrap();
        let mut found = Vec::new();
        walk(&tree, |path, entry| {
            let mark = if matches!(entry, Entry::Directory { .. }) { "/" } else { "" };
            found.push(format!("{path}{mark}"));
            Ok(())
        })
        .unwrap();
        let expected = [
            "a/", "b/", "m", "n/", "z", "a/deep/", "a/f", "a/g", "a/deep/x", "b/x", "n/deep/",
            "n/f", "n/g", "n/deep/x",
        ];
        assert_eq!(found, expected);
    }

    /// A Tree of 100 levels, each of which has the one below twice: 2^100 files.
    fn exponential() -> (Bytes, Digest) {
        let mut level = directory(&["f"], &[]);
        let mut children = Vec::new();
        for _ in 0..100 {
            let above = directory(&[], &[("a", &level), ("b", &level)]);
            children.push(std::mem::replace(&mut level, above));
        }
        message(level, children)
    }

    #[test]
    fn a_tree_that_grows_without_bound_is_refused_before_it_is_walked() {
        let (bytes, digest) = exponential();
        assert!(bytes.len() < 20_000);
        let refused = of_message(&bytes, &digest, TreeLimits::default()).unwrap_err();
        assert!(format!("{refused:#}").contains("more than 1000000 entries"), "{refused:#}");

        // The same as Directories of a server.
        let tree = proto::Tree::decode(&*bytes).unwrap();
        let blobs: HashMap<Digest, Bytes> = tree
            .children
            .iter()
            .chain(&tree.root)
            .map(|directory| Bytes::from(directory.encode_to_vec()))
            .map(|bytes| (Digest::of(FUNCTION, &bytes), bytes))
            .collect();
        let root = Digest::of(FUNCTION, &tree.root.unwrap().encode_to_vec());
        let load = &mut |digest: &Digest| parse(blobs.get(digest).cloned(), digest);
        let refused = assemble(root, TreeLimits::default(), load).unwrap_err();
        assert!(format!("{refused:#}").contains("more than 1000000 entries"), "{refused:#}");
    }

    #[test]
    fn paths_have_a_bound() {
        let name = "n".repeat(255);
        let mut level = directory(&["f"], &[]);
        let mut children = Vec::new();
        for _ in 0..20 {
            let above = directory(&[], &[(&name, &level)]);
            children.push(std::mem::replace(&mut level, above));
        }
        let (bytes, digest) = message(level, children);
        let tree = of_message(&bytes, &digest, TreeLimits::default()).unwrap();
        let refused = walk(&tree, |_, _| Ok(())).unwrap_err();
        assert!(refused.to_string().contains("4095 bytes"), "{refused}");
    }

    #[test]
    fn a_tree_without_one_of_its_directories_names_it() {
        let below = directory(&["f"], &[]);
        let digest_of_it = Digest::of(FUNCTION, &below.encode_to_vec());
        let (bytes, digest) = message(directory(&[], &[("d", &below)]), Vec::new());
        let refused = of_message(&bytes, &digest, TreeLimits::default()).unwrap_err();
        let text = format!("{refused:#}");
        assert!(text.contains(&digest_of_it.to_string()), "{text}");
        assert!(of_message(&Bytes::new(), &digest, TreeLimits::default()).is_err());
    }
}
