//! Every blob that a result names: itself, inside of its trees and below its root directories.

use std::collections::HashSet;

use model::result::{MAX_TREE_BYTES, References, tree_digests};
use model::{Digest, Directory, Entry};
use store::{Cas, StoreError};

/// Directories below the root directories of one result: as many as a look-up of the action cache follows.
const MAX_DIRECTORIES: usize = 100_000;

/// The most blobs that a result may name: as many as an input tree may have. Trees of a few megabytes name them, and
/// a result names many trees.
const MAX_BLOBS: usize = 1_000_000;

/// The knowledge about the blobs of a result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// All of them.
    All(Vec<Digest>),
    /// These have to be in the store to know more.
    Wanted(Vec<Digest>),
    /// There are too many, or one of them is not the message that it should be.
    Unusable,
}

/// The blobs of a result with these references, each once, as far as the trees and directories among them are
/// in the store.
pub(crate) fn contents(cas: &Cas, references: &References) -> Result<Contents, StoreError> {
    let mut all: HashSet<Digest> =
        references.blobs.iter().chain(&references.trees).copied().collect();
    let mut wanted = Vec::new();
    for tree in &references.trees {
        if tree.size_bytes() > MAX_TREE_BYTES {
            return Ok(Contents::Unusable);
        }
        let Some(message) = cas.read(tree)? else {
            wanted.push(*tree);
            continue;
        };
        match tree_digests(&message, tree.function()) {
            Ok(digests) => all.extend(digests.files),
            Err(_) => return Ok(Contents::Unusable),
        }
        if all.len() > MAX_BLOBS {
            return Ok(Contents::Unusable);
        }
    }
    let mut seen: HashSet<Digest> = references.root_directories.iter().copied().collect();
    let mut waiting = references.root_directories.clone();
    while let Some(digest) = waiting.pop() {
        if Directory::check_size(digest.size_bytes()).is_err() || seen.len() > MAX_DIRECTORIES {
            return Ok(Contents::Unusable);
        }
        let Some(message) = cas.read(&digest)? else {
            wanted.push(digest);
            continue;
        };
        let Ok(directory) = Directory::parse(message, digest.function()) else {
            return Ok(Contents::Unusable);
        };
        for entry in directory.entries() {
            match entry {
                Entry::File { digest, .. } => _ = all.insert(digest),
                Entry::Directory { digest, .. } if seen.insert(digest) => waiting.push(digest),
                Entry::Directory { .. } | Entry::Symlink { .. } => {}
            }
        }
        if all.len() > MAX_BLOBS {
            return Ok(Contents::Unusable);
        }
    }
    all.extend(seen);
    if !wanted.is_empty() {
        return Ok(Contents::Wanted(wanted));
    }
    Ok(Contents::All(all.into_iter().collect()))
}
