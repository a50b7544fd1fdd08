//! From an input root digest to a tree that is complete and pinned.
//!
//! Parsed directories are kept by digest and assembled trees by root digest, so
//! that the actions of a build, which share most of their inputs, cost one
//! look-up each. Whether every blob of a tree is there is asked once per tree
//! and deletion: while the store deleted nothing, a complete tree stays so.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use model::{
    AssembleError, Chain, Digest, Directory, DirectoryError, Entry, InputTree, LoadError, Loaded,
    TreeLimits,
};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use store::{Cas, Notice, Pin};

use crate::error::ActionError;
use crate::reading::Reading;

/// The caches between input root digests and trees.
pub(crate) struct Inputs {
    limits: TreeLimits,
    started: Instant,
    directories: Cache<Digest, Arc<Directory>, DirectoryWeight>,
    trees: Cache<Digest, Arc<KnownTree>, TreeWeight>,
}

/// A tree, and the last generation of the store at which it was complete.
struct KnownTree {
    tree: Arc<InputTree>,
    complete_at: AtomicU64,
    /// When the store was last asked for the blobs, in seconds since the caches were made. To ask is
    /// to use them: a tree that actions use every minute is not evicted.
    asked_at: AtomicU64,
}

/// A tree that is in use counts as used this often; leases are much longer.
const TOUCH_SECONDS: u64 = 60;

/// No generation has this number: the store starts at 0 and counts up.
const NEVER: u64 = u64::MAX;

/// A complete tree whose blobs stay where they are while this lives.
pub(crate) struct PinnedTree {
    pub(crate) tree: Arc<InputTree>,
    losses_before: u64,
    _pin: Pin,
}

impl PinnedTree {
    /// Checks that the blobs are still what they were. The store deletes none of them meanwhile, but
    /// somebody else may have, or may have written to one: then whatever was computed of them is
    /// worth nothing.
    ///
    /// # Errors
    /// [`ActionError::MissingBlobs`] with those that are gone or damaged.
    pub(crate) fn check_unchanged(&self, cas: &Cas) -> Result<(), ActionError> {
        let is_input = |digest: &Digest| self.tree.blobs().binary_search(digest).is_ok();
        let mut lost = match cas.notice_changes() {
            Notice::Complete => Vec::new(),
            Notice::Unknown => cas
                .damaged(self.tree.blobs())
                .map_err(|error| ActionError::internal("looking at the inputs", &error))?,
        };
        if cas.losses() != self.losses_before {
            match cas.lost_since(self.losses_before) {
                Some(others) => lost.extend(others.into_iter().filter(is_input)),
                None => lost.extend(self.tree.blobs()),
            }
            lost.sort_unstable();
            lost.dedup();
        }
        if lost.is_empty() { Ok(()) } else { Err(ActionError::MissingBlobs(lost)) }
    }
}

impl Inputs {
    /// Empty caches that hold about `cache_bytes` between them.
    pub(crate) fn new(limits: TreeLimits, cache_bytes: u64) -> Self {
        let half = cache_bytes / 2;
        Self {
            limits,
            started: Instant::now(),
            directories: in_one_shard(half, DirectoryWeight),
            trees: in_one_shard(half, TreeWeight),
        }
    }

    /// The tree below `root`, complete and pinned.
    ///
    /// # Errors
    /// [`ActionError::MissingBlobs`] with every blob known to be missing, at any
    /// depth; [`ActionError::Invalid`] for a directory that breaks the rules.
    pub(crate) fn load(
        &self,
        cas: &Cas,
        reading: &Reading,
        root: Digest,
    ) -> Result<PinnedTree, ActionError> {
        let known = match self.trees.get(&root) {
            Some(known) => known,
            None => {
                let tree = Arc::new(self.assemble(cas, reading, root)?);
                let (complete_at, asked_at) = (AtomicU64::new(NEVER), AtomicU64::new(0));
                let known = Arc::new(KnownTree { tree, complete_at, asked_at });
                self.trees.insert(root, Arc::clone(&known));
                known
            }
        };
        let losses_before = cas.losses();
        // Pinned first and asked second: what is found present then stays.
        let pin = cas.pin(Arc::<InputTree>::clone(&known.tree));
        known.check_complete(cas, self.started.elapsed().as_secs())?;
        Ok(PinnedTree { tree: Arc::clone(&known.tree), losses_before, _pin: pin })
    }

    fn assemble(
        &self,
        cas: &Cas,
        reading: &Reading,
        root: Digest,
    ) -> Result<InputTree, ActionError> {
        let mut found = Vec::new();
        let mut load = |digest: &Digest| {
            let directory = self.directory(cas, reading, digest)?;
            found.extend(directory.clone());
            Ok(directory)
        };
        InputTree::assemble(root, self.limits, &mut load).map_err(|error| match error {
            AssembleError::Missing(directories) => {
                ActionError::MissingBlobs(with_missing_files(cas, directories, &found))
            }
            // The tree is what it is: asking again does not help.
            AssembleError::TooLarge(_) | AssembleError::Malformed { .. } => {
                ActionError::Invalid(Chain(&error).to_string())
            }
            AssembleError::Load { source, .. } => source,
        })
    }

    fn directory(&self, cas: &Cas, reading: &Reading, digest: &Digest) -> Loaded<ActionError> {
        if let Some(directory) = self.directories.get(digest) {
            return Ok(Some(directory));
        }
        Directory::check_size(digest.size_bytes())?;
        let _permit = reading.permit(Directory::parse_bytes_max(digest.size_bytes()));
        let Some(bytes) = read(cas, digest).map_err(LoadError::Failed)? else {
            return Ok(None);
        };
        let directory = Arc::new(Directory::parse(bytes, digest.function())?);
        // As REAPI demands of a server that would not present it.
        if let Some(name) = directory.unknown_property() {
            return Err(DirectoryError::UnknownNodeProperty(name).into());
        }
        self.directories.insert(*digest, Arc::clone(&directory));
        Ok(Some(directory))
    }
}

impl KnownTree {
    fn check_complete(&self, cas: &Cas, now: u64) -> Result<(), ActionError> {
        let generation = cas.generation();
        let is_touched = now - self.asked_at.load(Ordering::Relaxed).min(now) < TOUCH_SECONDS;
        if self.complete_at.load(Ordering::Acquire) == generation && is_touched {
            return Ok(());
        }
        self.asked_at.store(now, Ordering::Relaxed);
        let missing = cas.missing(self.tree.blobs());
        if !missing.is_empty() {
            return Err(ActionError::MissingBlobs(missing));
        }
        self.complete_at.store(generation, Ordering::Release);
        Ok(())
    }
}

/// A whole blob of the client's, such as an Action.
pub(crate) fn read(cas: &Cas, digest: &Digest) -> Result<Option<bytes::Bytes>, ActionError> {
    cas.read(digest).map_err(|error| ActionError::of_store("reading an input", &error))
}

/// The missing directories, and the missing files of those that were found:
/// the client learns all it can in one round.
fn with_missing_files(
    cas: &Cas,
    mut missing: Vec<Digest>,
    found: &[Arc<Directory>],
) -> Vec<Digest> {
    let files: HashSet<Digest> =
        found.iter().flat_map(|directory| file_digests(directory)).collect();
    missing.extend(files.into_iter().filter(|digest| !cas.contains(digest)));
    missing.sort_unstable();
    missing.dedup();
    missing
}

fn file_digests(directory: &Directory) -> impl Iterator<Item = Digest> + '_ {
    directory.entries().filter_map(|entry| match entry {
        Entry::File { digest, .. } => Some(digest),
        Entry::Directory { .. } | Entry::Symlink { .. } => None,
    })
}

/// A cache of that capacity in bytes. It has one shard, because an item that outweighs its shard is never kept,
/// and the tree of a large action may take a tenth of the cache.
fn in_one_shard<T, W: Weighter<Digest, T> + Clone>(
    capacity_bytes: u64,
    weighter: W,
) -> Cache<Digest, T, W>
where
    T: Clone,
{
    let options = OptionsBuilder::new()
        .estimated_items_capacity(ESTIMATED_ITEMS)
        .weight_capacity(capacity_bytes)
        .shards(1)
        .build()
        .expect("all options are given");
    Cache::with_options(
        options,
        weighter,
        DefaultHashBuilder::default(),
        DefaultLifecycle::default(),
    )
}

/// The caches' hash tables start at this size.
const ESTIMATED_ITEMS: usize = 1_000;

#[derive(Debug, Clone)]
struct DirectoryWeight;

impl Weighter<Digest, Arc<Directory>> for DirectoryWeight {
    fn weight(&self, _: &Digest, directory: &Arc<Directory>) -> u64 {
        directory.memory_bytes() as u64
    }
}

#[derive(Debug, Clone)]
struct TreeWeight;

impl Weighter<Digest, Arc<KnownTree>> for TreeWeight {
    fn weight(&self, _: &Digest, known: &Arc<KnownTree>) -> u64 {
        known.tree.memory_bytes() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{DigestFunction, proto, proto::Message};
    use store::{Deleted, Store, StoreOptions};

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    struct Fixture {
        _root: tempfile::TempDir,
        store: Arc<Store>,
        inputs: Inputs,
    }

    fn fixture() -> Fixture {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("state"), StoreOptions::default()).unwrap();
        Fixture { _root: root, store, inputs: Inputs::new(TreeLimits::default(), 1 << 20) }
    }

    impl Fixture {
        fn put(&self, content: &[u8]) -> Digest {
            self.store.cas().put(FUNCTION, content).unwrap()
        }

        fn load(&self, root: &Digest) -> Result<PinnedTree, ActionError> {
            self.inputs.load(self.store.cas(), &Reading::default(), *root)
        }

        fn missing(&self, root: &Digest) -> Vec<Digest> {
            match self.load(root).map(|_| ()) {
                Err(ActionError::MissingBlobs(missing)) => missing,
                other => panic!("expected missing blobs, got {other:?}"),
            }
        }
    }

    fn absent(content: &[u8]) -> Digest {
        Digest::of(FUNCTION, content)
    }

    fn directory(files: &[(&str, Digest)], directories: &[(&str, Digest)]) -> Vec<u8> {
        let node = |(name, digest): &(&str, Digest)| (name.to_string(), Some(digest.to_proto()));
        let file = |named| {
            let (name, digest) = node(named);
            proto::FileNode { name, digest, ..Default::default() }
        };
        let child = |named| {
            let (name, digest) = node(named);
            proto::DirectoryNode { name, digest }
        };
        let directory = proto::Directory {
            files: files.iter().map(file).collect(),
            directories: directories.iter().map(child).collect(),
            ..Default::default()
        };
        directory.encode_to_vec()
    }

    #[test]
    fn everything_missing_is_told_at_once() {
        let fixture = fixture();
        let lost_file = absent(b"a file that nobody uploaded");
        let deep_file = absent(b"another, deep down");
        let lost_directory = absent(b"a directory");
        let deep = fixture.put(&directory(&[("deep", deep_file)], &[]));
        let here = fixture.put(b"here");
        let root = fixture.put(&directory(
            &[("here", here), ("lost", lost_file)],
            &[("deep", deep), ("lost-directory", lost_directory)],
        ));
        let mut expected = vec![lost_file, deep_file, lost_directory];
        expected.sort_unstable();
        assert_eq!(fixture.missing(&root), expected);
    }

    /// However many shards the cache would have on a machine of many cores.
    #[test]
    fn a_tree_that_takes_a_good_part_of_the_cache_is_kept() {
        let fixture = fixture();
        let file = fixture.put(b"file");
        let names: Vec<_> = (0..700).map(|number| format!("file-{number:04}")).collect();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), file)).collect();
        let root = fixture.put(&directory(&files, &[]));
        let pinned = fixture.load(&root).unwrap();
        let (bytes, capacity) = (pinned.tree.memory_bytes(), 1 << 19);
        assert!((capacity / 8..capacity / 2).contains(&bytes), "{bytes}");
        assert!(fixture.inputs.trees.get(&root).is_some());
    }

    #[test]
    fn a_missing_root_is_missing() {
        let root = absent(b"root");
        assert_eq!(fixture().missing(&root), [root]);
    }

    #[test]
    fn a_size_that_is_not_the_blobs_own_is_a_missing_blob() {
        let fixture = fixture();
        let stored = fixture.put(b"content");
        let forged = Digest::new(FUNCTION, *stored.hash(), 3);
        let root = fixture.put(&directory(&[("file", forged)], &[]));
        assert_eq!(fixture.missing(&root), [forged]);
    }

    #[test]
    fn what_is_in_use_is_not_deleted_and_what_was_deleted_is_missed() {
        let fixture = fixture();
        let file = fixture.put(b"file");
        let root = fixture.put(&directory(&[("file", file)], &[]));
        let pinned = fixture.load(&root).unwrap();
        let cas = fixture.store.cas();
        assert_eq!(cas.delete(&file).unwrap(), Deleted::Pinned);
        drop(pinned);
        assert_eq!(cas.delete(&file).unwrap(), Deleted::Gone);
        assert_eq!(fixture.missing(&root), [file]);
        fixture.put(b"file");
        assert!(fixture.load(&root).is_ok());
    }

    #[test]
    fn a_directory_that_is_too_large_is_refused_unread() {
        let fixture = fixture();
        // Were it read, it would be missing.
        let huge = Digest::new(FUNCTION, [7; 32], (64 << 20) + 1);
        for root in [huge, fixture.put(&directory(&[], &[("huge", huge)]))] {
            let refused = fixture.load(&root).map(|_| ());
            assert!(matches!(refused, Err(ActionError::Invalid(_))), "{refused:?}");
        }
    }

    #[test]
    fn what_is_no_directory_is_the_clients_fault() {
        let fixture = fixture();
        let root = fixture.put(b"\xff\xff\xff");
        let refused = fixture.load(&root).map(|_| ());
        assert!(matches!(refused, Err(ActionError::Invalid(_))), "{refused:?}");
    }
}
