//! The way in which cargo starts a test program: a file that its runner writes.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::state_volume;

/// How to start a test program.
pub(super) struct Note {
    /// `PACKAGE/TARGET`, or `PACKAGE` for the unit tests of its library.
    pub(super) name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    directory: PathBuf,
    /// All variables of the environment.
    variables: BTreeMap<String, String>,
}

impl Note {
    /// The start of `binary` with the directory and the environment of this process.
    ///
    /// # Errors
    /// If an argument or a variable is not UTF-8.
    pub(super) fn of_this_process(binary: &Path, arguments: &[OsString]) -> Result<Self> {
        let text = |it: OsString| {
            it.into_string().map_err(|it| anyhow::anyhow!("{} is not UTF-8", it.display()))
        };
        let variables = env::vars_os()
            .map(|(name, value)| Ok((text(name)?, text(value)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let package = variables.get("CARGO_PKG_NAME").context("cargo names no package")?;
        Ok(Self {
            name: name(package, binary)?,
            binary: binary.to_owned(),
            arguments: arguments.iter().cloned().map(text).collect::<Result<_>>()?,
            directory: env::current_dir()?,
            variables,
        })
    }

    /// Adds it to the notes in `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let note = json!({
            "name": self.name,
            "binary": self.binary,
            "arguments": self.arguments,
            "directory": self.directory,
            "variables": self.variables,
        });
        let file = folder.join(self.binary.file_name().context("a program without a name")?);
        ensure!(!file.exists(), "{} was noted already", self.binary.display());
        fs::write(&file, note.to_string())
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// All notes in `folder`.
    ///
    /// # Errors
    /// If `folder` has no notes: cargo did not use the runner.
    pub(super) fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let file = entry?.path();
            Self::read(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        let notes = fs::read_dir(folder)?.map(read).collect::<Result<Vec<_>>>()?;
        ensure!(!notes.is_empty(), "cargo has started no test program");
        Ok(notes)
    }

    fn read(file: &Path) -> Result<Self> {
        let note: Value = serde_json::from_slice(&fs::read(file)?)?;
        let text = |it: &Value| it.as_str().map(str::to_owned).context("not a string");
        let arguments = note["arguments"].as_array().context("no arguments")?;
        let variables = note["variables"].as_object().context("no variables")?;
        Ok(Self {
            name: text(&note["name"])?,
            binary: text(&note["binary"])?.into(),
            arguments: arguments.iter().map(text).collect::<Result<_>>()?,
            directory: text(&note["directory"])?.into(),
            variables: variables
                .iter()
                .map(|(name, value)| Ok((name.clone(), text(value)?)))
                .collect::<Result<_>>()?,
        })
    }

    /// A command that starts it as root with a state volume.
    pub(super) fn command(&self) -> Result<Command> {
        let mut command = state_volume::command(&self.binary)?;
        command.args(&self.arguments).current_dir(&self.directory);
        command.env_clear().envs(&self.variables);
        Ok(command)
    }
}

/// The name of a program of a package for people: cargo's file names end with a hash.
fn name(package: &str, binary: &Path) -> Result<String> {
    let stem = binary.file_name().and_then(|it| it.to_str()).context("a program without a name")?;
    let target = stem.rsplit_once('-').map_or(stem, |(target, _hash)| target);
    Ok(if target == package.replace('-', "_") {
        package.to_owned()
    } else {
        format!("{package}/{target}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_was_read_starts_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let variables = [("CARGO_PKG_NAME", "store"), ("EMPTY", ""), ("LINES", "one\ntwo \"3\"")];
        let note = Note {
            name: "store/eviction".into(),
            binary: "/target/debug/deps/eviction-0123".into(),
            arguments: vec!["--skip".into(), "a b".into()],
            directory: "/".into(),
            variables: variables.map(|(name, value)| (name.into(), value.into())).into(),
        };
        note.write(folder.path()).unwrap();
        assert!(note.write(folder.path()).is_err(), "a program has one note");

        let notes = Note::read_all(folder.path()).unwrap();
        let [read] = &notes[..] else { panic!("{} notes", notes.len()) };
        assert_eq!(read.name, note.name);
        assert_eq!(read.variables, note.variables);
        let command = read.command().unwrap();
        assert_eq!(command.get_current_dir(), Some(Path::new("/")));
        let words: Vec<_> = command.get_args().collect();
        let end = [&note.binary.to_string_lossy(), "--skip", "a b"];
        assert_eq!(words[words.len() - end.len()..], end);
    }

    #[test]
    fn without_a_note_there_were_no_tests() {
        let folder = tempfile::tempdir().unwrap();
        let error = Note::read_all(folder.path()).err().unwrap();
        assert_eq!(error.to_string(), "cargo has started no test program");
    }

    #[test]
    fn names_are_of_packages_and_targets() {
        let of = |package, file: &str| name(package, Path::new(file)).unwrap();
        assert_eq!(of("store", "/target/debug/deps/store-5c2f1e"), "store");
        assert_eq!(of("proto-codegen", "deps/proto_codegen-5c2f1e"), "proto-codegen");
        assert_eq!(of("store", "deps/eviction-5c2f1e"), "store/eviction");
    }
}
