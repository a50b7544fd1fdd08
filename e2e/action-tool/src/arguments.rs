//! The command line: `--name=value`, and `@FILE` for a file with one argument a line.

use std::{fs, path::PathBuf};

use crate::{checks::Check, trees::Shape};

/// The tasks of one run.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// Files and directories to read, in the order of the command line.
    pub(crate) inputs: Vec<PathBuf>,
    /// How many files the inputs must come to.
    pub(crate) expected_inputs: Option<u64>,
    /// Where the one-line summary goes.
    pub(crate) summary: Option<PathBuf>,
    /// The directory to fill.
    pub(crate) tree: Option<PathBuf>,
    /// How many regular files to write into the tree.
    pub(crate) tree_files: u32,
    /// Goes into what is written, so that it differs from what another seed gives.
    pub(crate) seed: String,
    /// Further content of the tree.
    pub(crate) shapes: Vec<Shape>,
    /// Conditions that must hold where the action runs.
    pub(crate) checks: Vec<Check>,
}

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self::default();
        for word in words {
            match word.strip_prefix('@') {
                Some(file) => arguments.take_file(file)?,
                None => arguments.take(&word)?,
            }
        }
        Ok(arguments)
    }

    fn take_file(&mut self, path: &str) -> Result<(), String> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("param file {path}: {error}"))?;
        text.lines().try_for_each(|line| self.take(line))
    }

    fn take(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("no value in {word:?}"))?;
        match name {
            "--input" => self.inputs.push(value.into()),
            "--expect-inputs" => self.expected_inputs = Some(number(word, value)?),
            "--summary" => self.summary = Some(value.into()),
            "--tree" => self.tree = Some(value.into()),
            "--tree-files" => self.tree_files = number(word, value)?,
            "--seed" => self.seed = value.to_owned(),
            "--shape" => self.shapes.push(value.parse()?),
            "--check" => self.checks.push(value.parse()?),
            _ => return Err(format!("unknown argument {word:?}")),
        }
        Ok(())
    }
}

fn number<N: std::str::FromStr>(word: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{word:?} needs a number"))
}
