//! The state that a start finds after every kind of end.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{BOOT, Fixture, OTHER_BOOT, SHA256, options, snapshot};
use model::Digest;
use store::{BlobPath, Stats, Store};

/// Tears a blob's file in a root that nobody uses.
fn tear(root: &Path, digest: &Digest, act: impl FnOnce(&Path)) {
    let path = root.join("cas/blobs").join(BlobPath::new(digest).as_str());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    act(&path);
}

fn truncate(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.set_len(1).expect("truncated");
}

fn overwrite(path: &Path) {
    let size = fs::metadata(path).expect("a file").len();
    fs::write(path, vec![0; size as usize]).expect("written");
}

fn open(root: &Path, boot_id: &str) -> std::sync::Arc<Store> {
    Store::open(root, options(boot_id)).expect("the store opens")
}

fn set_checkpoint(root: &Path, seconds: i64) {
    let state = format!("actiond state 1\nboot {BOOT}\nclean no\ncheckpoint {seconds}\n");
    fs::write(root.join("state"), state).expect("a state file");
}

/// Three blobs in a store that ends without a word.
fn crashed() -> (tempfile::TempDir, [Digest; 3]) {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let digests = ["whole", "cut short", "full of zeros"]
        .map(|content| cas.put(SHA256, content.as_bytes()).expect("stored"));
    (snapshot(fixture.root.path()), digests)
}

#[test]
fn a_killed_server_loses_nothing_and_costs_what_it_stored_last() {
    let (root, digests) = crashed();
    let store = open(root.path(), BOOT);
    assert_eq!(store.cas().missing(&digests), []);
    assert_eq!(store.stats().verified_at_open, 3);
}

#[test]
fn a_disk_that_lost_data_while_the_machine_ran_is_noticed() {
    let (root, [whole, cut, zeros]) = crashed();
    tear(root.path(), &zeros, overwrite);
    let store = open(root.path(), BOOT);
    assert_eq!(store.cas().missing(&[whole, cut, zeros]), [zeros]);
}

#[test]
fn a_crash_of_the_machine_costs_what_it_tore() {
    let (root, [whole, cut, zeros]) = crashed();
    tear(root.path(), &cut, truncate);
    tear(root.path(), &zeros, overwrite);
    let store = open(root.path(), OTHER_BOOT);
    assert_eq!(store.cas().missing(&[whole, cut, zeros]), [cut, zeros]);
    let read = store.cas().read(&whole).expect("read").expect("there");
    assert_eq!(read, "whole");
    let Stats { verified_at_open, removed_at_open, .. } = store.stats();
    assert_eq!((verified_at_open, removed_at_open), (3, 2));
    for digest in [cut, zeros] {
        let path = BlobPath::new(&digest);
        assert!(!store.cas().blobs_path().join(path.as_str()).exists());
    }
    store.cas().put(SHA256, b"cut short").expect("stored anew");
    assert!(store.cas().contains(&cut));
}

#[test]
fn what_is_older_than_the_checkpoint_is_not_hashed() {
    let (root, digests) = crashed();
    let made = seconds();
    while seconds() <= made {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    set_checkpoint(root.path(), seconds());
    let store = open(root.path(), OTHER_BOOT);
    assert_eq!(store.cas().missing(&digests), []);
    assert_eq!(store.stats().verified_at_open, 0);
}

#[test]
fn a_checkpoint_in_the_future_says_nothing() {
    let (root, _) = crashed();
    set_checkpoint(root.path(), seconds() + 3600);
    let store = open(root.path(), BOOT);
    assert_eq!(store.stats().verified_at_open, 3);
}

fn seconds() -> i64 {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    now.as_secs() as i64
}

#[test]
fn without_a_state_file_everything_is_hashed() {
    for state in [None, Some("actiond state 9\n")] {
        let (root, [whole, cut, zeros]) = crashed();
        tear(root.path(), &cut, truncate);
        let path = root.path().join("state");
        match state {
            None => fs::remove_file(path).expect("removed"),
            Some(text) => fs::write(path, text).expect("written"),
        }
        let store = open(root.path(), BOOT);
        assert_eq!(store.cas().missing(&[whole, cut, zeros]), [cut]);
        assert_eq!(store.stats().verified_at_open, 3);
    }
}

#[test]
fn after_an_end_in_order_nothing_is_hashed() {
    let fixture = Fixture::new();
    let digest = fixture.store.cas().put(SHA256, b"abc").expect("stored");
    drop(fixture.store);
    let store = open(fixture.root.path(), OTHER_BOOT);
    assert!(store.cas().contains(&digest));
    assert_eq!(store.stats().verified_at_open, 0);
}

#[test]
fn an_empty_file_of_a_blob_is_removed_at_any_start() {
    let fixture = Fixture::new();
    let digest = fixture.store.cas().put(SHA256, b"abc").expect("stored");
    drop(fixture.store);
    tear(fixture.root.path(), &digest, |path| {
        fs::write(path, "").expect("truncated");
    });
    let store = open(fixture.root.path(), BOOT);
    assert!(!store.cas().contains(&digest));
    assert_eq!(store.stats().removed_at_open, 1);
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    let (root, [whole, cut, zeros]) = crashed();
    tear(root.path(), &cut, truncate);
    let first = open(root.path(), OTHER_BOOT);
    let again = snapshot(root.path());
    drop(first);
    tear(again.path(), &zeros, overwrite);
    let store = open(again.path(), "cccccccc-0000");
    assert_eq!(store.cas().missing(&[whole, cut, zeros]), [cut, zeros]);
}

#[test]
fn a_checkpoint_is_made_after_a_change() {
    let root = common::temp_dir();
    let mut options = options(BOOT);
    options.checkpoint_interval = std::time::Duration::from_millis(1);
    let store = Store::open(root.path(), options).expect("a store");
    set_checkpoint(root.path(), 7);
    let digest = store.cas().put(SHA256, b"abc").expect("stored");
    let state = || fs::read_to_string(root.path().join("state")).expect("a state file");
    // The test hangs when no checkpoint is ever made.
    while state().contains("checkpoint 7\n") {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(state().contains("clean no"), "{}", state());
    store.close().expect("closed");
    assert!(state().contains("clean yes"), "{}", state());
    drop(store);
    assert!(open(root.path(), OTHER_BOOT).cas().contains(&digest));
}

#[test]
fn what_is_no_blob_is_left_alone_and_not_served() {
    let fixture = Fixture::new();
    let shard = fixture.store.cas().blobs_path().join("sha256/ba");
    drop(fixture.store);
    let abc = Digest::of(SHA256, b"abc").hex();
    let wrong_shard = format!("aa{}", &abc[2..]);
    fs::write(shard.join("README"), "hello").expect("a file");
    fs::write(shard.join(&wrong_shard), "abc").expect("a file");
    fs::write(shard.join(abc.to_uppercase()), "abc").expect("a file");
    fs::create_dir(shard.join(abc.replace('5', "6"))).expect("a directory");
    std::os::unix::fs::symlink("/etc/passwd", shard.join(&abc)).expect("a symlink");
    let store = common::open(fixture.root.path());
    assert_eq!(store.stats().blobs, 2, "the empty ones");
    assert!(shard.join("README").exists());
    let digest = store.cas().put(SHA256, b"abc").expect("stored over the symlink");
    let read = store.cas().read(&digest).expect("read").expect("there");
    assert_eq!(read, "abc");
}
