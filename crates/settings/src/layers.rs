//! The layers, resolved: which value each setting has, and where it comes from.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command};

use crate::file::{self, Entry, FileError, Value};
use crate::locate::{CONFIG_FLAG, default_files, is_systems};
use crate::variables::{self, UnknownVariable};

/// The layers to resolve.
pub struct Layers<'a> {
    /// The command whose flags are the settings.
    pub command: Command,
    /// The words after the command's name.
    pub flags: Vec<OsString>,
    /// Reads a variable of the environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The names of all variables of the environment.
    pub variables: Vec<String>,
    /// The effective user of this process: whose files are trusted, beside root's.
    pub user: u32,
}

/// The settings as words for the command, and the origin of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The words of a command line that has all layers, without the command's name.
    pub words: Vec<OsString>,
    /// Every setting, in the order in which the command declares its flags.
    pub settings: Vec<Setting>,
    /// The configuration files that were read.
    pub files: Vec<PathBuf>,
    /// Default files that were left out, because they would be in a directory that this user may not enter: HOME is that
    /// of another user after a change of user.
    pub out_of_reach: Vec<PathBuf>,
    /// Variables that look like settings and set nothing.
    pub unknown_variables: Vec<UnknownVariable>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key in the file.
    pub key: String,
    /// Its values as text; none where it is not set. A switch has `true`.
    pub values: Vec<String>,
    /// Their source.
    pub origin: Origin,
}

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default, because no source sets it.
    Default,
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(String),
    /// The flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// An error of resolving the layers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag is wrong. Clap's text says how, and what is right.
    #[error(transparent)]
    Flag(#[from] clap::Error),
    /// A file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key of a file is no setting.
    #[error("{}:{line}: {key}: there is no such setting{}", path.display(), meant(.suggestion))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The key that is most like it, if any is.
        suggestion: Option<String>,
    },
    /// A variable of the environment is a misspelled setting.
    #[error("{0}")]
    UnknownVariable(UnknownVariable),
    /// A value of a file or of the environment is wrong.
    #[error("{origin}: {key}: {reason}")]
    Value {
        /// The position of the value.
        origin: Origin,
        /// The setting.
        key: String,
        /// The problem with it.
        reason: String,
    },
}

fn meant(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |key| format!("; did you mean {key}?"))
}

/// The files that were read, and the entries of all of them, of rising precedence.
#[derive(Default)]
struct Files {
    paths: Vec<PathBuf>,
    out_of_reach: Vec<PathBuf>,
    entries: Vec<(PathBuf, Entry)>,
}

impl Layers<'_> {
    /// Resolves the layers and checks each value.
    ///
    /// # Errors
    /// The first thing that is wrong in any layer.
    pub fn resolve(&self) -> Result<Resolved, Error> {
        let flags = self.parse(&self.flags)?;
        let Files { entries, paths, out_of_reach } = self.entries(&flags)?;
        let names = self.args().map(long_of).chain([CONFIG_FLAG]);
        let unknown = variables::unknown(&self.variables, names);
        let unknown_variables = unknown.map_err(Error::UnknownVariable)?;
        let mut chosen: Vec<(&Arg, Setting, Vec<OsString>)> = Vec::new();
        for arg in self.args() {
            let (setting, words) = self.setting(arg, &flags, &entries)?;
            chosen.push((arg, setting, words));
        }
        drop_what_is_overridden(&self.command, &mut chosen);
        let layered = chosen.iter().flat_map(|(_, _, words)| words.iter().cloned());
        let words: Vec<_> = layered.chain(self.flags.iter().cloned()).collect();
        let all = self.parse(&words)?;
        let settings = chosen.into_iter().map(|(arg, mut setting, _)| {
            setting.values = values_of(arg, &all);
            setting
        });
        let settings = settings.collect();
        Ok(Resolved { settings, files: paths, out_of_reach, unknown_variables, words })
    }

    /// The flags that are settings.
    fn args(&self) -> impl Iterator<Item = &Arg> {
        let is_setting = |arg: &&Arg| {
            let acts = !matches!(
                arg.get_action(),
                ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
            );
            acts && arg.get_long().is_some_and(|long| long != CONFIG_FLAG)
        };
        self.command.get_arguments().filter(is_setting)
    }

    fn parse(&self, words: &[OsString]) -> Result<clap::ArgMatches, clap::Error> {
        let name = OsString::from(self.command.get_name());
        self.command.clone().try_get_matches_from(std::iter::once(&name).chain(words))
    }

    /// The entries of all files, each with its file, of rising precedence.
    fn entries(&self, flags: &clap::ArgMatches) -> Result<Files, Error> {
        let named = flags.try_get_one::<PathBuf>(CONFIG_FLAG).ok().flatten().cloned();
        let named =
            named.or_else(|| (self.variable)(&variables::of_flag(CONFIG_FLAG)).map(PathBuf::from));
        // A file that was asked for must be there.
        let (paths, must_exist) = match named {
            Some(path) => (vec![path], true),
            None => (default_files(self.variable), false),
        };
        let mut files = Files::default();
        for path in paths {
            let read = match file::read(&path, self.user) {
                Err(FileError::Read { source, .. }) if !must_exist && is_absent(&source) => {
                    continue;
                }
                Err(FileError::Read { .. }) if !must_exist && is_out_of_reach(&path) => {
                    files.out_of_reach.push(path);
                    continue;
                }
                read => read?,
            };
            for entry in read {
                self.check_key(&path, &entry)?;
                files.entries.push((path.clone(), entry));
            }
            files.paths.push(path);
        }
        Ok(files)
    }

    fn check_key(&self, path: &Path, entry: &Entry) -> Result<(), Error> {
        let keys: Vec<String> = self.args().map(key_of).collect();
        if keys.contains(&entry.key) {
            return Ok(());
        }
        let wanted = entry.key.to_ascii_lowercase().replace('-', "_");
        let likeness = |key: &String| strsim::jaro_winkler(key, &wanted);
        let suggestion = keys.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        Err(Error::UnknownKey {
            path: path.to_owned(),
            line: entry.line,
            key: entry.key.clone(),
            suggestion: suggestion.filter(|key| likeness(key) > 0.7),
        })
    }

    /// The words of file and environment for one setting; none if a flag overrides them.
    fn setting(
        &self,
        arg: &Arg,
        flags: &clap::ArgMatches,
        entries: &[(PathBuf, Entry)],
    ) -> Result<(Setting, Vec<OsString>), Error> {
        let key = key_of(arg);
        let name = variables::of_flag(long_of(arg));
        let with =
            |origin, words| (Setting { key: key.clone(), values: Vec::new(), origin }, words);
        // All are checked, those that are overridden too: a mistake must not wait for its day.
        let mut found = (Origin::Default, Vec::new());
        for (path, entry) in entries.iter().filter(|(_, entry)| entry.key == key) {
            let origin = Origin::File { path: path.clone(), line: entry.line };
            found = (origin.clone(), self.words(arg, &entry.values, origin)?);
        }
        if let Some(value) = (self.variable)(&name) {
            let origin = Origin::Variable(name);
            found = (origin.clone(), self.words(arg, &of_variable(arg, &value), origin)?);
        }
        let by_flag = flags.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        Ok(if by_flag { with(Origin::Flag, Vec::new()) } else { with(found.0, found.1) })
    }

    /// The words that give `arg` these values, checked by clap.
    fn words(&self, arg: &Arg, values: &[Value], origin: Origin) -> Result<Vec<OsString>, Error> {
        let refuse = |reason: &str| Error::Value {
            origin: origin.clone(),
            key: key_of(arg),
            reason: reason.to_owned(),
        };
        let long = long_of(arg);
        let is_list = matches!(arg.get_action(), ArgAction::Append);
        if values.len() != 1 && !is_list {
            return Err(refuse("this setting has one value, not a list"));
        }
        let takes_value = arg.get_action().takes_values();
        let value_is_optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
        let mut words = Vec::new();
        for value in values {
            match value {
                Value::Switch(is_set) if !takes_value || value_is_optional => {
                    words.extend(is_set.then(|| OsString::from(format!("--{long}"))));
                }
                Value::Switch(_) => return Err(refuse("expected a value, not true or false")),
                Value::Text(_) if !takes_value => return Err(refuse("expected true or false")),
                Value::Text(text) => words.push(format!("--{long}={text}").into()),
            }
        }
        self.parse(&words).map_err(|error| refuse(&reason(&error)))?;
        Ok(words)
    }
}

/// The part of clap's text that says what is wrong with a value; the rest is about command lines.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let paragraph = paragraph.strip_prefix("error: ").unwrap_or(paragraph);
    paragraph.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// Whether a user's file is in a directory that this process may not enter, so that nobody can tell whether there is one. A
/// file that is there and may not be read is another matter: somebody meant its settings to apply.
fn is_out_of_reach(path: &Path) -> bool {
    let looked = path.symlink_metadata();
    let is_closed = looked.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    is_closed && !is_systems(path)
}

fn long_of(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}

fn key_of(arg: &Arg) -> String {
    long_of(arg).replace('-', "_")
}

/// A variable's value: a list has commas in between.
fn of_variable(arg: &Arg, value: &OsStr) -> Vec<Value> {
    let text = value.to_string_lossy();
    let takes_value = arg.get_action().takes_values();
    let optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    let single = |text: &str| match text {
        "true" | "1" if !takes_value || optional => Value::Switch(true),
        "false" | "0" | "" if !takes_value || optional => Value::Switch(false),
        text => Value::Text(text.to_owned()),
    };
    if matches!(arg.get_action(), ArgAction::Append) {
        return text.split(',').filter(|text| !text.is_empty()).map(single).collect();
    }
    vec![single(&text)]
}

/// A setting goes when another that excludes it stands in a higher layer, as a flag
/// `--runtime-image` overrides a file's `runtime_root`.
fn drop_what_is_overridden(command: &Command, chosen: &mut [(&Arg, Setting, Vec<OsString>)]) {
    let rank = |origin: &Origin| match origin {
        Origin::Default => 0,
        Origin::File { .. } => 1,
        Origin::Variable(_) => 2,
        Origin::Flag => 3,
    };
    let conflicts = |a: &Arg, b: &Arg| {
        let has = |a: &Arg, b: &Arg| {
            command.get_arg_conflicts_with(a).iter().any(|other| other.get_id() == b.get_id())
        };
        has(a, b) || has(b, a)
    };
    let ranks: Vec<_> =
        chosen.iter().map(|(arg, setting, _)| (*arg, rank(&setting.origin))).collect();
    for (arg, setting, words) in chosen {
        let own = rank(&setting.origin);
        if own > 0 && ranks.iter().any(|(other, rank)| *rank > own && conflicts(arg, other)) {
            words.clear();
            setting.origin = Origin::Default;
        }
    }
}

/// The values that clap settled on, as text.
fn values_of(arg: &Arg, matches: &clap::ArgMatches) -> Vec<String> {
    if !arg.get_action().takes_values() {
        let is_set = matches.get_flag(arg.get_id().as_str());
        return vec![is_set.to_string()];
    }
    let raw = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
    raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests;
