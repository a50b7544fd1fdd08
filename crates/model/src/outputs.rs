//! The outputs that a command declares, resolved and checked against each other.

use crate::path::{PathError, RelPath};
use crate::property_error::shown;
use crate::proto;

/// The most memory for output paths. A short path means a long one below a long working directory,
/// so the size of the message alone does not bound them.
const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// One declared output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPath {
    /// Its path, relative to the input root.
    pub path: RelPath,
    /// The path as the client wrote it, relative to the working directory; the result must name
    /// the output by it.
    pub declared: String,
    /// The kind that the client expects there.
    pub kind: OutputKind,
}

/// The kind of output that a client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// A file, a directory or a symlink (`output_paths`).
    Any,
    /// A regular file, or a symlink to one (`output_files`).
    File,
    /// A directory, or a symlink to one (`output_directories`).
    Directory,
}

/// An error of collecting outputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// An output is no path inside the input root.
    #[error("output")]
    Path(#[from] PathError),
    /// Two outputs are one.
    #[error("the output {0:?} is declared twice")]
    Twice(String),
    /// An output that must be a file has another output or the working directory below it.
    #[error("the output file {0:?} would have to be a directory")]
    FileIsDirectory(String),
    /// The output paths, resolved, take more than 64 MiB.
    #[error("the output paths take more than {MAX_OUTPUT_BYTES} bytes")]
    TooLarge,
}

/// Reads what a command declares: `output_paths`, or where there are none the two older lists.
#[allow(deprecated, reason = "clients of API 2.0 declare outputs in two lists")]
pub(crate) fn outputs(
    command: &proto::Command,
    working_directory: &RelPath,
) -> Result<Vec<OutputPath>, OutputError> {
    let lists = if command.output_paths.is_empty() {
        vec![
            (OutputKind::File, &command.output_files),
            (OutputKind::Directory, &command.output_directories),
        ]
    } else {
        vec![(OutputKind::Any, &command.output_paths)]
    };
    let mut budget = MAX_OUTPUT_BYTES;
    let mut outputs = Vec::new();
    for (kind, list) in lists {
        for declared in list {
            let output = OutputPath::resolve(kind, declared, working_directory)?;
            budget = budget.checked_sub(output.memory_bytes()).ok_or(OutputError::TooLarge)?;
            outputs.push(output);
        }
    }
    check_outputs(&outputs, working_directory)?;
    Ok(outputs)
}

impl OutputPath {
    fn resolve(
        kind: OutputKind,
        declared: &str,
        working_directory: &RelPath,
    ) -> Result<Self, OutputError> {
        Ok(Self {
            path: RelPath::resolve(working_directory, declared)?,
            declared: declared.to_owned(),
            kind,
        })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.path.as_bytes().len() + self.declared.len()
    }
}

/// Refuses outputs that can't all be there: an output twice, and a file with something below it.
///
/// Sorted component by component, whatever lies below a path follows it at once.
fn check_outputs(outputs: &[OutputPath], working_directory: &RelPath) -> Result<(), OutputError> {
    let is_file_above = |output: &OutputPath, below: &RelPath| {
        output.kind == OutputKind::File && below.starts_with(&output.path)
    };
    let mut sorted: Vec<&OutputPath> = outputs.iter().collect();
    sorted.sort_unstable_by(|a, b| a.path.components().cmp(b.path.components()));
    for pair in sorted.windows(2) {
        if pair[0].path == pair[1].path {
            return Err(OutputError::Twice(shown(&pair[1].declared)));
        }
        if is_file_above(pair[0], &pair[1].path) {
            let declared = shown(&pair[0].declared);
            return Err(OutputError::FileIsDirectory(declared));
        }
    }
    match outputs.iter().find(|output| is_file_above(output, working_directory)) {
        Some(output) => Err(OutputError::FileIsDirectory(shown(&output.declared))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(deprecated, reason = "the old lists of outputs must go on working")]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// The outputs as `kind:path:declared`, or nothing if they are refused.
    fn declared(base: &str, paths: &[&str], files: &[&str], dirs: &[&str]) -> Vec<String> {
        let command = proto::Command {
            output_paths: strings(paths),
            output_files: strings(files),
            output_directories: strings(dirs),
            ..Default::default()
        };
        let shown =
            |output: &OutputPath| format!("{:?}:{}:{}", output.kind, output.path, output.declared);
        outputs(&command, &RelPath::parse(base).unwrap())
            .map(|outputs| outputs.iter().map(shown).collect())
            .unwrap_or_default()
    }

    #[test]
    fn output_paths_win_over_the_old_lists() {
        assert_eq!(declared("", &["b", "a"], &["f"], &["d"]), ["Any:b:b", "Any:a:a"]);
        assert_eq!(declared("", &[], &["f"], &["d"]), ["File:f:f", "Directory:d:d"]);
    }

    #[test]
    fn outputs_are_relative_to_the_working_directory() {
        assert_eq!(declared("w/x", &["o", "../p"], &[], &[]), ["Any:w/x/o:o", "Any:w/p:../p"]);
        assert_eq!(declared("w", &[], &[], &[""]), ["Directory:w:"]);
        assert_eq!(declared("w", &["."], &[], &[]), ["Any:w:."]);
        assert_eq!(declared("", &["./o"], &[], &[]), ["Any:o:./o"]);
    }

    #[test]
    fn outputs_may_lie_inside_directories_only() {
        assert_eq!(declared("", &["a", "a/b"], &[], &[]).len(), 2);
        assert_eq!(declared("", &[], &["d/f"], &["d", "d/e"]).len(), 3);
        assert_eq!(declared("", &[], &["a", "ab", "a.b/c"], &[]).len(), 3);
        let nothing: [&str; 0] = [];
        assert_eq!(declared("", &[], &["a", "a/b"], &[]), nothing);
        assert_eq!(declared("", &[], &["a"], &["a/b"]), nothing);
        assert_eq!(declared("", &[], &["a", "a.b", "a/b"], &[]), nothing, "'.' sorts before '/'");
        assert_eq!(declared("w/x", &[], &["."], &[]), nothing);
        assert_eq!(declared("w/x", &[], &[".."], &[]), nothing);
    }

    #[test]
    fn impossible_outputs_are_refused() {
        let nothing: [&str; 0] = [];
        for bad in ["/abs", "..", "a/../../b", "a//b", "a/", "a\0b"] {
            assert_eq!(declared("", &["ok", bad], &[], &[]), nothing, "{bad:?}");
            assert_eq!(declared("", &[], &[], &[bad]), nothing, "{bad:?}");
        }
        assert_eq!(declared("", &["a", "a"], &[], &[]), nothing);
        assert_eq!(declared("w", &["a", "../w/a"], &[], &[]), nothing);
        assert_eq!(declared("", &[], &["a"], &["a"]), nothing);
    }

    #[test]
    fn short_outputs_below_a_long_working_directory_are_bounded() {
        let command = proto::Command {
            output_paths: (0..20_000).map(|i| format!("{i}")).collect(),
            ..Default::default()
        };
        let base = vec!["w".repeat(250); 16].join("/");
        let refused = outputs(&command, &RelPath::parse(&base).unwrap());
        assert_eq!(refused, Err(OutputError::TooLarge));
    }
}
