//! Declared outputs on their way into the store.
//!
//! Runs when everything inside the sandbox is dead. Files are moved into the
//! store by rename; nothing is resolved through a symlink that the action made.
//!
//! One output may lie inside another, and what was moved away is not found a
//! second time. So outer outputs go first, and while there are inner ones the
//! directories that were walked are remembered.

use std::collections::{HashMap, HashSet};
use std::iter::successors;

use inputroot::{NamedEntry, OutputEntry, OutputError, OutputFile, OutputView};
use model::result::TreeBuilder;
use model::{
    CommandSpec, Digest, DigestFunction, OutputDirectoryFormat, OutputKind, OutputPath, RelPath,
    proto,
};
use store::{AdoptError, Cas};

use crate::config::OutputLimits;
use crate::error::ActionError;

/// Collects the outputs that `command` declares into `result`. One that is not
/// there is left out: the client decides whether it had to be.
pub(crate) fn collect(
    cas: &Cas,
    function: DigestFunction,
    limits: OutputLimits,
    view: &OutputView,
    command: &CommandSpec,
    result: &mut proto::ActionResult,
) -> Result<(), ActionError> {
    let mut outputs: Vec<&OutputPath> = command.outputs.iter().collect();
    // A directory comes before what lies in it.
    outputs.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let nested = any_inside_another(&outputs);
    let mut collector = Collector {
        cas,
        function,
        limits,
        view,
        format: command.output_directory_format,
        entries: 0,
        bytes: 0,
        walked: nested.then(HashMap::new),
    };
    outputs.into_iter().try_for_each(|output| collector.collect_one(output, result))
}

fn any_inside_another(outputs: &[&OutputPath]) -> bool {
    let paths: HashSet<&RelPath> = outputs.iter().map(|output| &output.path).collect();
    let mut ancestors =
        outputs.iter().flat_map(|output| successors(output.path.parent(), RelPath::parent));
    outputs.len() > 1 && ancestors.any(|ancestor| paths.contains(&ancestor))
}

struct Collector<'a> {
    cas: &'a Cas,
    function: DigestFunction,
    limits: OutputLimits,
    view: &'a OutputView,
    format: OutputDirectoryFormat,
    entries: u64,
    /// Of all files that were hashed.
    bytes: u64,
    /// Every directory that was walked, when outputs lie in one another.
    walked: Option<HashMap<RelPath, proto::Directory>>,
}

/// What is at an output's path.
enum Collected {
    File { digest: Option<proto::Digest>, is_executable: bool },
    Directory,
    Symlink { target: String },
}

impl Collector<'_> {
    fn collect_one(
        &mut self,
        output: &OutputPath,
        result: &mut proto::ActionResult,
    ) -> Result<(), ActionError> {
        let path = &output.path;
        let Some(collected) = self.look_at(path)? else {
            return Ok(());
        };
        match (collected, output.kind) {
            (Collected::File { .. }, OutputKind::Directory) => {
                return Err(mismatch(output, "an output directory", "a file"));
            }
            (Collected::Directory, OutputKind::File) => {
                return Err(mismatch(output, "an output file", "a directory"));
            }
            (Collected::File { digest, is_executable }, _) => {
                result.output_files.push(proto::OutputFile {
                    path: output.declared.clone(),
                    digest,
                    is_executable,
                    ..Default::default()
                });
            }
            (Collected::Directory, _) => {
                result.output_directories.push(self.store_directory(output)?);
            }
            (Collected::Symlink { target }, kind) => {
                let path = output.declared.clone();
                push_symlink(
                    result,
                    kind,
                    proto::OutputSymlink { path, target, ..Default::default() },
                );
            }
        }
        Ok(())
    }

    /// What is at `path`: on disk, or in an outer output that was taken before.
    fn look_at(&mut self, path: &RelPath) -> Result<Option<Collected>, ActionError> {
        if let Some(outer) = self.walked_parent(path) {
            return Ok(remembered(outer, path));
        }
        let entry = self.view.entry(path).map_err(|error| unreadable(path, error))?;
        let Some(entry) = entry else { return Ok(None) };
        self.count(path)?;
        Ok(Some(match entry {
            OutputEntry::File(file) => {
                let (digest, is_executable) = self.store_file(path, &file)?;
                Collected::File { digest: Some(digest.to_proto()), is_executable }
            }
            OutputEntry::Directory => Collected::Directory,
            OutputEntry::Symlink(target) => Collected::Symlink { target: utf8(path, target)? },
            OutputEntry::Special => return Err(special(path)),
        }))
    }

    fn walked_parent(&self, path: &RelPath) -> Option<&proto::Directory> {
        self.walked.as_ref()?.get(&path.parent()?)
    }

    /// One more entry; `path` is named when that is one too many.
    fn count(&mut self, path: &RelPath) -> Result<(), ActionError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(self.too_many(path));
        }
        Ok(())
    }

    fn too_many(&self, path: &RelPath) -> ActionError {
        let limit = self.limits.entries;
        ActionError::ResourceExhausted(format!(
            "the outputs have more than {limit} files and directories; the last one was at `{path}`"
        ))
    }

    fn store_file(
        &mut self,
        path: &RelPath,
        file: &OutputFile,
    ) -> Result<(Digest, bool), ActionError> {
        match file {
            OutputFile::Input { digest, executable } => Ok((*digest, *executable)),
            OutputFile::Staged(file) => {
                let room = self.limits.total_bytes.saturating_sub(self.bytes);
                let limit = self.limits.file_bytes.min(room);
                let adopted = file.adopt(self.cas, self.function, limit);
                let adopted = adopted.map_err(|error| not_adopted(path, &error))?;
                self.bytes = self.bytes.saturating_add(adopted.digest.size_bytes());
                Ok((adopted.digest, adopted.executable))
            }
        }
    }

    fn store_directory(
        &mut self,
        output: &OutputPath,
    ) -> Result<proto::OutputDirectory, ActionError> {
        let mut tree = TreeBuilder::new(self.function);
        let root = self.walk(&output.path, &mut tree, 0)?;
        let built = tree
            .finish(root)
            .map_err(|error| ActionError::internal("encoding an output directory", &error))?;
        let put = |digest: &Digest, message: &[u8]| {
            self.cas
                .put_expected(digest, message)
                .map_err(|error| ActionError::internal("storing an output directory", &error))
        };
        for (digest, message) in &built.directories {
            put(digest, message)?;
        }
        let mut directory = built.output_directory(&output.declared);
        if self.format == OutputDirectoryFormat::DirectoryOnly {
            directory.tree_digest = None;
            directory.is_topologically_sorted = false;
        } else {
            put(&built.tree_digest, &built.tree)?;
        }
        Ok(directory)
    }

    /// Stores all that is in the directory at `path`, and adds the directories
    /// below it to `tree`. Recursion is bounded by [`OutputLimits::depth`].
    fn walk(
        &mut self,
        path: &RelPath,
        tree: &mut TreeBuilder,
        depth: usize,
    ) -> Result<proto::Directory, ActionError> {
        if let Some(known) = self.walked.as_ref().and_then(|walked| walked.get(path)) {
            let known = known.clone();
            self.add_remembered(path, &known, tree)?;
            return Ok(known);
        }
        if depth > self.limits.depth {
            let limit = self.limits.depth;
            let text = format!("`{path}` is more than {limit} directories below the output");
            return Err(ActionError::ResourceExhausted(text));
        }
        let room = self.limits.entries.saturating_sub(self.entries);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let listing = self.view.read_dir(path, room).map_err(|error| match error {
            OutputError::TooManyEntries { .. } => self.too_many(path),
            other => unreadable(path, other),
        })?;
        let mut directory = proto::Directory::default();
        for NamedEntry { name, entry } in listing {
            let name = utf8(path, name)?;
            let at = below(path, &name)?;
            self.count(&at)?;
            match entry {
                OutputEntry::File(file) => {
                    let (digest, is_executable) = self.store_file(&at, &file)?;
                    let digest = Some(digest.to_proto());
                    let node =
                        proto::FileNode { name, digest, is_executable, ..Default::default() };
                    directory.files.push(node);
                }
                OutputEntry::Directory => {
                    let child = self.walk(&at, tree, depth + 1)?;
                    let digest = Some(add(tree, child)?.to_proto());
                    directory.directories.push(proto::DirectoryNode { name, digest });
                }
                OutputEntry::Symlink(target) => {
                    let target = utf8(&at, target)?;
                    let node = proto::SymlinkNode { name, target, ..Default::default() };
                    directory.symlinks.push(node);
                }
                OutputEntry::Special => return Err(special(&at)),
            }
        }
        if let Some(walked) = &mut self.walked {
            walked.insert(path.clone(), directory.clone());
        }
        Ok(directory)
    }

    /// Adds to `tree` what lies below a directory that was walked before.
    fn add_remembered(
        &self,
        path: &RelPath,
        directory: &proto::Directory,
        tree: &mut TreeBuilder,
    ) -> Result<(), ActionError> {
        for child in &directory.directories {
            let at = below(path, &child.name)?;
            let child = self.walked.as_ref().and_then(|walked| walked.get(&at));
            if let Some(child) = child {
                self.add_remembered(&at, child, tree)?;
                add(tree, child.clone())?;
            }
        }
        Ok(())
    }
}

fn add(tree: &mut TreeBuilder, directory: proto::Directory) -> Result<Digest, ActionError> {
    tree.add(directory)
        .map_err(|error| ActionError::internal("encoding an output directory", &error))
}

/// What an outer output had at `path`, which lies directly in it.
fn remembered(outer: &proto::Directory, path: &RelPath) -> Option<Collected> {
    let name = path.file_name()?;
    if let Some(file) = outer.files.iter().find(|node| node.name == name) {
        let (digest, is_executable) = (file.digest.clone(), file.is_executable);
        return Some(Collected::File { digest, is_executable });
    }
    if let Some(symlink) = outer.symlinks.iter().find(|node| node.name == name) {
        return Some(Collected::Symlink { target: symlink.target.clone() });
    }
    outer.directories.iter().any(|node| node.name == name).then_some(Collected::Directory)
}

/// Under the legacy fields a client looks for a symlink where its target's kind
/// belongs; under `output_paths` there is one list.
fn push_symlink(result: &mut proto::ActionResult, kind: OutputKind, symlink: proto::OutputSymlink) {
    #[expect(deprecated, reason = "clients of API 2.0 read nothing else")]
    let list = match kind {
        OutputKind::Any => &mut result.output_symlinks,
        OutputKind::File => &mut result.output_file_symlinks,
        OutputKind::Directory => &mut result.output_directory_symlinks,
    };
    list.push(symlink);
}

fn below(directory: &RelPath, name: &str) -> Result<RelPath, ActionError> {
    let path = RelPath::parse(name).and_then(|name| directory.join(&name));
    path.map_err(|error| ActionError::ResourceExhausted(format!("an output's path: {error}")))
}

/// REAPI's strings are UTF-8; names and targets on disk are any bytes.
fn utf8(path: &RelPath, bytes: Vec<u8>) -> Result<String, ActionError> {
    String::from_utf8(bytes).map_err(|error| {
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        ActionError::Unsupported(format!(
            "the name or target `{text}` at output `{path}` is not UTF-8"
        ))
    })
}

fn special(path: &RelPath) -> ActionError {
    let text = format!("output `{path}` is a socket, a pipe or a device, which cannot be stored");
    ActionError::Unsupported(text)
}

fn mismatch(output: &OutputPath, declared: &str, found: &str) -> ActionError {
    let path = &output.declared;
    ActionError::Unsupported(format!(
        "`{path}` was declared as {declared}, and the action made {found}"
    ))
}

fn unreadable(path: &RelPath, error: OutputError) -> ActionError {
    ActionError::internal(&format!("reading output `{path}`"), &error)
}

fn not_adopted(path: &RelPath, error: &AdoptError) -> ActionError {
    match error {
        AdoptError::TooLarge { size_bytes, max_bytes, .. } => {
            let text = format!(
                "output `{path}` has {size_bytes} bytes, more than the {max_bytes} that it may have"
            );
            ActionError::ResourceExhausted(text)
        }
        AdoptError::Store(source) if source.is_out_of_space() => {
            ActionError::ResourceExhausted(format!("no space to store output `{path}`: {source}"))
        }
        _ => ActionError::internal(&format!("storing output `{path}`"), error),
    }
}
