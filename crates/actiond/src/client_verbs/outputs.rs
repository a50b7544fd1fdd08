//! The outputs of a result, read and counted before they are written.

use std::collections::BTreeSet;

use anyhow::Context as _;
use model::{Digest, DigestFunction, InputTree, RelPath, proto};
use proto::ActionResult;

use super::allowance::Allowance;
use super::blobs::Reader;
use super::trees;

/// The outputs. Paths are clean, and begin at the input root.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) files: Vec<OutputFile>,
    pub(crate) trees: Vec<(String, InputTree)>,
    /// Paths and targets.
    pub(crate) symlinks: Vec<(String, String)>,
}

/// A file.
#[derive(Debug)]
pub(crate) struct OutputFile {
    pub(crate) path: String,
    pub(crate) digest: Digest,
    pub(crate) executable: bool,
}

impl Outputs {
    /// Reads the directories of a result and counts everything in it.
    pub(crate) fn of(
        reader: &mut Reader<'_>,
        working_directory: &str,
        result: &ActionResult,
        function: DigestFunction,
        allowance: &mut Allowance,
    ) -> anyhow::Result<Self> {
        let base = RelPath::parse(working_directory).context("the working directory")?;
        // Paths of outputs begin at the working directory.
        let clean = |path: &str| {
            let resolved = RelPath::resolve(&base, path);
            let resolved = resolved.with_context(|| format!("the output {}", chain::visible(path)));
            resolved.map(|path| path.as_str().to_owned())
        };
        let digest = |field: &Option<proto::Digest>| {
            Digest::from_proto_field(field.as_ref(), function).context("a digest of the result")
        };
        let mut outputs = Self::default();
        for file in &result.output_files {
            let (path, digest) = (clean(&file.path)?, digest(&file.digest)?);
            allowance.take_path(&path, digest.size_bytes())?;
            outputs.files.push(OutputFile { path, digest, executable: file.is_executable });
        }
        for output in &result.output_directories {
            let (path, digest) = (clean(&output.path)?, digest(&output.tree_digest)?);
            allowance.take_path(&path, 0)?;
            let message = reader.blob(&digest).context("reading the Tree of an output")?;
            let tree = trees::of_message(&message, &digest, allowance.limits());
            let tree = tree.with_context(|| format!("the output {}", chain::visible(&path)))?;
            allowance.take_tree(&tree)?;
            outputs.trees.push((path, tree));
        }
        #[allow(deprecated, reason = "clients of older versions of the API ask for them")]
        let symlinks = [
            &result.output_symlinks,
            &result.output_file_symlinks,
            &result.output_directory_symlinks,
        ];
        let mut known = BTreeSet::new();
        for link in symlinks.into_iter().flatten() {
            if known.insert(&link.path) {
                let path = clean(&link.path)?;
                allowance.take_path(&path, 0)?;
                outputs.symlinks.push((path, link.target.clone()));
            }
        }
        Ok(outputs)
    }
}
