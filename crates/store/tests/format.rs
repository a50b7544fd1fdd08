//! The format on disk, pinned: what version 1 wrote must be read for ever, and is still written so.
//!
//! `fixtures/v1` is a root as `docs/storage-format.md` describes it, without its empty directories.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{BLAKE3, Fixture, OTHER_BOOT, SHA256, copy_tree, files, options};
use model::Digest;
use store::Store;

const INSTANCE: &str = "projects/main";
const VALUE: &[u8] = b"an encoded ActionResult";

fn pinned() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

fn action() -> Digest {
    Digest::of(SHA256, b"action")
}

/// The files below a root that a server keeps, by their path in it.
fn kept(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut kept = Vec::new();
    for file in files(root) {
        let path = file.strip_prefix(root).expect("below it").to_owned();
        // These tell of a server or of times.
        if !["lock", "state", "index", "used"].iter().any(|name| path == Path::new(name)) {
            kept.push((path, fs::read(&file).expect("a file")));
        }
    }
    kept
}

#[test]
fn the_pinned_root_is_read() {
    let root = common::temp_dir();
    copy_tree(&pinned(), root.path());
    let store = Store::open(root.path(), options(OTHER_BOOT)).expect("the store opens");
    assert_eq!(store.stats().verified_at_open, 0, "it was closed in order");
    assert_eq!(store.stats().blobs, 4);
    for digest in [Digest::of(SHA256, b"abc"), Digest::of(BLAKE3, b"abc")] {
        let read = store.cas().read(&digest).expect("read").expect("there");
        assert_eq!(read, "abc");
    }
    for instance in ["", INSTANCE] {
        let value = store.action_cache().get(instance, &action()).expect("read");
        assert_eq!(value.as_deref(), Some(VALUE), "{instance:?}");
    }
}

#[test]
fn the_same_root_is_written() {
    let fixture = Fixture::new();
    for function in [SHA256, BLAKE3] {
        fixture.store.cas().put(function, b"abc").expect("stored");
    }
    for instance in ["", INSTANCE] {
        let cache = fixture.store.action_cache();
        cache.put(instance, &action(), VALUE).expect("stored");
    }
    drop(fixture.store);
    assert_eq!(kept(fixture.root.path()), kept(&pinned()));
    let state = fs::read_to_string(fixture.root.path().join("state")).expect("a state file");
    let lines: Vec<_> = state.lines().collect();
    assert_eq!(lines[..3], ["actiond state 1", "boot aaaaaaaa-0000", "clean yes"]);
    assert!(lines[3].starts_with("checkpoint "), "{state:?}");
}
