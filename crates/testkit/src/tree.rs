//! Input trees as messages.

use std::collections::BTreeMap;

use model::{Digest, DigestFunction, proto};
use prost::Message as _;

/// A tree of inputs, by path.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Clone)]
enum Node {
    File { content: Vec<u8>, executable: bool },
    Symlink { target: String },
    Directory(Tree),
}

impl Tree {
    /// A tree without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file, and the directories above it.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.insert(path, Node::File { content: content.into(), executable: false });
    }

    /// Adds an executable file.
    pub fn executable(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.insert(path, Node::File { content: content.into(), executable: true });
    }

    /// Adds a symlink.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, Node::Symlink { target: target.to_owned() });
    }

    /// Adds an empty directory.
    pub fn directory(&mut self, path: &str) {
        self.insert(path, Node::Directory(Self::default()));
    }

    fn insert(&mut self, path: &str, node: Node) {
        match path.split_once('/') {
            None => {
                self.nodes.insert(path.to_owned(), node);
            }
            Some((first, rest)) => {
                let parent = self.nodes.entry(first.to_owned());
                if let Node::Directory(tree) = parent.or_insert(Node::Directory(Self::default())) {
                    tree.insert(rest, node);
                }
            }
        }
    }

    /// The digest of the root Directory; all blobs of the tree go to `blobs`.
    pub fn encode(
        &self,
        function: DigestFunction,
        blobs: &mut BTreeMap<Digest, Vec<u8>>,
    ) -> Digest {
        let mut directory = proto::Directory::default();
        let mut store = |content: Vec<u8>| {
            let digest = Digest::of(function, &content);
            blobs.insert(digest, content);
            digest
        };
        for (name, node) in &self.nodes {
            match node {
                Node::File { content, executable } => directory.files.push(proto::FileNode {
                    name: name.clone(),
                    digest: Some(store(content.clone()).to_proto()),
                    is_executable: *executable,
                    node_properties: None,
                }),
                Node::Symlink { target } => directory.symlinks.push(proto::SymlinkNode {
                    name: name.clone(),
                    target: target.clone(),
                    node_properties: None,
                }),
                Node::Directory(_) => {}
            }
        }
        for (name, node) in &self.nodes {
            if let Node::Directory(tree) = node {
                let digest = Some(tree.encode(function, blobs).to_proto());
                directory.directories.push(proto::DirectoryNode { name: name.clone(), digest });
            }
        }
        let content = directory.encode_to_vec();
        let digest = Digest::of(function, &content);
        blobs.insert(digest, content);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_paths_become_directories() {
        let mut tree = Tree::new();
        tree.file("a/b/c", "content");
        tree.executable("a/run", "#!");
        tree.symlink("a/link", "b/c");
        tree.directory("empty");
        let mut blobs = BTreeMap::new();
        let root = tree.encode(DigestFunction::Sha256, &mut blobs);
        let decode = |digest: &Digest| proto::Directory::decode(blobs[digest].as_slice()).unwrap();
        let names: Vec<_> = decode(&root).directories.into_iter().map(|node| node.name).collect();
        assert_eq!(names, ["a", "empty"]);
        // Two files, and the Directories of the root, a, a/b and empty.
        assert_eq!(blobs.len(), 6);
    }
}
