//! The messages that tell a client of its outputs.

use model::result::TreeBuilder;
use model::{
    Digest, DigestFunction, NodeProperties, OutputDirectoryFormat, OutputKind,
    OutputNodeProperties, OutputPath, proto,
};

use crate::boundary::Destination;
use crate::error::ActionError;
use crate::losses::quoted;
use crate::outputs::storing::Stored;
use crate::outputs::survey::{File, Node};

/// Makes the messages, and stores those that are blobs themselves.
pub(super) struct Messages<'a> {
    pub(super) destination: &'a dyn Destination,
    pub(super) function: DigestFunction,
    pub(super) format: OutputDirectoryFormat,
    /// The node properties that the client asked for.
    pub(super) wanted: OutputNodeProperties,
    pub(super) stored: &'a Stored,
}

impl Messages<'_> {
    /// Adds one output, found as `node`, to `result`. A file that could not be stored is left out,
    /// of a directory as well.
    pub(super) fn add(
        &self,
        output: &OutputPath,
        node: &Node,
        result: &mut proto::ActionResult,
    ) -> Result<(), ActionError> {
        let path = output.declared.clone();
        match node {
            Node::File(file) => {
                if let Some(Told { digest, is_executable, node_properties }) = self.file(file) {
                    result.output_files.push(proto::OutputFile {
                        path,
                        digest: Some(digest.to_proto()),
                        is_executable,
                        node_properties,
                        ..Default::default()
                    });
                }
            }
            Node::Directory(entries, shown) => {
                result.output_directories.push(self.directory(&path, entries, *shown)?);
            }
            Node::Symlink(target, shown) => {
                let node_properties = self.properties(*shown);
                let symlink =
                    proto::OutputSymlink { path, target: target.clone(), node_properties };
                push_symlink(result, output.kind, symlink);
            }
        }
        Ok(())
    }

    fn file(&self, file: &File) -> Option<Told> {
        let (digest, is_executable, shown) = match file {
            File::Input { digest, executable, shown } => (*digest, *executable, *shown),
            File::Made(ticket) => {
                let adopted = self.stored.file(*ticket)?;
                (adopted.digest, adopted.executable, adopted.left)
            }
        };
        Some(Told { digest, is_executable, node_properties: self.properties(shown) })
    }

    /// Those node properties that the client asked for.
    fn properties(&self, shown: NodeProperties) -> Option<proto::NodeProperties> {
        self.wanted.choose(shown).to_proto()
    }

    fn directory(
        &self,
        path: &str,
        entries: &[(String, Node)],
        shown: NodeProperties,
    ) -> Result<proto::OutputDirectory, ActionError> {
        let mut tree = TreeBuilder::new(self.function);
        let root = self.message(entries, shown, &mut tree)?;
        let built = tree
            .finish(root)
            .map_err(|error| ActionError::internal("encoding an output directory", &error))?;
        for (digest, message) in &built.directories {
            self.put(path, digest, message)?;
        }
        let mut directory = built.output_directory(path);
        if self.format == OutputDirectoryFormat::DirectoryOnly {
            directory.tree_digest = None;
            directory.is_topologically_sorted = false;
        } else {
            self.put(path, &built.tree_digest, &built.tree)?;
        }
        Ok(directory)
    }

    /// A directory's message; the directories below it are added to `tree`. As deep as the survey
    /// went.
    fn message(
        &self,
        entries: &[(String, Node)],
        shown: NodeProperties,
        tree: &mut TreeBuilder,
    ) -> Result<proto::Directory, ActionError> {
        let node_properties = self.properties(shown);
        let mut directory = proto::Directory { node_properties, ..Default::default() };
        for (name, node) in entries {
            let name = name.clone();
            match node {
                Node::File(file) => {
                    let Some(told) = self.file(file) else { continue };
                    let Told { digest, is_executable, node_properties } = told;
                    let digest = Some(digest.to_proto());
                    let node = proto::FileNode { name, digest, is_executable, node_properties };
                    directory.files.push(node);
                }
                Node::Directory(entries, shown) => {
                    let child = self.message(entries, *shown, tree)?;
                    let digest = tree.add(child).map_err(|error| {
                        ActionError::internal("encoding an output directory", &error)
                    })?;
                    let digest = Some(digest.to_proto());
                    directory.directories.push(proto::DirectoryNode { name, digest });
                }
                Node::Symlink(target, shown) => {
                    let (target, node_properties) = (target.clone(), self.properties(*shown));
                    directory.symlinks.push(proto::SymlinkNode { name, target, node_properties });
                }
            }
        }
        Ok(directory)
    }

    fn put(&self, path: &str, digest: &Digest, message: &[u8]) -> Result<(), ActionError> {
        self.destination.put_expected(digest, message).map_err(|error| {
            let act = format!("storing the output directory {}", quoted(path));
            ActionError::of_store(&act, &error)
        })
    }
}

/// The content of a file's message.
struct Told {
    digest: Digest,
    is_executable: bool,
    node_properties: Option<proto::NodeProperties>,
}

/// Under the older lists a client looks for a symlink where its target's kind belongs; under
/// `output_paths` there is one list.
fn push_symlink(result: &mut proto::ActionResult, kind: OutputKind, symlink: proto::OutputSymlink) {
    #[expect(deprecated, reason = "clients of API 2.0 read nothing else")]
    let list = match kind {
        OutputKind::Any => &mut result.output_symlinks,
        OutputKind::File => &mut result.output_file_symlinks,
        OutputKind::Directory => &mut result.output_directory_symlinks,
    };
    list.push(symlink);
}
