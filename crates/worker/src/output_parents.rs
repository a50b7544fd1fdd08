//! The directories that outputs need and the input tree lacks.
//!
//! REAPI has the worker make the parents of outputs. They are made before the command starts, so nothing
//! that bounds a command bounds them: a message of 400 KiB can declare 1,500 outputs, 127 directories deep
//! each. So they are counted here, before the first of them is made.

use std::collections::BTreeSet;

use model::{CommandSpec, Found, InputTree, RelPath};

use crate::error::ActionError;

/// The most directories that are made for one action. On a journaled file system each takes 0.2 ms and
/// 4 KiB, so all of them 2 s and 40 MiB; commands that write more directories declare one above them, or
/// make them themselves.
const MAX_DIRECTORIES: usize = 10_000;

/// The missing parents of the outputs of `command`, each before those below it.
///
/// # Errors
/// [`ActionError::Invalid`] if an output lies below an input that is not a directory, or if more than
/// [`MAX_DIRECTORIES`] parents are missing.
pub(crate) fn missing(
    tree: &InputTree,
    command: &CommandSpec,
) -> Result<Vec<RelPath>, ActionError> {
    let mut missing = BTreeSet::new();
    for output in &command.outputs {
        let mut parent = output.path.parent();
        while let Some(directory) = parent {
            match tree.lookup(&directory) {
                Some(Found::Directory(_)) => break,
                Some(Found::File { .. } | Found::Symlink { .. }) => {
                    return Err(ActionError::Invalid(format!(
                        "output `{}` lies below `{directory}`, an input that is no directory",
                        output.declared,
                    )));
                }
                None => parent = directory.parent(),
            }
            if !missing.insert(directory) {
                // Its parents are there too.
                break;
            }
            if missing.len() > MAX_DIRECTORIES {
                return Err(ActionError::Invalid(format!(
                    "the outputs need more than {MAX_DIRECTORIES} directories that are not in the input tree"
                )));
            }
        }
    }
    // Sorted, so a directory comes before what lies in it.
    Ok(missing.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use model::{
        Digest, DigestFunction, LoadError, OutputKind, OutputPath, TreeLimits, WorkerPlatform,
        proto,
    };
    use prost::Message as _;

    use super::*;

    fn empty_tree() -> InputTree {
        let load = &mut |_: &Digest| Ok::<_, LoadError<Infallible>>(None);
        let root = Digest::empty(DigestFunction::Sha256);
        InputTree::assemble(root, TreeLimits::default(), load).unwrap()
    }

    fn command(outputs: impl IntoIterator<Item = String>) -> CommandSpec {
        let message = proto::Command { arguments: vec!["true".to_owned()], ..Default::default() };
        let platform = WorkerPlatform::default();
        let mut command = CommandSpec::parse(&message.encode_to_vec(), None, &platform).unwrap();
        command.outputs = outputs
            .into_iter()
            .map(|declared| {
                let path = RelPath::parse(&declared).unwrap();
                OutputPath { path, declared, kind: OutputKind::Any }
            })
            .collect();
        command
    }

    fn check(outputs: impl IntoIterator<Item = String>, expected: Result<usize, ()>) {
        let found = missing(&empty_tree(), &command(outputs));
        let count = found.as_ref().map(Vec::len).map_err(|error| {
            assert!(matches!(error, ActionError::Invalid(_)), "{error}");
        });
        assert_eq!(count, expected);
    }

    #[test]
    fn deep_outputs_without_a_common_parent_are_refused() {
        let below = vec!["d"; 126].join("/");
        check((0..1_500).map(|i| format!("{i}/{below}/out")), Err(()));
    }

    #[test]
    fn the_bound_counts_directories_and_not_outputs() {
        check((0..MAX_DIRECTORIES).map(|i| format!("{i}/out")), Ok(MAX_DIRECTORIES));
        check((0..=MAX_DIRECTORIES).map(|i| format!("{i}/out")), Err(()));
        check((0..=MAX_DIRECTORIES).map(|i| format!("a/b/{i}")), Ok(2));
        check((0..=MAX_DIRECTORIES).map(|i| i.to_string()), Ok(0));
    }

    #[test]
    fn parents_come_first_and_once() {
        let outputs = ["a/b/c/out", "a/b/other", "x/out"].map(str::to_owned);
        let found = missing(&empty_tree(), &command(outputs)).unwrap();
        let found: Vec<_> = found.iter().map(RelPath::as_str).collect();
        assert_eq!(found, ["a", "a/b", "a/b/c", "x"]);
    }
}
