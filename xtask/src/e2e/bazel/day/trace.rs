//! A trace of builds, made of Bazel's execution logs.
//!
//! ```text
//! # comment
//! blob SIZE                  blobs are numbered from 0 in the order of their lines
//! action OUTPUTS INPUTS      the same for actions; numbers of blobs, separated by commas, or - for none
//! build SECONDS ACTION…      the actions that a build asked for, in their order; + before one that was a hit
//! ```
//!
//! The Action, Command and Directory messages, which the log does not name, are left out.

use std::{collections::HashMap, fmt::Write as _};

use anyhow::{Context, Result};
use serde_json::Value;

/// See the module.
#[derive(Default)]
pub(super) struct Trace {
    /// The number of each blob, by its digest.
    blobs: HashMap<String, usize>,
    /// The number of each action, by its digest.
    actions: HashMap<String, usize>,
    /// The lines of blobs and actions: what a line names stands above it.
    definitions: String,
    builds: String,
    lookups: u64,
    hits: u64,
}

impl Trace {
    /// Adds a build at `at`, in seconds, with its execution log.
    pub(super) fn add(&mut self, at: u64, log: &str) -> Result<()> {
        write!(self.builds, "build {at}")?;
        for spawn in serde_json::Deserializer::from_str(log).into_iter::<Value>() {
            self.add_spawn(&spawn?)?;
        }
        self.builds.push('\n');
        Ok(())
    }

    /// The actions that were asked for.
    pub(super) fn lookups(&self) -> u64 {
        self.lookups
    }

    /// Those that the server had a result of.
    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    pub(super) fn to_text(&self) -> String {
        format!(
            "# Written by `cargo xtask e2e bazel --suite day`.\n# lookups {}\n# hits {}\n{}{}",
            self.lookups, self.hits, self.definitions, self.builds
        )
    }

    fn add_spawn(&mut self, spawn: &Value) -> Result<()> {
        let runner = spawn["runner"].as_str().unwrap_or_default();
        // Bazel's own bookkeeping is not a lookup.
        if !runner.starts_with("remote") {
            return Ok(());
        }
        let is_hit = runner == "remote cache hit";
        let digest = spawn["digest"]["hash"].as_str().context("a spawn without a digest")?;
        let action = match self.actions.get(digest) {
            Some(action) => *action,
            None => {
                let outputs = self.blobs_of(&spawn["actualOutputs"])?;
                let inputs = self.blobs_of(&spawn["inputs"])?;
                writeln!(self.definitions, "action {outputs} {inputs}")?;
                let number = self.actions.len();
                self.actions.insert(digest.to_owned(), number);
                number
            }
        };
        self.lookups += 1;
        self.hits += u64::from(is_hit);
        write!(self.builds, " {}{action}", if is_hit { "+" } else { "" })?;
        Ok(())
    }

    /// The numbers of the blobs of a list of files, each once.
    fn blobs_of(&mut self, files: &Value) -> Result<String> {
        let mut numbers = Vec::new();
        for file in files.as_array().into_iter().flatten() {
            let Some(hash) = file["digest"]["hash"].as_str() else { continue };
            // Empty files have a size of 0, which is left out.
            let size = file["digest"]["sizeBytes"].as_str().unwrap_or("0");
            let next = self.blobs.len();
            let number = *self.blobs.entry(hash.to_owned()).or_insert(next);
            if number == next {
                writeln!(self.definitions, "blob {size}")?;
            }
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        let numbers: Vec<_> = numbers.iter().map(usize::to_string).collect();
        Ok(if numbers.is_empty() { "-".to_owned() } else { numbers.join(",") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spawns_become_lines() {
        let file = |hash: &str, size: &str| {
            format!(r#"{{"path":"p","digest":{{"hash":"{hash}","sizeBytes":"{size}"}}}}"#)
        };
        let spawn = |digest: &str, runner: &str, inputs: &[String], outputs: &[String]| {
            format!(
                r#"{{"runner":"{runner}","digest":{{"hash":"{digest}"}},"inputs":[{}],"actualOutputs":[{}]}}"#,
                inputs.join(","),
                outputs.join(",")
            )
        };
        let compile = |runner| spawn("a", runner, &[file("in", "7")], &[file("out", "9")]);
        let link = spawn("b", "remote", &[file("out", "9"), file("out", "9")], &[]);
        let mut trace = Trace::default();
        let internal = r#"{"runner":"internal"}"#;
        trace.add(60, &format!("{}\n{internal}{link}", compile("remote"))).unwrap();
        trace.add(120, &compile("remote cache hit")).unwrap();
        assert_eq!((trace.lookups(), trace.hits()), (3, 1));
        let text = trace.to_text();
        let (_, lines) = text.split_once("# hits 1\n").unwrap();
        assert_eq!(lines, "blob 9\nblob 7\naction 0 1\naction - 0\nbuild 60 0 1\nbuild 120 +0\n");
    }
}
