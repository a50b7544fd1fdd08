//! The blobs of a store by target: the history knows which actions were a target's, and their results name blobs.
//!
//! Records are read from the last one back, so that a blob of several targets counts for the one that was built last.
//! The result is that of the record, or of the action cache where the record has none, such as a hit's. Nothing that is
//! looked at counts as used.

use std::collections::{HashMap, HashSet};
use std::error::Error;

use bytes::Bytes;
use history::{Page, Record};
use model::result::{MAX_TREE_BYTES, References, tree_digests};
use model::{Digest, Directory, EncodedResult, Entry};
use proto::actiond::internal::v1::Usage;
use proto::actiond::internal::v1::usage::{Share, Targets};
use store::{Store, StoreError};

use crate::maintenance::{BLOBS, add, share};

/// Targets in one answer: some 100 KiB.
const TARGETS_MAX: usize = 1000;

/// Records that are read at a time.
const RECORDS: u32 = 1000;

/// An error of grouping blobs by target.
#[derive(Debug, thiserror::Error)]
pub enum ByTargetError<E: Error + 'static> {
    /// The history can't be read.
    #[error(transparent)]
    History(E),
    /// A result or a tree can't be read, for a reason that is not its own.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Adds the blobs by target to `usage`. `read` gives a page of the history's records, the latest first.
///
/// Takes 32 bytes of memory for each blob of a target and for each action in the history, and the memory of one Tree
/// at a time.
///
/// # Errors
/// [`ByTargetError`] when history or store can't be read.
pub fn add_targets<E: Error + 'static>(
    store: &Store,
    usage: &mut Usage,
    mut read: impl FnMut(Page) -> Result<Vec<Record>, E>,
) -> Result<(), ByTargetError<E>> {
    let mut account = Account::new(store);
    let mut page = Page::first(RECORDS);
    loop {
        let records = read(page).map_err(ByTargetError::History)?;
        let Some(last) = records.last() else { break };
        page.after = Some(last.id);
        for record in records.iter().filter(|record| !record.origin.target.as_str().is_empty()) {
            account.record(record)?;
        }
    }
    let blobs = usage.kinds.iter().find(|kind| kind.name == BLOBS).cloned().unwrap_or_default();
    usage.targets = Some(account.finish(&blobs));
    Ok(())
}

/// The first 16 bytes of a hash, which tell the blobs of a store apart.
type Key = u128;

struct Account<'a> {
    store: &'a Store,
    /// The blobs that count for a target.
    counted: HashSet<Key>,
    /// The actions whose cached result was looked at, by instance.
    looked_at: HashMap<String, HashSet<Key>>,
    targets: HashMap<String, Share>,
}

impl<'a> Account<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, counted: HashSet::new(), looked_at: HashMap::new(), targets: HashMap::new() }
    }

    fn record(&mut self, record: &Record) -> Result<(), StoreError> {
        let target = record.origin.target.as_str();
        let mut found = self.targets.remove(target).unwrap_or_else(|| share(target));
        let outcome = self.add(record, &mut found);
        self.targets.insert(target.to_owned(), found);
        outcome
    }

    fn add(&mut self, record: &Record, target: &mut Share) -> Result<(), StoreError> {
        self.count(&record.action, target);
        if let Some(command) = &record.command {
            self.count(command, target);
        }
        let result = match &record.result {
            Some(result) => Some(result.clone()),
            None => self.cached_result(&record.instance, &record.action)?,
        };
        let parsed = result.map(|it| EncodedResult::parse(it, record.action.function()));
        let Some(Ok((_, references))) = parsed else { return Ok(()) };
        let References { blobs, trees, root_directories } = references;
        for digest in &blobs {
            self.count(digest, target);
        }
        for digest in &trees {
            self.tree(digest, target)?;
        }
        self.directories(root_directories, target)
    }

    /// The cached result of an action, the first time that it is asked for.
    fn cached_result(
        &mut self,
        instance: &str,
        action: &Digest,
    ) -> Result<Option<Bytes>, StoreError> {
        if !self.looked_at.entry(instance.to_owned()).or_default().insert(key(action)) {
            return Ok(None);
        }
        self.store.action_cache().look(instance, action)
    }

    /// Counts a Tree and what is in it.
    fn tree(&mut self, digest: &Digest, target: &mut Share) -> Result<(), StoreError> {
        if !self.count(digest, target) || digest.size_bytes() > MAX_TREE_BYTES {
            return Ok(());
        }
        let Some(message) = self.store.cas().look(digest)? else { return Ok(()) };
        if let Ok(inside) = tree_digests(&message, digest.function()) {
            for digest in inside.files.iter().chain(&inside.directories) {
                self.count(digest, target);
            }
        }
        Ok(())
    }

    /// Counts Directory messages that are blobs of their own, and what is below them.
    fn directories(&mut self, roots: Vec<Digest>, target: &mut Share) -> Result<(), StoreError> {
        let mut waiting = roots;
        while let Some(digest) = waiting.pop() {
            let is_new = self.count(&digest, target);
            if !is_new || Directory::check_size(digest.size_bytes()).is_err() {
                continue;
            }
            let Some(message) = self.store.cas().look(&digest)? else { continue };
            let Ok(directory) = Directory::parse(message, digest.function()) else { continue };
            for entry in directory.entries() {
                match entry {
                    Entry::File { digest, .. } => {
                        self.count(&digest, target);
                    }
                    Entry::Directory { digest, .. } => waiting.push(digest),
                    Entry::Symlink { .. } => {}
                }
            }
        }
        Ok(())
    }

    /// Counts a blob if it is there and was not counted before. Returns whether it was.
    fn count(&mut self, digest: &Digest, target: &mut Share) -> bool {
        let is_new = self.store.cas().holds(digest) && self.counted.insert(key(digest));
        if is_new {
            add(target, self.store.cost(digest.size_bytes()));
        }
        is_new
    }

    /// The answer, where `blobs` are all of the store.
    fn finish(self, blobs: &Share) -> Targets {
        let mut largest: Vec<_> = self.targets.into_values().filter(|it| it.files > 0).collect();
        largest.sort_unstable_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        let rest = largest.split_off(largest.len().min(TARGETS_MAX));
        let mut unknown = Share { name: String::new(), ..*blobs };
        for Share { files, bytes, .. } in largest.iter().chain(&rest) {
            // The store changes meanwhile.
            unknown.files = unknown.files.saturating_sub(*files);
            unknown.bytes = unknown.bytes.saturating_sub(*bytes);
        }
        let mut others = Share::default();
        for Share { files, bytes, .. } in &rest {
            others.files += files;
            others.bytes += bytes;
        }
        Targets {
            largest,
            others: Some(others),
            others_count: rest.len() as u64,
            unknown: Some(unknown),
        }
    }
}

fn key(digest: &Digest) -> Key {
    Key::from_le_bytes(digest.hash().first())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use events::{Limits, Origin, Stages};
    use history::Kind;
    use model::{DigestFunction, proto};
    use prost::Message as _;
    use store::StoreOptions;

    use super::*;
    use crate::maintenance;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn record(id: i64, target: &str, action: Digest, result: Option<Bytes>) -> Record {
        Record {
            id,
            kind: if result.is_some() { Kind::Execution } else { Kind::Lookup },
            at_us: 0,
            operation: String::new(),
            instance: "main".into(),
            action,
            command: None,
            input_root: None,
            inputs: None,
            origin: Origin { target: target.into(), ..Origin::default() },
            worker: String::new(),
            times: 1,
            cached: false,
            miss: None,
            exit_code: Some(0),
            failure: None,
            message: None,
            stages: Stages::default(),
            usage: None,
            limits: Limits::default(),
            outputs: 0,
            output_bytes: 0,
            result,
        }
    }

    fn file(digest: Digest) -> proto::OutputFile {
        proto::OutputFile { digest: Some(digest.to_proto()), ..Default::default() }
    }

    fn result(files: &[Digest], tree: Option<Digest>, root: Option<Digest>) -> Bytes {
        let directory = proto::OutputDirectory {
            tree_digest: tree.map(|it| it.to_proto()),
            root_directory_digest: root.map(|it| it.to_proto()),
            ..Default::default()
        };
        let has_directory = tree.is_some() || root.is_some();
        let result = proto::ActionResult {
            output_files: files.iter().copied().map(file).collect(),
            output_directories: has_directory.then_some(directory).into_iter().collect(),
            ..Default::default()
        };
        result.encode_to_vec().into()
    }

    #[test]
    fn each_blob_counts_for_the_target_that_was_built_last() {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let put = |content: &[u8]| store.cas().put(FUNCTION, content).unwrap();
        let directory_of = |digest: Digest| proto::Directory {
            files: vec![proto::FileNode {
                name: "file".into(),
                digest: Some(digest.to_proto()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let (own, shared, cached) = (put(b"own"), put(b"shared"), put(b"cached"));
        let (inside, below) = (put(b"in a tree"), put(b"below a root"));
        put(b"an input");
        let tree = proto::Tree { root: Some(directory_of(inside)), ..Default::default() };
        let tree = put(&tree.encode_to_vec());
        let directory = put(&directory_of(below).encode_to_vec());
        let absent = Digest::of(FUNCTION, b"evicted");
        let (first, second) = (put(b"first action"), put(b"second action"));
        store.action_cache().put("main", &second, &result(&[cached], None, None)).unwrap();

        let records = [
            record(5, "//late", second, None),
            record(4, "//late", first, Some(result(&[shared], None, Some(directory)))),
            record(3, "//early", first, Some(result(&[own, shared, absent], Some(tree), None))),
            record(2, "", first, Some(result(&[inside], None, None))),
            record(1, "//gone", absent, Some(result(&[absent], None, None))),
        ];
        let mut usage = maintenance::usage(&store);
        let read = |page: Page| {
            let after = page.after.unwrap_or(i64::MAX);
            let later = records.iter().filter(|it| it.id < after).take(2);
            Ok::<_, Infallible>(later.cloned().collect())
        };
        add_targets(&store, &mut usage, read).unwrap();
        let targets = usage.targets.unwrap();
        let names: Vec<_> = targets.largest.iter().map(|it| (it.name.as_str(), it.files)).collect();
        // The two actions, shared, cached, the directory and what is in it; own, the tree and what is in it.
        assert_eq!(names, [("//late", 6), ("//early", 3)]);
        assert_eq!(targets.others_count, 0);
        // The input and the empty blobs.
        let blobs = usage.kinds.iter().find(|kind| kind.name == BLOBS).unwrap();
        let unknown = targets.unknown.unwrap();
        assert_eq!(unknown.files, blobs.files - 9);
        let bytes: u64 = targets.largest.iter().map(|it| it.bytes).sum();
        assert_eq!(unknown.bytes, blobs.bytes - bytes);
    }

    #[test]
    fn an_answer_names_a_bounded_number_of_targets() {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let count = TARGETS_MAX as i64 + 5;
        let records: Vec<_> = (1..=count)
            .map(|id| {
                let size = if id == 7 { 9000 } else { 10 };
                let action = store.cas().put(FUNCTION, &id.to_le_bytes().repeat(size)).unwrap();
                record(id, &format!("//target:{id}"), action, None)
            })
            .collect();
        let mut usage = maintenance::usage(&store);
        let read = |page: Page| {
            let after = page.after.unwrap_or(i64::MAX);
            let later = records.iter().rev().filter(|it| it.id < after);
            Ok::<_, Infallible>(later.take(RECORDS as usize).cloned().collect())
        };
        add_targets(&store, &mut usage, read).unwrap();
        let targets = usage.targets.unwrap();
        assert_eq!(targets.largest.len(), TARGETS_MAX);
        assert_eq!(targets.largest[0].name, "//target:7");
        assert_eq!((targets.others_count, targets.others.unwrap().files), (5, 5));
    }
}
