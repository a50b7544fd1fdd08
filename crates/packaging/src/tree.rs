//! A tree of files in memory: packages put together, on their way into an image.
//!
//! Owners, times and all of the mode but "executable" are lost on purpose: everything in an image
//! is root's and readable by all, and nothing is set-user-id.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tar::EntryType;

use crate::recipe::Pattern;

/// The directories that are links into `/usr` on every distribution that images are made of.
/// Packages still name files by either path; here they all come to lie in `usr`.
const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// An entry of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its bytes.
        content: Bytes,
        /// Whether it can be executed.
        executable: bool,
    },
    /// A symbolic link, with its target.
    Symlink(String),
}

/// Files by their clean relative paths. Every node's parent is a directory of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Every path with its node; a directory comes before what is in it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The entry at exactly that path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Puts a node at a path and makes the directories above it. The same node may come twice.
    ///
    /// # Errors
    /// When something else is there, or above it.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.insert(parent, Node::Directory)?;
        }
        match self.nodes.get(path) {
            Some(present) => ensure!(*present == node, "{path} is there twice, and not the same"),
            None => drop(self.nodes.insert(path.to_owned(), node)),
        }
        Ok(())
    }

    /// A file that is not executable.
    ///
    /// # Errors
    /// As [`Tree::insert`].
    pub fn insert_file(&mut self, path: &str, content: impl Into<Bytes>) -> Result<()> {
        self.insert(path, Node::File { content: content.into(), executable: false })
    }

    /// Puts all of another tree below `at`.
    ///
    /// # Errors
    /// As [`Tree::insert`].
    pub fn graft(&mut self, at: &str, other: &Self) -> Result<()> {
        self.insert(at, Node::Directory)?;
        other.iter().try_for_each(|(path, node)| self.insert(&format!("{at}/{path}"), node.clone()))
    }

    /// Adds the files of a package that `keep` allows, with [`MERGED`] directories in `usr`.
    ///
    /// # Errors
    /// When the archive is corrupt, has a path that leads out of it or a file of a type that has no
    /// place in an image, or holds another file than the tree at one path.
    pub fn add_tar(&mut self, archive: &[u8], keep: impl Fn(&str) -> bool) -> Result<()> {
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let Some(path) = clean(&entry.path()?)? else { continue };
            if keep(&path) && !is_merged_root(&path) {
                let node = self.node(&mut entry).with_context(|| path.clone())?;
                // Directories that are empty after all have nothing to say.
                if node != Node::Directory {
                    self.insert(&path, node)?;
                }
            }
        }
        Ok(())
    }

    /// The links by which the merged directories are reached, as far as there is something in them.
    ///
    /// # Errors
    /// As [`Tree::insert`].
    pub fn link_merged(&mut self) -> Result<()> {
        for name in MERGED {
            let target = format!("usr/{name}");
            if self.nodes.contains_key(&target) {
                self.insert(name, Node::Symlink(target))?;
            }
        }
        Ok(())
    }

    fn node(&self, entry: &mut tar::Entry<'_, impl Read>) -> Result<Node> {
        let target = |entry: &tar::Entry<'_, _>| {
            let name = entry.link_name()?.context("a link without a target")?;
            let name = name.to_str().context("a link's target is not UTF-8")?;
            Ok::<_, anyhow::Error>(name.to_owned())
        };
        match entry.header().entry_type() {
            EntryType::Directory => Ok(Node::Directory),
            EntryType::Symlink => Ok(Node::Symlink(target(entry)?)),
            EntryType::Link => {
                let target = clean(Path::new(&target(entry)?))?.context("a link to the root")?;
                let node = self.nodes.get(&target).cloned();
                node.with_context(|| format!("a hard link to {target}, which is not there"))
            }
            EntryType::Regular | EntryType::Continuous => {
                let executable = entry.header().mode()? & 0o111 != 0;
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                Ok(Node::File { content: content.into(), executable })
            }
            other => bail!("a file of type {other:?}"),
        }
    }
}

/// The paths that are taken from a package: `only` where it says something, without what is dropped otherwise.
pub fn keeps(path: &str, only: &[Pattern], drop: &[Pattern]) -> bool {
    if only.is_empty() {
        return !drop.iter().any(|pattern| pattern.matches(path));
    }
    only.iter().any(|pattern| pattern.matches(path))
}

/// A path of a package without `./`, in its merged place; `None` for the root itself.
fn clean(path: &Path) -> Result<Option<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().context("a name is not UTF-8")?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("{} leads out of the package", path.display())
            }
        }
    }
    if names.first().is_some_and(|first| MERGED.contains(first)) {
        names.insert(0, "usr");
    }
    Ok((!names.is_empty()).then(|| names.join("/")))
}

/// Whether the path is one of the merged directories: a directory in one package, a link in
/// another, and here made by [`Tree::link_merged`].
fn is_merged_root(path: &str) -> bool {
    path.strip_prefix("usr/").is_some_and(|name| MERGED.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of files (executable with a `*` at the end) and links (`name -> target`).
    fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(if path.ends_with('*') { 0o4755 } else { 0o640 });
            let path = path.trim_end_matches('*');
            if let Some(target) = content.strip_prefix("-> ") {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, target).unwrap();
            } else if let Some(target) = content.strip_prefix("== ") {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                builder.append_link(&mut header, path, target).unwrap();
            } else {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    /// The tree of these archives as `path`, `path*`, or `path -> target`; directories left out.
    fn shown(archives: &[Vec<u8>]) -> Result<Vec<String>> {
        let mut tree = Tree::default();
        for archive in archives {
            tree.add_tar(archive, |path| keeps(path, &[], &[]))?;
        }
        tree.link_merged()?;
        let shown = tree.iter().filter_map(|(path, node)| match node {
            Node::Directory => None,
            Node::File { executable: true, .. } => Some(format!("{path}*")),
            Node::File { .. } => Some(path.to_owned()),
            Node::Symlink(target) => Some(format!("{path} -> {target}")),
        });
        Ok(shown.collect())
    }

    #[test]
    fn both_ways_to_name_a_file_lead_to_one_place() {
        let old = tar(&[("./bin/sh*", "sh"), ("./lib/a.so", "a"), ("./lib64/ld.so", "-> /lib/ld")]);
        let new = tar(&[("./usr/lib/b.so", "b"), ("./usr/bin/sh*", "sh")]);
        let expected = [
            "bin -> usr/bin",
            "lib -> usr/lib",
            "lib64 -> usr/lib64",
            "usr/bin/sh*",
            "usr/lib/a.so",
            "usr/lib/b.so",
            "usr/lib64/ld.so -> /lib/ld",
        ];
        assert_eq!(shown(&[old, new]).unwrap(), expected);
    }

    #[test]
    fn hard_links_are_two_files_of_one_content() {
        let archive = tar(&[("usr/bin/a*", "program"), ("usr/bin/b*", "== ./usr/bin/a")]);
        let expected = ["bin -> usr/bin", "usr/bin/a*", "usr/bin/b*"];
        assert_eq!(shown(&[archive]).unwrap(), expected);
        assert!(shown(&[tar(&[("b", "== a")])]).is_err());
    }

    #[test]
    fn conflicts_are_errors() {
        let check = |one: &[(&str, &str)], other: &[(&str, &str)]| {
            assert!(shown(&[tar(one), tar(other)]).is_err(), "{one:?} {other:?}");
        };
        check(&[("a", "1")], &[("a", "2")]);
        check(&[("a", "1")], &[("a/b", "2")]);
        check(&[("a", "-> b")], &[("a/b", "2")]);
        check(&[("lib/a", "1")], &[("usr/lib/a", "2")]);
    }

    #[test]
    fn nothing_leads_out() {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..4].copy_from_slice(b"../a");
        header.set_size(0);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, &b""[..]).unwrap();
        assert!(shown(&[builder.into_inner().unwrap()]).is_err());
    }

    #[test]
    fn devices_are_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Char);
        header.set_path("dev/null").unwrap();
        header.set_size(0);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, &b""[..]).unwrap();
        assert!(shown(&[builder.into_inner().unwrap()]).is_err());
    }
}
