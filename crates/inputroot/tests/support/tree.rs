//! Input trees for tests, written as a list of paths.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use model::proto::{self, Message};
use model::{Digest, DigestFunction, Directory, InputTree, LoadError, NodeProperties, TreeLimits};

/// A tree for a test.
pub(crate) struct TreeFixture {
    function: DigestFunction,
    root: Folder,
    blobs: HashMap<Digest, Vec<u8>>,
}

#[derive(Default)]
struct Folder {
    files: BTreeMap<String, (Digest, bool)>,
    folders: BTreeMap<String, Folder>,
    symlinks: BTreeMap<String, String>,
    /// Those of files and symlinks.
    properties: BTreeMap<String, NodeProperties>,
    own: NodeProperties,
}

impl TreeFixture {
    pub(crate) fn new() -> Self {
        Self::with_function(DigestFunction::Sha256)
    }

    pub(crate) fn with_function(function: DigestFunction) -> Self {
        Self { function, root: Folder::default(), blobs: HashMap::new() }
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.blob(path, content, false)
    }

    pub(crate) fn executable(self, path: &str, content: &[u8]) -> Self {
        self.blob(path, content, true)
    }

    /// A file whose blob is not made, for digests that no real blob can have here.
    pub(crate) fn phantom(mut self, path: &str, size_bytes: u64) -> Self {
        let digest = Digest::new(self.function, [7; 32], size_bytes);
        let (folder, name) = self.folder_of(path);
        folder.files.insert(name, (digest, false));
        self
    }

    pub(crate) fn symlink(mut self, path: &str, target: &str) -> Self {
        let (folder, name) = self.folder_of(path);
        folder.symlinks.insert(name, target.to_owned());
        self
    }

    pub(crate) fn directory(mut self, path: &str) -> Self {
        let (folder, name) = self.folder_of(path);
        folder.folders.entry(name).or_default();
        self
    }

    /// Gives an entry node properties; it must be there already if it is a directory.
    pub(crate) fn properties(mut self, path: &str, properties: NodeProperties) -> Self {
        let (folder, name) = self.folder_of(path);
        match folder.folders.get_mut(&name) {
            Some(directory) => directory.own = properties,
            None => drop(folder.properties.insert(name, properties)),
        }
        self
    }

    fn blob(mut self, path: &str, content: &[u8], executable: bool) -> Self {
        let digest = Digest::of(self.function, content);
        self.blobs.entry(digest).or_insert_with(|| content.to_vec());
        let (folder, name) = self.folder_of(path);
        folder.files.insert(name, (digest, executable));
        self
    }

    fn folder_of(&mut self, path: &str) -> (&mut Folder, String) {
        let mut names: Vec<&str> = path.split('/').collect();
        let name = names.pop().expect("a path has a last component");
        let mut folder = &mut self.root;
        for above in names {
            folder = folder.folders.entry(above.to_owned()).or_default();
        }
        (folder, name.to_owned())
    }

    /// The tree, and the blobs of its files and directories.
    pub(crate) fn build(mut self) -> (Arc<InputTree>, HashMap<Digest, Vec<u8>>) {
        let mut messages = HashMap::new();
        let root = encode(&self.root, self.function, &mut messages);
        let tree = InputTree::assemble(root, TreeLimits::default(), &mut |digest| {
            let message = messages.get(digest).cloned();
            message
                .map(|message: Vec<u8>| Directory::parse(message.into(), digest.function()))
                .transpose()
                .map(|directory| directory.map(Arc::new))
                .map_err(LoadError::<Infallible>::from)
        });
        self.blobs.extend(messages);
        (Arc::new(tree.expect("a test's tree is whole")), self.blobs)
    }
}

fn encode(
    folder: &Folder,
    function: DigestFunction,
    messages: &mut HashMap<Digest, Vec<u8>>,
) -> Digest {
    let properties_of = |name: &str| folder.properties.get(name).and_then(|of| of.to_proto());
    let directory = proto::Directory {
        node_properties: folder.own.to_proto(),
        files: folder
            .files
            .iter()
            .map(|(name, (digest, is_executable))| proto::FileNode {
                name: name.clone(),
                digest: Some(digest.to_proto()),
                is_executable: *is_executable,
                node_properties: properties_of(name),
            })
            .collect(),
        directories: folder
            .folders
            .iter()
            .map(|(name, below)| proto::DirectoryNode {
                name: name.clone(),
                digest: Some(encode(below, function, messages).to_proto()),
            })
            .collect(),
        symlinks: folder
            .symlinks
            .iter()
            .map(|(name, target)| proto::SymlinkNode {
                name: name.clone(),
                target: target.clone(),
                node_properties: properties_of(name),
            })
            .collect(),
    };
    let message = directory.encode_to_vec();
    let digest = Digest::of(function, &message);
    messages.insert(digest, message);
    digest
}
