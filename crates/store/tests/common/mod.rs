//! Shared parts of the store's tests: a root of their own, and ways to look at it from outside.

#![allow(dead_code, unused_imports, reason = "every test file takes what it needs")]

mod roots;
mod tmpfs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::{Digest, DigestFunction};
use store::{BlobPath, Store, StoreOptions};
use tempfile::TempDir;

pub(crate) use roots::{Numbers, copy_tree, files, snapshot, temp_dir};
pub(crate) use tmpfs::small_tmpfs;

pub(crate) const SHA256: DigestFunction = DigestFunction::Sha256;
pub(crate) const BLAKE3: DigestFunction = DigestFunction::Blake3;
/// Two runs of a machine.
pub(crate) const BOOT: &str = "aaaaaaaa-0000";
pub(crate) const OTHER_BOOT: &str = "bbbbbbbb-0000";

/// Options of a store that makes no checkpoint by itself.
pub(crate) fn options(boot_id: &str) -> StoreOptions {
    StoreOptions {
        checkpoint_interval: Duration::from_secs(3600),
        boot_id: Some(boot_id.to_owned()),
        ..StoreOptions::default()
    }
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
