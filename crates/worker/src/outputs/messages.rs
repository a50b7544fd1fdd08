//! The messages that tell a client of its outputs.

use model::result::TreeBuilder;
use model::{Digest, DigestFunction, OutputDirectoryFormat, OutputKind, OutputPath, proto};

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
                if let Some((digest, is_executable)) = self.file(file) {
                    let digest = Some(digest.to_proto());
                    let file =
                        proto::OutputFile { path, digest, is_executable, ..Default::default() };
                    result.output_files.push(file);
                }
            }
            Node::Directory(entries) => {
                result.output_directories.push(self.directory(&path, entries)?);
            }
            Node::Symlink(target) => {
                let target = target.clone();
                let symlink = proto::OutputSymlink { path, target, ..Default::default() };
                push_symlink(result, output.kind, symlink);
            }
        }
        Ok(())
    }

    fn file(&self, file: &File) -> Option<(Digest, bool)> {
        match file {
            File::Input { digest, executable } => Some((*digest, *executable)),
            File::Made(ticket) => {
                self.stored.file(*ticket).map(|adopted| (adopted.digest, adopted.executable))
            }
        }
    }

    fn directory(
        &self,
        path: &str,
        entries: &[(String, Node)],
    ) -> Result<proto::OutputDirectory, ActionError> {
        let mut tree = TreeBuilder::new(self.function);
        let root = self.message(entries, &mut tree)?;
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
        tree: &mut TreeBuilder,
    ) -> Result<proto::Directory, ActionError> {
        let mut directory = proto::Directory::default();
        for (name, node) in entries {
            let name = name.clone();
            match node {
                Node::File(file) => {
                    let Some((digest, is_executable)) = self.file(file) else { continue };
                    let digest = Some(digest.to_proto());
                    let node =
                        proto::FileNode { name, digest, is_executable, ..Default::default() };
                    directory.files.push(node);
                }
                Node::Directory(entries) => {
                    let child = self.message(entries, tree)?;
                    let digest = tree.add(child).map_err(|error| {
                        ActionError::internal("encoding an output directory", &error)
                    })?;
                    let digest = Some(digest.to_proto());
                    directory.directories.push(proto::DirectoryNode { name, digest });
                }
                Node::Symlink(target) => {
                    let target = target.clone();
                    let node = proto::SymlinkNode { name, target, ..Default::default() };
                    directory.symlinks.push(node);
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
