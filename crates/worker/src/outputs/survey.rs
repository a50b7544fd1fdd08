//! The entries at the outputs' paths: names, kinds, and files to be stored.
//!
//! One output may lie inside another. A stored file has another owner and mode than the action
//! gave it, so no entry is looked at twice: outer outputs go first, and inner ones are found in what
//! they were seen to hold.
//!
//! An entry that a result cannot name (a pipe, a name that is not UTF-8, one over a limit) is
//! left out of the directory that it is in, and recorded as a loss.

use std::collections::BTreeMap;
use std::iter::successors;

use inputroot::{NamedEntry, OutputEntry, OutputError, OutputFile};
use model::{Digest, NodeProperties, OutputKind, OutputNodeProperties, OutputPath, RelPath};

use crate::boundary::Outputs;
use crate::error::ActionError;
use crate::limits::OutputLimits;
use crate::losses::{Losses, quoted};
use crate::outputs::storing::{Storing, Ticket};

/// The entry at a path.
#[derive(Debug)]
pub(super) enum Node {
    File(File),
    /// Sorted by the bytes of the names.
    Directory(Vec<(String, Node)>, NodeProperties),
    Symlink(String, NodeProperties),
}

/// A regular file.
#[derive(Debug)]
pub(super) enum File {
    /// An input that cannot have changed.
    Input { digest: Digest, executable: bool, shown: NodeProperties },
    /// One that the action made; its digest is known when it is stored.
    Made(Ticket),
}

/// The outputs that were found, by the paths of those that lie in no other.
#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<RelPath, Node>);

/// A look at the outputs, as far as it got.
pub(super) struct Survey<'a> {
    view: &'a dyn Outputs,
    limits: OutputLimits,
    /// The node properties that the client asked for.
    wanted: OutputNodeProperties,
    storing: Storing<'a>,
    /// Files, directories and symlinks that were found.
    entries: u64,
    /// Entries of directories that were listed up to the limit, for nothing.
    listed_in_vain: u64,
    found: Found,
    losses: Losses,
}

impl Found {
    /// The entry at the path of an output.
    pub(super) fn at(&self, path: &RelPath) -> Option<&Node> {
        let (outer, node) = self.outer(path)?;
        // A path that is not below a directory does not exist.
        path.components().skip(outer.components().count()).try_fold(node, |node, name| {
            let Node::Directory(entries, _) = node else { return None };
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
    pub(super) fn new(
        view: &'a dyn Outputs,
        limits: OutputLimits,
        wanted: OutputNodeProperties,
        storing: Storing<'a>,
    ) -> Self {
        Self {
            view,
            limits,
            wanted,
            storing,
            entries: 0,
            listed_in_vain: 0,
            found: Found::default(),
            losses: Losses::default(),
        }
    }

    /// Looks at an output and all below it, unless it lies in one that was looked at before.
    pub(super) fn look_at(&mut self, output: &OutputPath) -> Result<(), ActionError> {
        let path = &output.path;
        if self.found.outer(path).is_some() {
            return Ok(());
        }
        let entry = match self.view.entry(path) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.losses.push(path.as_str(), unreadable(path, &error));
                return Ok(());
            }
        };
        // Before its files are stored, which would be for nothing.
        if let Some(error) = wrong_kind(output, kind_of_entry(&entry)) {
            self.losses.push(&output.declared, error);
            return Ok(());
        }
        if let Some(node) = self.node(path, entry, 0)? {
            self.found.0.insert(path.clone(), node);
        }
        Ok(())
    }

    /// The outputs that were found, and the files that wait to be stored.
    pub(super) fn finish(self) -> (Found, Storing<'a>, Losses) {
        (self.found, self.storing, self.losses)
    }

    /// The entry at a path; nothing if it cannot be told. Recursion is bounded by
    /// [`OutputLimits::depth`].
    fn node(
        &mut self,
        path: &RelPath,
        entry: OutputEntry,
        depth: usize,
    ) -> Result<Option<Node>, ActionError> {
        let told = match self.count(path) {
            Err(error) => Err(error),
            Ok(()) => match entry {
                OutputEntry::File(OutputFile::Input { digest, executable, shown }) => {
                    Ok(Node::File(File::Input { digest, executable, shown }))
                }
                OutputEntry::File(OutputFile::Staged(file)) => {
                    Ok(Node::File(File::Made(self.storing.add(path, file)?)))
                }
                OutputEntry::Directory => match self.list(path, depth) {
                    Ok(listing) => {
                        let entries = self.nodes(path, listing, depth)?;
                        self.properties(path).map(|shown| Node::Directory(entries, shown))
                    }
                    Err(error) => Err(error),
                },
                OutputEntry::Symlink(target) => self.symlink(path, target),
                OutputEntry::Special => Err(special(path)),
            },
        };
        Ok(told.map_err(|error| self.losses.push(path.as_str(), error)).ok())
    }

    fn symlink(&self, path: &RelPath, target: Vec<u8>) -> Result<Node, ActionError> {
        let target = utf8(target).map_err(|target| {
            let (path, target) = (quoted(path.as_str()), quoted(&target));
            let text = format!("the target {target} of the symlink {path} is not UTF-8");
            ActionError::Unsupported(text)
        })?;
        Ok(Node::Symlink(target, self.properties(path)?))
    }

    /// The node properties of a directory or symlink. Without a wish for any, no system call is made.
    fn properties(&self, path: &RelPath) -> Result<NodeProperties, ActionError> {
        if self.wanted.is_empty() {
            return Ok(NodeProperties::default());
        }
        self.view.properties(path).map_err(|error| unreadable(path, &error))
    }

    /// The entries of a directory that can be told of, and all that is below them.
    fn nodes(
        &mut self,
        path: &RelPath,
        listing: Vec<NamedEntry>,
        depth: usize,
    ) -> Result<Vec<(String, Node)>, ActionError> {
        let mut nodes = Vec::with_capacity(listing.len());
        for NamedEntry { name, entry } in listing {
            let (name, path) = match named(path, name) {
                Ok(named) => named,
                Err((shown, error)) => {
                    self.losses.push(&shown, error);
                    continue;
                }
            };
            if let Some(node) = self.node(&path, entry, depth + 1)? {
                nodes.push((name, node));
            }
        }
        Ok(nodes)
    }

    fn list(&mut self, path: &RelPath, depth: usize) -> Result<Vec<NamedEntry>, ActionError> {
        if depth > self.limits.depth {
            let (path, limit) = (quoted(path.as_str()), self.limits.depth);
            let text = format!("{path} is more than {limit} directories below the output");
            return Err(ActionError::Unsupported(text));
        }
        // Both bounds: a directory that is too large must not make the server list many such.
        let limit = self.limits.entries;
        let room = limit.saturating_sub(self.entries.max(self.listed_in_vain));
        let listing = self.view.read_dir(path, usize::try_from(room).unwrap_or(usize::MAX));
        listing.map_err(|error| match error {
            OutputError::TooManyEntries { .. } => {
                self.listed_in_vain += room;
                self.too_many(path)
            }
            other => unreadable(path, &other),
        })
    }

    /// One more entry; `path` is named when that is one too many.
    fn count(&mut self, path: &RelPath) -> Result<(), ActionError> {
        if self.entries >= self.limits.entries {
            return Err(self.too_many(path));
        }
        self.entries += 1;
        Ok(())
    }

    fn too_many(&self, path: &RelPath) -> ActionError {
        let (path, limit) = (quoted(path.as_str()), self.limits.entries);
        ActionError::ResourceExhausted(format!(
            "with {path} the outputs have more than {limit} files and directories"
        ))
    }
}

/// Why `output` cannot be what was found at its path: the older lists say which kind they want.
fn wrong_kind(output: &OutputPath, found: Kind) -> Option<ActionError> {
    let (wanted, made) = match (output.kind, found) {
        (OutputKind::Directory, Kind::File) => ("an output directory", "a file"),
        (OutputKind::File, Kind::Directory) => ("an output file", "a directory"),
        _ => return None,
    };
    let path = quoted(&output.declared);
    let text = format!("{path} was declared as {wanted}, and the action made {made}");
    Some(ActionError::WrongKind(text))
}

/// The kinds that the older lists tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Other,
}

fn kind_of_entry(entry: &OutputEntry) -> Kind {
    match entry {
        OutputEntry::File(_) => Kind::File,
        OutputEntry::Directory => Kind::Directory,
        OutputEntry::Symlink(_) | OutputEntry::Special => Kind::Other,
    }
}

/// Fails if `node` is not what `output` was declared as; a symlink counts as what it leads to.
pub(super) fn check_kind(
    output: &OutputPath,
    node: &Node,
    view: &dyn Outputs,
) -> Result<(), ActionError> {
    if output.kind == OutputKind::Any {
        return Ok(());
    }
    let kind = match node {
        Node::File(_) => Kind::File,
        Node::Directory(..) => Kind::Directory,
        Node::Symlink(target, _) => symlink_kind(view, &output.path, target.clone()),
    };
    wrong_kind(output, kind).map_or(Ok(()), Err)
}

/// The target of the symlink at `path` inside the input root, without having the kernel follow it:
/// one that leads out of it, through another directory symlink or nowhere, is [`Kind::Other`].
fn symlink_kind(view: &dyn Outputs, path: &RelPath, mut target: String) -> Kind {
    /// As many as Linux follows (`MAXSYMLINKS`).
    const MAX_LINKS: usize = 40;
    let mut link = path.clone();
    for _ in 0..MAX_LINKS {
        let parent = link.parent().unwrap_or_default();
        let Ok(path) = RelPath::resolve(&parent, target.trim_end_matches('/')) else {
            return Kind::Other;
        };
        match view.entry(&path) {
            Ok(Some(OutputEntry::Symlink(next))) => {
                let Ok(next) = String::from_utf8(next) else { return Kind::Other };
                (link, target) = (path, next);
            }
            Ok(Some(entry)) => return kind_of_entry(&entry),
            Ok(None) | Err(_) => return Kind::Other,
        }
    }
    Kind::Other
}

/// The name and the path of an entry; else the path as far as it can be shown, and the reason.
fn named(directory: &RelPath, name: Vec<u8>) -> Result<(String, RelPath), (String, ActionError)> {
    let shown = |name: &str| match directory.as_str() {
        "" => name.to_owned(),
        directory => format!("{directory}/{name}"),
    };
    let name = utf8(name).map_err(|lossy| {
        let path = shown(&lossy);
        let text = format!("the name of {} is not UTF-8", quoted(&path));
        (path, ActionError::Unsupported(text))
    })?;
    match RelPath::parse(&name).and_then(|name| directory.join(&name)) {
        Ok(path) => Ok((name, path)),
        // Permanent: RESOURCE_EXHAUSTED would make clients try again.
        Err(error) => {
            let text = format!("the path of an output cannot be told: {error}");
            Err((shown(&name), ActionError::Unsupported(text)))
        }
    }
}

/// REAPI's strings are UTF-8; names and targets on disk are any bytes.
fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn special(path: &RelPath) -> ActionError {
    let path = quoted(path.as_str());
    let text = format!("output {path} is a socket, a pipe or a device, which cannot be stored");
    ActionError::Unsupported(text)
}

fn unreadable(path: &RelPath, error: &OutputError) -> ActionError {
    let errno = match error {
        OutputError::Read { source, .. } => Some(*source),
        OutputError::NotADirectory { .. } | OutputError::TooManyEntries { .. } => None,
    };
    ActionError::of_errno(&format!("reading output {}", quoted(path.as_str())), error, errno)
}
