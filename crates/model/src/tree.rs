//! A whole input tree, assembled from its directories' blobs.
//!
//! A tree is assembled in two passes. The first goes down level by level and looks at each
//! directory once a level, however often it occurs there: a few small directories that name each
//! other make a tree of 2^100 entries, and must cost no more than their own size to refuse. It also
//! finds every directory that is missing. The second pass, which can no longer fail, lays the
//! directories out in breadth-first order.
//!
//! Neither recurses, and a digest can't contain itself, so a tree ends; [`TreeLimits`] say where at
//! the latest.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use crate::digest::Digest;
use crate::directory::{Directory, DirectoryError, Entry};
use crate::path::{MAX_PATH_DEPTH, RelPath};

/// Up to where a tree is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLimits {
    /// The most entries, counting a shared directory's as often as it occurs.
    pub max_entries: u64,
    /// The most levels below the root.
    pub max_depth: usize,
    /// The most memory for its directories, each counted once, in bytes. Names and targets of
    /// symlinks can be long, so the number of entries alone does not bound it.
    pub max_memory_bytes: u64,
}

impl Default for TreeLimits {
    /// 1,000,000 entries, several times the largest trees that are seen in practice (whole system
    /// images), the depth that a [`RelPath`] can have, and 256 MiB, enough for a million usual names.
    fn default() -> Self {
        Self { max_entries: 1_000_000, max_depth: MAX_PATH_DEPTH, max_memory_bytes: 256 << 20 }
    }
}

/// An error of loading a directory, as the caller of [`InputTree::assemble`] reports it.
#[derive(Debug)]
pub enum LoadError<E> {
    /// The blob is there, and is not a directory.
    Malformed(DirectoryError),
    /// The blob could not be read.
    Failed(E),
}

/// The result of loading a directory; `None` when it is not in the store.
pub type Loaded<E> = Result<Option<Arc<Directory>>, LoadError<E>>;

impl<E> From<DirectoryError> for LoadError<E> {
    fn from(error: DirectoryError) -> Self {
        Self::Malformed(error)
    }
}

/// An error of assembling a tree.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError<E> {
    /// These directories are not in the store: all of them, of any depth, as far as can be known;
    /// the directories below a missing directory are unknown.
    #[error("{} directories of the input tree are missing", .0.len())]
    Missing(Vec<Digest>),
    /// The tree exceeds a limit.
    #[error("the input tree is too large")]
    TooLarge(#[source] TooLarge),
    /// A blob that the tree names as a directory is not a `Directory` message.
    #[error("input directory {digest}")]
    Malformed {
        /// The digest of the blob.
        digest: Digest,
        /// The problem with it.
        source: DirectoryError,
    },
    /// A directory could not be read.
    #[error("reading input directory {digest}")]
    Load {
        /// The digest of the blob.
        digest: Digest,
        /// The caller's own error.
        source: E,
    },
}

/// The limit that a tree exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// It has more entries than this.
    #[error("more than {0} entries")]
    Entries(u64),
    /// It has more levels than this.
    #[error("more than {0} levels of directories")]
    Depth(usize),
    /// Its directories take more memory than this.
    #[error("more than {0} bytes of directories")]
    Memory(u64),
}

/// One directory at its place in a tree.
#[derive(Debug, Clone)]
pub struct TreeDirectory {
    /// Its entries; shared with every other place and tree where the same directory occurs.
    pub content: Arc<Directory>,
    /// The index of the directory above; the root's is its own.
    pub parent: u32,
    /// The index of its first child directory. The others follow it in the order of the entries,
    /// [`Directory::directory_count`] in all; without child directories it means nothing.
    pub first_child: u32,
}

/// A whole input tree: immutable, and never without one of its directories.
#[derive(Debug)]
pub struct InputTree {
    root_digest: Digest,
    directories: Vec<TreeDirectory>,
    blobs: Vec<Digest>,
    file_count: usize,
    entry_count: usize,
    directory_bytes: u64,
    blob_bytes: u64,
    has_properties: bool,
}

/// The entry at a path of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// A regular file.
    File {
        /// The blob that is its content.
        digest: Digest,
        /// Whether it can be executed.
        executable: bool,
    },
    /// A directory, by its index in [`InputTree::directories`].
    Directory(u32),
    /// A symbolic link; lookups don't follow it.
    Symlink {
        /// Its target.
        target: &'a [u8],
    },
}

impl InputTree {
    /// Assembles the tree below `root`; `load` gets a directory by its digest, `None` if it is not
    /// there. It is asked at most once for each digest, and never for the empty blob.
    pub fn assemble<E>(
        root: Digest,
        limits: TreeLimits,
        load: &mut dyn FnMut(&Digest) -> Loaded<E>,
    ) -> Result<Self, AssembleError<E>> {
        let mut survey = Scan::new(limits, load);
        survey.descend(root)?;
        if !survey.missing.is_empty() {
            return Err(AssembleError::Missing(survey.missing));
        }
        let known = survey.known.values().flatten();
        let blobs = collect_blobs(&survey.known);
        let sizes = blobs.iter().map(Digest::size_bytes);
        Ok(Self {
            root_digest: root,
            has_properties: known.into_iter().any(|directory| directory.has_properties()),
            blob_bytes: sizes.fold(0, u64::saturating_add),
            blobs,
            directories: lay_out(root, &survey.known, survey.directory_count),
            file_count: survey.file_count,
            entry_count: survey.entry_count as usize,
            directory_bytes: survey.memory_bytes,
        })
    }

    /// The directories in breadth-first order; the root has index 0.
    pub fn directories(&self) -> &[TreeDirectory] {
        &self.directories
    }

    /// The digest of the root directory.
    pub fn root_digest(&self) -> Digest {
        self.root_digest
    }

    /// Every blob that the tree is made of: files and directories, sorted, each once, without the
    /// empty blob.
    pub fn blobs(&self) -> &[Digest] {
        &self.blobs
    }

    /// The number of files at all places.
    pub fn file_count(&self) -> usize {
        self.file_count
    }

    /// The number of entries of every kind at all places; the root is not one.
    pub fn entry_count(&self) -> usize {
        self.entry_count
    }

    /// The memory of its directories in bytes, each counted once: what [`TreeLimits::max_memory_bytes`] bounds.
    pub fn directory_bytes(&self) -> u64 {
        self.directory_bytes
    }

    /// The bytes of [`InputTree::blobs`]: what the tree takes in the store.
    pub fn blob_bytes(&self) -> u64 {
        self.blob_bytes
    }

    /// Whether a directory, file or symlink of the tree has node properties.
    pub fn has_properties(&self) -> bool {
        self.has_properties
    }

    /// The memory that the tree keeps from being freed, in bytes. A directory that occurs at several
    /// places is counted at each: an upper bound.
    pub fn memory_bytes(&self) -> usize {
        let places = self.directories.iter();
        places.map(|place| size_of::<TreeDirectory>() + place.content.memory_bytes()).sum::<usize>()
            + size_of_val(self.blobs.as_slice())
    }

    /// The entry at `path`. Symlinks on the way are not followed and end the search.
    pub fn lookup(&self, path: &RelPath) -> Option<Found<'_>> {
        let mut found = Found::Directory(0);
        for name in path.components() {
            let Found::Directory(index) = found else {
                return None;
            };
            found = self.lookup_in(index, name.as_bytes())?;
        }
        Some(found)
    }

    /// The entry `name` of the directory with that index.
    pub fn lookup_in(&self, index: u32, name: &[u8]) -> Option<Found<'_>> {
        let directory = self.directories.get(index as usize)?;
        Some(match directory.content.get(name)? {
            Entry::File { digest, executable, .. } => Found::File { digest, executable },
            Entry::Symlink { target, .. } => Found::Symlink { target },
            Entry::Directory { .. } => {
                let ordinal = directory.content.directory_ordinal(name)?;
                Found::Directory(directory.first_child + ordinal)
            }
        })
    }
}

/// The first pass: which directories there are, and how much tree they make.
struct Scan<'a, E> {
    limits: TreeLimits,
    load: &'a mut dyn FnMut(&Digest) -> Loaded<E>,
    /// The result of `load` for each digest; `None` for a missing directory.
    known: HashMap<Digest, Option<Arc<Directory>>>,
    missing: Vec<Digest>,
    directory_count: usize,
    file_count: usize,
    entry_count: u64,
    memory_bytes: u64,
}

/// The directories of one level, each with how often it occurs there.
type Level = HashMap<Digest, u64>;

impl<'a, E> Scan<'a, E> {
    fn new(limits: TreeLimits, load: &'a mut dyn FnMut(&Digest) -> Loaded<E>) -> Self {
        Self {
            limits: TreeLimits {
                // Places are numbered with 32 bits.
                max_entries: limits.max_entries.min(u64::from(u32::MAX) - 1),
                ..limits
            },
            load,
            known: HashMap::new(),
            missing: Vec::new(),
            directory_count: 1,
            file_count: 0,
            entry_count: 0,
            memory_bytes: 0,
        }
    }

    fn descend(&mut self, root: Digest) -> Result<(), AssembleError<E>> {
        let mut level = Level::from([(root, 1)]);
        let mut depth = 0;
        while !level.is_empty() {
            if depth > self.limits.max_depth {
                let limit = TooLarge::Depth(self.limits.max_depth);
                return Err(AssembleError::TooLarge(limit));
            }
            level = self.next_level(&level)?;
            depth += 1;
        }
        Ok(())
    }

    fn next_level(&mut self, level: &Level) -> Result<Level, AssembleError<E>> {
        let mut below = Level::new();
        for (digest, &occurrences) in level {
            let Some(directory) = self.get(digest)? else {
                continue;
            };
            self.count(&directory, occurrences)?;
            if directory.directory_count() == 0 {
                continue;
            }
            for entry in directory.entries() {
                if let Entry::Directory { digest, .. } = entry {
                    *below.entry(digest).or_default() += occurrences;
                }
            }
        }
        Ok(below)
    }

    fn get(&mut self, digest: &Digest) -> Result<Option<Arc<Directory>>, AssembleError<E>> {
        let slot = match self.known.entry(*digest) {
            Slot::Occupied(known) => return Ok(known.get().clone()),
            Slot::Vacant(slot) => slot,
        };
        let loaded = if digest.is_empty_blob() {
            Some(Arc::new(Directory::empty(digest.function())))
        } else {
            (self.load)(digest).map_err(|error| AssembleError::from_load(*digest, error))?
        };
        match &loaded {
            Some(directory) => self.memory_bytes += directory.memory_bytes() as u64,
            None => self.missing.push(*digest),
        }
        if self.memory_bytes > self.limits.max_memory_bytes {
            let limit = TooLarge::Memory(self.limits.max_memory_bytes);
            return Err(AssembleError::TooLarge(limit));
        }
        Ok(slot.insert(loaded).clone())
    }

    /// Adds up what `occurrences` places of a directory bring, and stops at the limit.
    ///
    /// Nothing overflows: every place was counted as an entry of the level above, so there are less
    /// than 2^32 of them, and a directory has at most 2^20 entries.
    fn count(&mut self, directory: &Directory, occurrences: u64) -> Result<(), AssembleError<E>> {
        self.entry_count += occurrences * directory.len() as u64;
        if self.entry_count > self.limits.max_entries {
            let limit = TooLarge::Entries(self.limits.max_entries);
            return Err(AssembleError::TooLarge(limit));
        }
        let occurrences = occurrences as usize;
        self.directory_count += occurrences * directory.directory_count();
        self.file_count += occurrences * directory.file_count();
        Ok(())
    }
}

impl<E> AssembleError<E> {
    fn from_load(digest: Digest, error: LoadError<E>) -> Self {
        match error {
            LoadError::Malformed(source) => Self::Malformed { digest, source },
            LoadError::Failed(source) => Self::Load { digest, source },
        }
    }
}

/// The second pass: every place of every directory, breadth first.
fn lay_out(
    root: Digest,
    known: &HashMap<Digest, Option<Arc<Directory>>>,
    directory_count: usize,
) -> Vec<TreeDirectory> {
    let mut directories = Vec::with_capacity(directory_count);
    let place = |digest: &Digest, parent| {
        let content = known.get(digest).cloned().flatten();
        TreeDirectory {
            // Only a complete survey gets here.
            content: content.unwrap_or_else(|| Arc::new(Directory::empty(digest.function()))),
            parent,
            first_child: 0,
        }
    };
    directories.push(place(&root, 0));
    let mut index = 0;
    while index < directories.len() {
        directories[index].first_child = directories.len() as u32;
        let content = Arc::clone(&directories[index].content);
        if content.directory_count() > 0 {
            for entry in content.entries() {
                if let Entry::Directory { digest, .. } = entry {
                    directories.push(place(&digest, index as u32));
                }
            }
        }
        index += 1;
    }
    directories
}

/// Each blob once: a directory that occurs a thousand times names its files only once here.
fn collect_blobs(known: &HashMap<Digest, Option<Arc<Directory>>>) -> Vec<Digest> {
    let present = || known.values().flatten();
    let files: usize = present().map(|directory| directory.file_count()).sum();
    let mut blobs = Vec::with_capacity(files + known.len());
    blobs.extend(known.keys().filter(|digest| !digest.is_empty_blob()));
    for directory in present() {
        blobs.extend(directory.entries().filter_map(|entry| match entry {
            Entry::File { digest, .. } if !digest.is_empty_blob() => Some(digest),
            _ => None,
        }));
    }
    sort_once(&mut blobs);
    blobs
}

/// Sorts digests, and leaves each once. A digest is large, so what is sorted is the beginning of its hash, and its
/// place. Then each is swapped to its new place: a second list would take as much memory as the first.
fn sort_once(digests: &mut Vec<Digest>) {
    let start = |digest: &Digest| u64::from_be_bytes(digest.hash().first());
    let mut order: Vec<(u64, u32)> = digests.iter().map(start).zip(0..).collect();
    order.sort_unstable_by_key(|(start, _)| *start);
    for alike in order.chunk_by_mut(|a, b| a.0 == b.0).filter(|alike| alike.len() > 1) {
        alike.sort_unstable_by_key(|(_, place)| &digests[*place as usize]);
    }
    for first in 0..order.len() {
        // One cycle of places: where the next one is to go is free again after each swap.
        let mut at = first;
        loop {
            let from = std::mem::replace(&mut order[at].1, at as u32) as usize;
            if from == first {
                break;
            }
            digests.swap(at, from);
            at = from;
        }
    }
    digests.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DigestFunction, HashBytes};

    #[test]
    fn digests_are_sorted_as_by_their_own_order_and_each_is_there_once() {
        let digest = |start: u8, end: u8, size: u64| {
            let mut hash = [start; 32];
            hash[31] = end;
            Digest::new(DigestFunction::Sha256, HashBytes::of(&hash), size)
        };
        // Hashes whose beginnings are alike, and hashes that are.
        let mut digests: Vec<_> = (0..600_u64)
            .map(|n| digest((n * 7 % 5) as u8, (n * 11 % 6) as u8, n * 13 % 4))
            .collect();
        let mut sorted = digests.clone();
        sort_once(&mut sorted);
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(sorted, digests);
        assert_eq!(digests.len(), 5 * 6 * 4 / 2);
        let mut random: Vec<_> =
            (0..2_000_u32).map(|n| Digest::of(DigestFunction::Blake3, &n.to_le_bytes())).collect();
        let mut sorted = random.clone();
        sort_once(&mut sorted);
        random.sort_unstable();
        assert_eq!(sorted, random);
        sort_once(&mut Vec::new());
    }
}
