//! Shared parts of the store's tests: a root of their own, and ways to look at it from outside.

#![allow(dead_code, reason = "every test file takes what it needs")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Digest, DigestFunction};
use store::{BlobPath, Store, StoreOptions};
use tempfile::TempDir;

pub(crate) const SHA256: DigestFunction = DigestFunction::Sha256;
pub(crate) const BLAKE3: DigestFunction = DigestFunction::Blake3;
/// Two runs of a machine.
pub(crate) const BOOT: &str = "aaaaaaaa-0000";
pub(crate) const OTHER_BOOT: &str = "bbbbbbbb-0000";

/// The usual place of a tmpfs.
const MEMORY: &str = "/dev/shm";

/// Options of a store that makes no checkpoint by itself.
pub(crate) fn options(boot_id: &str) -> StoreOptions {
    StoreOptions {
        checkpoint_interval: Duration::from_secs(3600),
        boot_id: Some(boot_id.to_owned()),
        ..StoreOptions::default()
    }
}

/// A directory in memory where there is one: every store makes a thousand directories and syncs its
/// file system, which on a busy disk takes seconds, and no test here is about the disk.
pub(crate) fn temp_dir() -> TempDir {
    TempDir::new_in(MEMORY).or_else(|_| TempDir::new()).expect("a temporary directory")
}

pub(crate) fn open(root: &Path) -> Arc<Store> {
    Store::open(root, options(BOOT)).expect("the store opens")
}

/// A store in a directory of its own.
pub(crate) struct Fixture {
    pub(crate) store: Arc<Store>,
    pub(crate) root: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let root = temp_dir();
        Self { store: open(root.path()), root }
    }

    /// Ends the store in order and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self { store, root } = self;
        drop(store);
        Self { store: open(root.path()), root }
    }

    pub(crate) fn blob_file(&self, digest: &Digest) -> PathBuf {
        self.store.cas().blobs_path().join(BlobPath::new(digest).as_str())
    }

    /// All files that are blobs by their place.
    pub(crate) fn blob_files(&self) -> Vec<PathBuf> {
        files(self.store.cas().blobs_path())
    }
}

/// All files below a directory that are no directories, sorted.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a kind").is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Copies a root as it is while a server uses it: what a killed server leaves.
pub(crate) fn snapshot(root: &Path) -> TempDir {
    let copy = temp_dir();
    copy_tree(root, copy.path());
    copy
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            fs::create_dir_all(&target).expect("a directory");
            fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).expect("chmod");
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

/// A generator of numbers, the same on every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
