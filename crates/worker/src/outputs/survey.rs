//! What lies at the outputs' paths: names, kinds, and files to be stored.
//!
//! One output may lie inside another. What was stored has another owner and mode
//! than the action gave it, so no entry is looked at twice: outer outputs go
//! first, and inner ones are found in what they were seen to hold.

use std::collections::BTreeMap;
use std::iter::successors;

use inputroot::{NamedEntry, OutputEntry, OutputError, OutputFile, OutputView};
use model::{Digest, RelPath};
use store::Adopted;

use crate::config::OutputLimits;
use crate::error::ActionError;
use crate::outputs::storing::{Storing, Ticket};

/// What is at a path.
#[derive(Debug)]
pub(super) enum Node {
    File(File),
    /// Sorted by the bytes of the names.
    Directory(Vec<(String, Node)>),
    Symlink(String),
}

/// A regular file.
#[derive(Debug)]
pub(super) enum File {
    /// An input that cannot have changed.
    Input { digest: Digest, executable: bool },
    /// One that the action made; its digest is known when it is stored.
    Made(Ticket),
}

/// What was found, by the paths of the outputs that lie in no other.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<RelPath, Node>);

/// A look at the outputs, as far as it got.
pub(super) struct Survey<'a> {
    view: &'a OutputView,
    limits: OutputLimits,
    storing: Storing<'a>,
    entries: u64,
    found: Found,
}

impl Found {
    /// What is at the path of an output.
    pub(super) fn at(&self, path: &RelPath) -> Option<&Node> {
        let (outer, node) = self.outer(path)?;
        // What is not below a directory is not there.
        path.components().skip(outer.components().count()).try_fold(node, |node, name| {
            let Node::Directory(entries) = node else { return None };
            let at = entries.binary_search_by(|(other, _)| other.as_str().cmp(name)).ok()?;
            entries.get(at).map(|(_, node)| node)
        })
    }

    /// The output at `path` or the one that it lies in.
    fn outer(&self, path: &RelPath) -> Option<(RelPath, &Node)> {
        let mut candidates = successors(Some(path.clone()), RelPath::parent);
        candidates.find_map(|path| self.0.get(&path).map(|node| (path, node)))
    }
}

impl<'a> Survey<'a> {
    pub(super) fn new(view: &'a OutputView, limits: OutputLimits, storing: Storing<'a>) -> Self {
        Self { view, limits, storing, entries: 0, found: Found::default() }
    }

    /// What is at the path of an output; looks at it and all below it, unless it
    /// lies in one that was looked at before.
    pub(super) fn look_at(&mut self, path: &RelPath) -> Result<Option<&Node>, ActionError> {
        if self.found.outer(path).is_none() {
            let entry = self.view.entry(path).map_err(|error| unreadable(path, error))?;
            let Some(entry) = entry else { return Ok(None) };
            let node = self.node(path, entry, 0)?;
            self.found.0.insert(path.clone(), node);
        }
        Ok(self.found.at(path))
    }

    /// What was found, and what became of its files.
    pub(super) fn finish(self) -> Result<(Found, Vec<Adopted>), ActionError> {
        Ok((self.found, self.storing.finish()?))
    }

    /// Recursion is bounded by [`OutputLimits::depth`].
    fn node(
        &mut self,
        path: &RelPath,
        entry: OutputEntry,
        depth: usize,
    ) -> Result<Node, ActionError> {
        self.count(path)?;
        Ok(match entry {
            OutputEntry::File(OutputFile::Input { digest, executable }) => {
                Node::File(File::Input { digest, executable })
            }
            OutputEntry::File(OutputFile::Staged(file)) => {
                Node::File(File::Made(self.storing.add(path, file)?))
            }
            OutputEntry::Directory => Node::Directory(self.directory(path, depth)?),
            OutputEntry::Symlink(target) => Node::Symlink(utf8(path, target)?),
            OutputEntry::Special => return Err(special(path)),
        })
    }

    fn directory(
        &mut self,
        path: &RelPath,
        depth: usize,
    ) -> Result<Vec<(String, Node)>, ActionError> {
        if depth > self.limits.depth {
            let limit = self.limits.depth;
            let text = format!("`{path}` is more than {limit} directories below the output");
            return Err(ActionError::Unsupported(text));
        }
        let room = self.limits.entries.saturating_sub(self.entries);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let listing = self.view.read_dir(path, room).map_err(|error| match error {
            OutputError::TooManyEntries { .. } => self.too_many(path),
            other => unreadable(path, other),
        })?;
        let entries = listing.into_iter().map(|NamedEntry { name, entry }| {
            let name = utf8(path, name)?;
            let node = self.node(&below(path, &name)?, entry, depth + 1)?;
            Ok((name, node))
        });
        entries.collect()
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
}

fn below(directory: &RelPath, name: &str) -> Result<RelPath, ActionError> {
    let path = RelPath::parse(name).and_then(|name| directory.join(&name));
    // Permanent: RESOURCE_EXHAUSTED would make clients try again.
    path.map_err(|error| ActionError::Unsupported(format!("an output's path: {error}")))
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

fn unreadable(path: &RelPath, error: OutputError) -> ActionError {
    ActionError::internal(&format!("reading output `{path}`"), &error)
}
