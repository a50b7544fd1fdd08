//! Looks up cached results. A hit is complete or it is no hit: every blob that the result names,
//! inside its trees and below its root directories too, is in the store. And it was computed in the
//! environment that the action would find now.

use std::collections::HashSet;

use bytes::Bytes;
use events::Miss;
use model::result::{MAX_TREE_BYTES, References, TreeDigests, tree_digests, tree_directories};
use model::{Chain, Digest, Directory, EncodedResult, Entry, InstanceName};
use runtimes::Runtimes;
use store::{StoreError, StoreView};

use crate::error::CacheError;
use crate::reading::Reading;
use crate::stamp;

/// Directories below the root directories of one result, and directories in its trees that are kept to look for
/// those: more than outputs of real actions have. It bounds the time and the memory of a lookup; a larger result is
/// a miss.
const MAX_DIRECTORIES: usize = 100_000;

/// The outcome of a lookup.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// The result of an action that succeeded; complete.
    Hit(EncodedResult),
    /// The reason why there is none. A result of another environment stays until the next one replaces it.
    Miss(Miss),
}

/// The cached result of an action.
pub(crate) fn lookup(
    view: &impl StoreView,
    reading: &Reading,
    runtimes: &Runtimes,
    instance: &InstanceName,
    action: &Digest,
) -> Result<Lookup, CacheError> {
    let read = |source| match source {
        StoreError::WouldWait => CacheError::WouldWait,
        source => CacheError::Read { action: *action, source: Box::new(source) },
    };
    let Some(value) = view.cached_result(instance.as_str(), action).map_err(read)? else {
        return Ok(Lookup::Miss(Miss::Absent));
    };
    let (stamp, message) = stamp::split(&value);
    if !stamp.is_some_and(|stamp| stamp.is_current(runtimes)) {
        return Ok(Lookup::Miss(Miss::OtherEnvironment));
    }
    // A result goes when what it names goes.
    let miss = || {
        let removed = view.remove_incomplete(instance.as_str(), action, &value);
        removed.map(|()| Lookup::Miss(Miss::Incomplete)).map_err(read)
    };
    let Some((result, references)) = complete_but_for_trees(view, action, message) else {
        return miss();
    };
    let has_roots = !references.root_directories.is_empty();
    let (mut known, mut directories_left) = (Vec::new(), MAX_DIRECTORIES);
    for tree in &references.trees {
        let read = |source| match source {
            StoreError::WouldWait => CacheError::WouldWait,
            source => {
                CacheError::ReadTree { action: *action, tree: *tree, source: Box::new(source) }
            }
        };
        let kept_max = has_roots.then_some(directories_left);
        match complete_tree(view, reading, tree, kept_max).map_err(read)? {
            Some(inside) => {
                directories_left -= inside.kept();
                known.push(inside);
            }
            None => return miss(),
        }
    }
    if !are_roots_complete(view, reading, &references.root_directories, &known).map_err(read)? {
        return miss();
    }
    Ok(Lookup::Hit(result))
}

/// The result of an action that succeeded and the digests that it names, if the blobs that it names
/// outside of trees are in the store.
fn complete_but_for_trees(
    view: &impl StoreView,
    action: &Digest,
    message: Bytes,
) -> Option<(EncodedResult, References)> {
    let (result, references) = EncodedResult::parse(message, action.function())
        .inspect_err(|error| {
            tracing::warn!(%action, error = %Chain(error), "the cached result is malformed");
        })
        .ok()?;
    let mut named = references.blobs.iter().chain(&references.root_directories);
    let complete = result.exit_code() == 0 && named.all(|digest| view.cas().contains(digest));
    complete.then_some((result, references))
}

/// A Tree whose files are all in the store.
struct CompleteTree {
    /// The directories that are in the message.
    directories: HashSet<Digest>,
    /// The directories that those name as their children.
    children: Vec<Digest>,
}

impl CompleteTree {
    /// The number of digests that are kept.
    fn kept(&self) -> usize {
        self.directories.len() + self.children.len()
    }
}

/// The Tree, if it and all files in it are in the store. Its directories are hashed and kept only with `kept_max`,
/// which is the most digests that may be kept; a Tree with more counts as incomplete.
fn complete_tree<V: StoreView>(
    view: &V,
    reading: &Reading,
    tree: &Digest,
    kept_max: Option<usize>,
) -> Result<Option<CompleteTree>, StoreError> {
    let size_bytes = tree.size_bytes();
    if size_bytes > MAX_TREE_BYTES {
        return Ok(None);
    }
    // The message, the directory of it that is parsed, and the digests in it.
    let bytes_max = 2 * size_bytes
        + Directory::parse_bytes_max(size_bytes)
        + TreeDigests::bytes_max(size_bytes);
    let _permit = if V::MAY_WAIT { reading.permit(bytes_max) } else { None };
    let Some(bytes) = view.blob(tree)? else {
        return Ok(None);
    };
    let Ok(TreeDigests { files, directories: children }) = tree_digests(&bytes, tree.function())
    else {
        return Ok(None);
    };
    if !files.iter().all(|digest| view.cas().contains(digest)) {
        return Ok(None);
    }
    let Some(kept_max) = kept_max else {
        return Ok(Some(CompleteTree { directories: HashSet::new(), children: Vec::new() }));
    };
    let Ok(directories) = tree_directories(&bytes, tree.function(), kept_max) else {
        return Ok(None);
    };
    let mut complete = CompleteTree { directories, children };
    complete.children.shrink_to_fit();
    Ok(Some(complete).filter(|complete| complete.kept() <= kept_max))
}

/// Whether all that hangs below these root directories is in the store. The directories of a complete
/// tree need not be read: what they name is known.
fn are_roots_complete<V: StoreView>(
    view: &V,
    reading: &Reading,
    roots: &[Digest],
    trees: &[CompleteTree],
) -> Result<bool, StoreError> {
    let mut seen: HashSet<Digest> = roots.iter().copied().collect();
    let mut waiting = roots.to_vec();
    while let Some(digest) = waiting.pop() {
        let known = trees.iter().find(|tree| tree.directories.contains(&digest));
        let children = match known {
            Some(tree) => tree.children.clone(),
            None => match complete_directory(view, reading, &digest)? {
                Some(children) => children,
                None => return Ok(false),
            },
        };
        if !children.iter().all(|child| view.cas().contains(child)) {
            return Ok(false);
        }
        waiting.extend(children.into_iter().filter(|child| seen.insert(*child)));
        if seen.len() > MAX_DIRECTORIES {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The children of a Directory, if it and all files in it are in the store.
fn complete_directory<V: StoreView>(
    view: &V,
    reading: &Reading,
    digest: &Digest,
) -> Result<Option<Vec<Digest>>, StoreError> {
    let size_bytes = digest.size_bytes();
    if Directory::check_size(size_bytes).is_err() {
        return Ok(None);
    }
    let bytes_max = 2 * size_bytes + Directory::parse_bytes_max(size_bytes);
    let _permit = if V::MAY_WAIT { reading.permit(bytes_max) } else { None };
    let Some(bytes) = view.blob(digest)? else {
        return Ok(None);
    };
    let Ok(directory) = Directory::parse(bytes, digest.function()) else {
        return Ok(None);
    };
    let mut children = Vec::new();
    for entry in directory.entries() {
        match entry {
            Entry::File { digest, .. } if !view.cas().contains(&digest) => return Ok(None),
            Entry::Directory { digest, .. } => children.push(digest),
            Entry::File { .. } | Entry::Symlink { .. } => {}
        }
    }
    Ok(Some(children))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{DigestFunction, proto};
    use prost::Message as _;
    use runtimes::RuntimeOptions;
    use store::{Store, StoreOptions};

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    /// A tree of three levels, encoded, the deepest first; and its Tree message.
    fn levels() -> (Vec<Vec<u8>>, Vec<u8>) {
        let digest = |blob: &[u8]| Some(Digest::of(FUNCTION, blob).to_proto());
        let mut blobs = vec![b"content".to_vec()];
        let file = proto::FileNode {
            name: "file".to_owned(),
            digest: digest(&blobs[0]),
            ..Default::default()
        };
        let mut directory = proto::Directory { files: vec![file], ..Default::default() };
        let mut tree = proto::Tree::default();
        for _ in 0..3 {
            let blob = directory.encode_to_vec();
            let node = proto::DirectoryNode { name: "d".to_owned(), digest: digest(&blob) };
            blobs.push(blob);
            tree.children.push(std::mem::take(&mut directory));
            directory.directories.push(node);
        }
        tree.root = tree.children.pop();
        (blobs, tree.encode_to_vec())
    }

    /// Whether a result is a hit that names the root, and the Tree too where `with_tree`, while the
    /// blobs of `missing` are not stored.
    fn is_hit(with_tree: bool, missing: &[usize]) -> bool {
        let (blobs, tree) = levels();
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        for (number, blob) in blobs.iter().enumerate() {
            if !missing.contains(&number) {
                store.cas().put(FUNCTION, blob).unwrap();
            }
        }
        let tree_digest = store.cas().put(FUNCTION, &tree).unwrap();
        let root = Digest::of(FUNCTION, blobs.last().unwrap());
        let directory = proto::OutputDirectory {
            path: "out".to_owned(),
            tree_digest: with_tree.then(|| tree_digest.to_proto()),
            root_directory_digest: Some(root.to_proto()),
            ..Default::default()
        };
        let result =
            proto::ActionResult { output_directories: vec![directory], ..Default::default() };
        let action = Digest::of(FUNCTION, b"action");
        store.action_cache().put("", &action, &stamp::entry_of_upload(&result)).unwrap();
        matches!(look(&store, &action), Lookup::Hit(_))
    }

    fn look(store: &Store, action: &Digest) -> Lookup {
        let (reading, instance) = (Reading::default(), InstanceName::default());
        let runtimes = Runtimes::open(&RuntimeOptions::default()).unwrap();
        lookup(&store.blocking(), &reading, &runtimes, &instance, action).unwrap()
    }

    /// A Tree of different directories of ten bytes each.
    fn many_directories(count: usize) -> Vec<u8> {
        let directory = |number: usize| {
            let link = proto::SymlinkNode { name: format!("{number:x}"), ..Default::default() };
            proto::Directory { symlinks: vec![link], ..Default::default() }
        };
        let children = (1..count).map(directory).collect();
        proto::Tree { root: Some(directory(0)), children }.encode_to_vec()
    }

    #[test]
    fn a_result_whose_trees_have_too_many_directories_is_a_miss() {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let link = proto::SymlinkNode { name: "0".to_owned(), ..Default::default() };
        let root = proto::Directory { symlinks: vec![link], ..Default::default() };
        let root = store.cas().put(FUNCTION, &root.encode_to_vec()).unwrap();
        let check = |trees: &[&[u8]], has_root: bool, expected: &str| {
            let directory = |tree: &&[u8]| proto::OutputDirectory {
                tree_digest: Some(store.cas().put(FUNCTION, tree).unwrap().to_proto()),
                root_directory_digest: has_root.then(|| root.to_proto()),
                ..Default::default()
            };
            let output_directories = trees.iter().map(directory).collect();
            let result = proto::ActionResult { output_directories, ..Default::default() };
            let action = Digest::of(FUNCTION, b"action");
            store.action_cache().put("", &action, &stamp::entry_of_upload(&result)).unwrap();
            assert_eq!(word(&look(&store, &action)), expected, "{} trees, {has_root}", trees.len());
        };
        let (large, half) =
            (many_directories(MAX_DIRECTORIES), many_directories(MAX_DIRECTORIES / 2));
        check(&[&large], true, "hit");
        check(&[&many_directories(MAX_DIRECTORIES + 1)], true, "incomplete");
        // The directories of several trees count together. Without roots nothing is kept.
        let with_second_root = many_directories(MAX_DIRECTORIES / 2 + 1);
        check(&[&half, &with_second_root], true, "incomplete");
        check(&[&large, &with_second_root], false, "hit");
    }

    #[test]
    fn a_result_without_a_stamp_is_of_another_environment_and_stays() {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let action = Digest::of(FUNCTION, b"action");
        assert!(matches!(look(&store, &action), Lookup::Miss(Miss::Absent)));
        store.action_cache().put("", &action, b"").unwrap();
        for _ in 0..2 {
            let found = look(&store, &action);
            assert!(matches!(found, Lookup::Miss(Miss::OtherEnvironment)));
        }
        let uploaded = stamp::entry_of_upload(&proto::ActionResult::default());
        store.action_cache().put("", &action, &uploaded).unwrap();
        assert!(matches!(look(&store, &action), Lookup::Hit(_)));
    }

    /// A row of the table: the result that is cached, and the outcome of two lookups after each other.
    struct Case {
        what: &'static str,
        value: Vec<u8>,
        expected: [&'static str; 2],
    }

    /// The outcome of a lookup in a word.
    fn word(found: &Lookup) -> &'static str {
        match found {
            Lookup::Hit(_) => "hit",
            Lookup::Miss(Miss::Absent) => "absent",
            Lookup::Miss(Miss::Incomplete) => "incomplete",
            Lookup::Miss(Miss::OtherEnvironment) => "other environment",
            Lookup::Miss(_) => "a miss that is none of a lookup",
        }
    }

    /// Results whose blobs are stored, but for those that have "gone" in their content.
    fn cases(cas: &store::Cas) -> Vec<Case> {
        let stored = |blob: &[u8]| Some(cas.put(FUNCTION, blob).unwrap().to_proto());
        let gone = |blob: &[u8]| Some(Digest::of(FUNCTION, blob).to_proto());
        let file = |digest| proto::OutputFile {
            path: "out".to_owned(),
            digest,
            ..proto::OutputFile::default()
        };
        let tree = |tree_digest| proto::ActionResult {
            output_directories: vec![proto::OutputDirectory {
                path: "out".to_owned(),
                tree_digest,
                ..proto::OutputDirectory::default()
            }],
            ..proto::ActionResult::default()
        };
        let result = proto::ActionResult::default;
        let node = |digest| proto::FileNode {
            name: "file".to_owned(),
            digest,
            ..proto::FileNode::default()
        };
        let tree_of = |digest| {
            let files = vec![node(digest)];
            let root = proto::Directory { files, ..proto::Directory::default() };
            proto::Tree { root: Some(root), children: Vec::new() }.encode_to_vec()
        };
        let too_large = proto::Digest { hash: "0".repeat(64), size_bytes: 65 << 20 };
        let link = proto::OutputSymlink {
            path: "link".to_owned(),
            target: "nowhere".to_owned(),
            ..proto::OutputSymlink::default()
        };
        let stamped = stamp::entry_of_upload;
        let (hit, incomplete) = (["hit"; 2], ["incomplete", "absent"]);
        let row = |what, value, expected| Case { what, value, expected };
        let named = |what, message: proto::ActionResult, expected| {
            row(what, stamped(&message).to_vec(), expected)
        };
        vec![
            row("no stamp", Vec::new(), ["other environment"; 2]),
            row("no message", [&stamped(&result())[..], b"\xff"].concat(), incomplete),
            named("nothing", result(), hit),
            named("a failure", proto::ActionResult { exit_code: 1, ..result() }, incomplete),
            named(
                "a symlink",
                proto::ActionResult { output_symlinks: vec![link], ..result() },
                hit,
            ),
            named(
                "a file",
                proto::ActionResult { output_files: vec![file(stored(b"out"))], ..result() },
                hit,
            ),
            named(
                "a file, gone",
                proto::ActionResult { output_files: vec![file(gone(b"out, gone"))], ..result() },
                incomplete,
            ),
            named(
                "a file without a digest",
                proto::ActionResult { output_files: vec![file(None)], ..result() },
                incomplete,
            ),
            named("stdout", proto::ActionResult { stdout_digest: stored(b"1"), ..result() }, hit),
            named(
                "stdout, gone",
                proto::ActionResult { stdout_digest: gone(b"1, gone"), ..result() },
                incomplete,
            ),
            named(
                "stderr, gone",
                proto::ActionResult { stderr_digest: gone(b"2, gone"), ..result() },
                incomplete,
            ),
            named("a tree", tree(stored(&tree_of(stored(b"in a tree")))), hit),
            named("a tree, gone", tree(gone(&tree_of(gone(b"a tree, gone")))), incomplete),
            named(
                "a file in a tree, gone",
                tree(stored(&tree_of(gone(b"its file, gone")))),
                incomplete,
            ),
            named("a tree that is no message", tree(stored(b"\xff\xff\xff")), incomplete),
            named("a tree beyond what is read", tree(Some(too_large)), incomplete),
        ]
    }

    #[test]
    fn a_lookup_hits_what_is_whole_and_removes_what_is_not() {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        for Case { what, value, expected } in cases(store.cas()) {
            let action = Digest::of(FUNCTION, what.as_bytes());
            assert_eq!(word(&look(&store, &action)), "absent", "{what}: before");
            store.action_cache().put("", &action, &value).unwrap();
            let found = [(); 2].map(|()| word(&look(&store, &action)));
            assert_eq!(found, expected, "{what}");
        }
    }

    /// The view that may not wait gives the same answers from memory, or says that it would wait.
    #[test]
    fn a_lookup_that_may_not_wait_never_says_otherwise() {
        // On a real file system: tmpfs has no reads that never wait.
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let (reading, instance) = (Reading::default(), InstanceName::default());
        let runtimes = Runtimes::open(&RuntimeOptions::default()).unwrap();
        let mut answers = 0;
        for Case { what, value, expected } in cases(store.cas()) {
            let action = Digest::of(FUNCTION, what.as_bytes());
            store.action_cache().put("", &action, &value).unwrap();
            match lookup(&store.resident(), &reading, &runtimes, &instance, &action) {
                Ok(found) => {
                    assert_eq!(word(&found), expected[0], "{what}");
                    answers += 1;
                }
                Err(CacheError::WouldWait) => {}
                Err(error) => panic!("{what}: {error}"),
            }
        }
        if answers == 0 {
            eprintln!("SKIPPED: reads of this file system always wait");
        }
    }

    #[test]
    fn a_hit_is_complete_below_its_root_directories() {
        for with_tree in [false, true] {
            assert!(is_hit(with_tree, &[]), "{with_tree}");
            for missing in 0..4 {
                assert!(!is_hit(with_tree, &[missing]), "{with_tree}, without {missing}");
            }
        }
    }

    #[test]
    fn a_tree_of_another_root_proves_nothing_of_this_one() {
        let (blobs, _) = levels();
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = Store::open(root.path(), StoreOptions::default()).unwrap();
        let (view, reading) = (store.blocking(), Reading::default());
        let roots = [store.cas().put(FUNCTION, blobs.last().unwrap()).unwrap()];
        let other = CompleteTree { directories: HashSet::new(), children: Vec::new() };
        assert!(!are_roots_complete(&view, &reading, &roots, &[other]).unwrap());
    }
}
