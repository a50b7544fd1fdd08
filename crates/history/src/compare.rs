//! The differences of two Actions, down to the input files.
//!
//! It reads blobs through [`Blobs`] and skips every directory that both input trees have, so that the work
//! depends on what has changed and not on the size of the trees.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chain::visible;
use model::proto::{self, Shaped, decoded_bytes};
use model::{Digest, Directory, Entry, MAX_PATH_DEPTH};

/// Differences that are listed; of more, it is only told that there are more.
pub const DIFFERENCES_MAX: usize = 200;

/// Directories that are read of each tree. A tree with more has too many changes to be read by a person. Small
/// directories that name each other make a tree of any size, so those that wait count too.
const DIRECTORIES_MAX: usize = 20_000;

/// The largest Action, Command or Directory that is read.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// The bytes of directories that are read in all: two of the largest, or 20,000 usual ones of either tree.
const DIRECTORY_BYTES_MAX: u64 = 2 * MESSAGE_BYTES_MAX;

/// The most memory for a decoded Action or Command, which can take a hundred times what its bytes take.
const DECODED_BYTES_MAX: u64 = 256 << 20;

/// The bytes of a value that are shown. Two values of a megabyte each can't be compared by eye.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// The source of blobs.
pub trait Blobs {
    /// An error that ends the comparison.
    type Error;

    /// The blob; `None` if it is gone.
    ///
    /// # Errors
    /// When it can't be read.
    fn read(&mut self, digest: &Digest) -> Result<Option<Bytes>, Self::Error>;
}

/// The part of an action in which two actions differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The Action or its Command can't be read; the name says which.
    Unknown,
    /// A word of the command line.
    Argument,
    /// A variable of the environment.
    Environment,
    /// The directory that the command runs in.
    WorkingDirectory,
    /// A property of the platform.
    Platform,
    /// A declared output.
    Output,
    /// The timeout.
    Timeout,
    /// The salt, which separates actions that are equal otherwise.
    Salt,
    /// Whether the result may be cached.
    Cacheable,
    /// A file, directory or symlink of the input root.
    Input,
}

impl Part {
    /// The name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Argument => "argument",
            Self::Environment => "environment",
            Self::WorkingDirectory => "working_directory",
            Self::Platform => "platform",
            Self::Output => "output",
            Self::Timeout => "timeout",
            Self::Salt => "salt",
            Self::Cacheable => "cacheable",
            Self::Input => "input",
        }
    }
}

/// One difference. Names and values are escaped for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The part of the action.
    pub part: Part,
    /// The name in it: a variable, a property, a path; empty where there is one value.
    pub name: String,
    /// The value in the old action; `None` if it has none.
    pub old: Option<String>,
    /// The value in the new action; `None` if it has none.
    pub new: Option<String>,
}

/// The differences of two actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The differences, in the order of [`Part`].
    pub differences: Vec<Difference>,
    /// Whether there may be more.
    pub is_cut: bool,
}

/// Compares two Actions.
///
/// # Errors
/// The errors of `blobs`. A blob that is gone or malformed is a difference that says so.
pub fn compare<B: Blobs>(
    blobs: &mut B,
    old: &Digest,
    new: &Digest,
) -> Result<Comparison, B::Error> {
    let mut comparing =
        Comparing { blobs, found: Comparison::default(), directories: 0, directory_bytes: 0 };
    if old == new {
        return Ok(comparing.found);
    }
    let old_action: Option<proto::Action> = comparing.message(old, "old Action")?;
    let new_action: Option<proto::Action> = comparing.message(new, "new Action")?;
    let (Some(old_action), Some(new_action)) = (old_action, new_action) else {
        return Ok(comparing.found);
    };
    comparing.actions(&old_action, &new_action);
    let digest = |digest: &Option<proto::Digest>, of: &Digest| {
        Digest::from_proto_field(digest.as_ref(), of.function()).ok()
    };
    let commands =
        (digest(&old_action.command_digest, old), digest(&new_action.command_digest, new));
    if let (Some(old), Some(new)) = commands
        && old != new
    {
        let old: Option<proto::Command> = comparing.message(&old, "old Command")?;
        let new: Option<proto::Command> = comparing.message(&new, "new Command")?;
        if let (Some(old), Some(new)) = (old, new) {
            comparing.commands(&old, &new);
        }
    }
    let roots =
        (digest(&old_action.input_root_digest, old), digest(&new_action.input_root_digest, new));
    if let (Some(old), Some(new)) = roots {
        comparing.directories("", Some(old), Some(new))?;
    }
    Ok(comparing.found)
}

struct Comparing<'a, B> {
    blobs: &'a mut B,
    found: Comparison,
    /// Pairs of directories that were read or wait for it.
    directories: usize,
    /// Bytes of directories that were read.
    directory_bytes: u64,
}

impl<B: Blobs> Comparing<'_, B> {
    fn push(&mut self, part: Part, name: &str, old: Option<&str>, new: Option<&str>) {
        if self.found.differences.len() >= DIFFERENCES_MAX {
            self.found.is_cut = true;
            return;
        }
        self.found.differences.push(Difference {
            part,
            name: shown(name),
            old: old.map(shown),
            new: new.map(shown),
        });
    }

    /// Adds a difference of two values, if they differ.
    fn values(&mut self, part: Part, name: &str, old: Option<&str>, new: Option<&str>) {
        if old != new {
            self.push(part, name, old, new);
        }
    }

    fn message<M: proto::Message + Default + Shaped>(
        &mut self,
        digest: &Digest,
        name: &str,
    ) -> Result<Option<M>, B::Error> {
        let bytes = self.blob(digest)?;
        let bytes =
            bytes.filter(|it| decoded_bytes::<M>(it, DECODED_BYTES_MAX) <= DECODED_BYTES_MAX);
        let message = bytes.and_then(|bytes| M::decode(bytes).ok());
        if message.is_none() {
            let (digest, is_old) = (digest.to_string(), name.starts_with("old"));
            let (old, new) = if is_old { (Some(&*digest), None) } else { (None, Some(&*digest)) };
            self.push(Part::Unknown, name, old, new);
        }
        Ok(message)
    }

    fn blob(&mut self, digest: &Digest) -> Result<Option<Bytes>, B::Error> {
        if digest.size_bytes() > MESSAGE_BYTES_MAX {
            return Ok(None);
        }
        self.blobs.read(digest)
    }

    fn actions(&mut self, old: &proto::Action, new: &proto::Action) {
        let seconds = |action: &proto::Action| {
            action.timeout.as_ref().map(|it| format!("{}.{:09} s", it.seconds, it.nanos))
        };
        self.values(Part::Timeout, "", seconds(old).as_deref(), seconds(new).as_deref());
        let salt = |action: &proto::Action| {
            Some(action.salt.escape_ascii().to_string()).filter(|salt| !salt.is_empty())
        };
        self.values(Part::Salt, "", salt(old).as_deref(), salt(new).as_deref());
        let cacheable = |action: &proto::Action| if action.do_not_cache { "no" } else { "yes" };
        self.values(Part::Cacheable, "", Some(cacheable(old)), Some(cacheable(new)));
        self.maps(Part::Platform, &platform(&old.platform), &platform(&new.platform));
    }

    fn commands(&mut self, old: &proto::Command, new: &proto::Command) {
        self.arguments(&old.arguments, &new.arguments);
        let variables = |command: &proto::Command| -> BTreeMap<String, String> {
            let variables = command.environment_variables.iter();
            variables.map(|it| (it.name.clone(), it.value.clone())).collect()
        };
        self.maps(Part::Environment, &variables(old), &variables(new));
        let (old_directory, new_directory) = (&old.working_directory, &new.working_directory);
        self.values(Part::WorkingDirectory, "", Some(old_directory), Some(new_directory));
        #[allow(deprecated, reason = "clients of older versions of the API say it there")]
        let platforms = (platform(&old.platform), platform(&new.platform));
        self.maps(Part::Platform, &platforms.0, &platforms.1);
        let (old, new) = (outputs(old), outputs(new));
        for path in old.difference(&new) {
            self.push(Part::Output, path, Some("declared"), None);
        }
        for path in new.difference(&old) {
            self.push(Part::Output, path, None, Some("declared"));
        }
    }

    /// The words between those that both command lines begin and end with.
    fn arguments(&mut self, old: &[String], new: &[String]) {
        let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        let (old, new) = (&old[same..], &new[same..]);
        let at_end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new);
        let at_end = at_end.count();
        let (old, new) = (&old[..old.len() - at_end], &new[..new.len() - at_end]);
        for index in 0..old.len().max(new.len()) {
            let of = |words: &[String]| words.get(index).cloned();
            let (old, new) = (of(old), of(new));
            let name = (same + index).to_string();
            self.values(Part::Argument, &name, old.as_deref(), new.as_deref());
        }
    }

    fn maps(&mut self, part: Part, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let value = |map: &BTreeMap<String, String>| map.get(name).cloned();
            self.values(part, name, value(old).as_deref(), value(new).as_deref());
        }
    }

    /// Compares two directories; one that is `None` is not in its tree.
    fn directories(
        &mut self,
        path: &str,
        old: Option<Digest>,
        new: Option<Digest>,
    ) -> Result<(), B::Error> {
        let mut waiting = vec![(path.to_owned(), old, new)];
        while let Some((path, old, new)) = waiting.pop() {
            if old == new {
                continue;
            }
            let bytes = |digest: Option<Digest>| digest.map_or(0, |digest| digest.size_bytes());
            let bytes = bytes(old).saturating_add(bytes(new));
            self.directory_bytes = self.directory_bytes.saturating_add(bytes);
            if self.directory_bytes > DIRECTORY_BYTES_MAX || self.found.is_cut {
                self.found.is_cut = true;
                return Ok(());
            }
            let old = self.directory(&path, old, true)?;
            let new = self.directory(&path, new, false)?;
            let (Some(old), Some(new)) = (old, new) else { continue };
            let mut below = self.entries(&path, &entries(&old), &entries(&new));
            let is_deepest = path.matches('/').count() + 1 >= MAX_PATH_DEPTH;
            let left = if is_deepest { 0 } else { DIRECTORIES_MAX - self.directories };
            self.found.is_cut |= below.len() > left;
            below.truncate(left);
            self.directories += below.len();
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Compares the entries of two directories that differ. Returns the directories that both have and that
    /// differ, too.
    fn entries(
        &mut self,
        directory: &str,
        old: &BTreeMap<&[u8], Entry<'_>>,
        new: &BTreeMap<&[u8], Entry<'_>>,
    ) -> Vec<(String, Option<Digest>, Option<Digest>)> {
        let mut below = Vec::new();
        let mut is_told = false;
        let names: BTreeSet<&[u8]> = old.keys().chain(new.keys()).copied().collect();
        for name in names {
            let (old, new) = (old.get(name).copied(), new.get(name).copied());
            if old == new {
                continue;
            }
            is_told = true;
            let name = String::from_utf8_lossy(name);
            let path = match directory {
                "" => name.into_owned(),
                _ => format!("{directory}/{name}"),
            };
            match (directory_digest(old), directory_digest(new)) {
                (Some(old), Some(new)) => below.push((path, Some(old), Some(new))),
                _ => {
                    let (old, new) = (old.map(describe), new.map(describe));
                    self.push(Part::Input, &path, old.as_deref(), new.as_deref());
                }
            }
        }
        if !is_told {
            let properties = Some("properties of its entries");
            self.push(Part::Input, directory, properties, Some("other properties"));
        }
        below
    }

    /// The directory. `None` if it can't be read, which is told.
    fn directory(
        &mut self,
        path: &str,
        digest: Option<Digest>,
        is_old: bool,
    ) -> Result<Option<Directory>, B::Error> {
        let Some(digest) = digest else { return Ok(None) };
        let bytes = self.blob(&digest)?;
        let directory = bytes.and_then(|bytes| Directory::parse(bytes, digest.function()).ok());
        if directory.is_none() {
            let name = if path.is_empty() { "the input root" } else { path };
            let digest = digest.to_string();
            let (old, new) = if is_old { (Some(&*digest), None) } else { (None, Some(&*digest)) };
            self.push(Part::Unknown, name, old, new);
        }
        Ok(directory)
    }
}

/// A name or a value, escaped, and cut if it is long.
fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(VALUE_BYTES_MAX);
    let rest = text.len() - end;
    let mut shown = visible(&text[..end]);
    if rest > 0 {
        shown += &format!("… and {rest} bytes more");
    }
    shown
}

fn entries(directory: &Directory) -> BTreeMap<&[u8], Entry<'_>> {
    directory.entries().map(|entry| (entry.name(), entry)).collect()
}

/// The digest of an entry that is a directory.
fn directory_digest(entry: Option<Entry<'_>>) -> Option<Digest> {
    match entry {
        Some(Entry::Directory { digest, .. }) => Some(digest),
        _ => None,
    }
}

fn describe(entry: Entry<'_>) -> String {
    match entry {
        Entry::File { digest, executable: false, .. } => format!("file {digest}"),
        Entry::File { digest, executable: true, .. } => format!("executable file {digest}"),
        Entry::Directory { digest, .. } => format!("directory {digest}"),
        Entry::Symlink { target, .. } => format!("symlink to {}", String::from_utf8_lossy(target)),
    }
}

fn platform(platform: &Option<proto::Platform>) -> BTreeMap<String, String> {
    let properties = platform.iter().flat_map(|platform| &platform.properties);
    properties.map(|property| (property.name.clone(), property.value.clone())).collect()
}

/// The declared outputs, of all versions of the API.
fn outputs(command: &proto::Command) -> BTreeSet<&String> {
    #[allow(deprecated, reason = "clients of older versions of the API say it there")]
    let older = command.output_files.iter().chain(&command.output_directories);
    command.output_paths.iter().chain(older).collect()
}

#[cfg(test)]
mod tests;
