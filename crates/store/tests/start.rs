//! A start by the index file: what it may take from the file, and what it must not.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use common::{BLAKE3, BOOT, Fixture, SHA256, copy_tree, options, snapshot, temp_dir};
use model::Digest;
use store::{BlobPath, Notice, Store};

/// Opens a store as a server does.
fn begin(root: &Path) -> Arc<Store> {
    let options = store::StoreOptions { opens_in_background: true, ..options(BOOT) };
    Store::open(root, options).expect("the store opens")
}

/// Waits until a store is open, and until its files were looked at.
fn wait(store: &Store) {
    while !store.is_open() || store.cas().notice_changes() != Notice::Complete {
        assert!(store.take_failure().is_none());
        std::thread::yield_now();
    }
}

fn content(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(1 + number as usize % 50)
}

/// A store that was closed in order, with its blobs.
fn closed() -> (tempfile::TempDir, Vec<Digest>) {
    let Fixture { store, root } = Fixture::new();
    let mut digests = Vec::new();
    for number in 0..1000 {
        let function = if number % 3 == 0 { BLAKE3 } else { SHA256 };
        digests.push(store.cas().put(function, &content(number)).expect("stored"));
    }
    for action in &digests[..100] {
        for instance in ["", "other"] {
            store.action_cache().put(instance, action, b"value").expect("stored");
        }
    }
    drop(store);
    (root, digests)
}

fn file_of(root: &Path, digest: &Digest) -> std::path::PathBuf {
    root.join("cas/blobs").join(BlobPath::new(digest).as_str())
}

#[test]
fn after_an_end_in_order_no_directory_is_listed() {
    let (root, digests) = closed();
    let used = common::open(root.path()).stats().used_bytes;
    // A name that a listing would report shows that there is none.
    let store = begin(root.path());
    wait(&store);
    let stats = store.stats();
    assert_eq!(stats.listed_at_open, 0);
    assert_eq!((stats.blobs, stats.results), (1002, 200));
    assert_eq!(stats.used_bytes, used);
    assert_eq!(store.cas().missing(&digests), []);
    for (number, digest) in digests.iter().enumerate() {
        let read = store.cas().read(digest).expect("read").expect("there");
        assert!(read == content(number as u32));
    }
}

#[test]
fn a_directory_that_somebody_changed_is_listed() {
    let (root, digests) = closed();
    let (gone, added) = (&digests[7], Digest::of(SHA256, b"added"));
    fs::remove_file(file_of(root.path(), gone)).expect("removed");
    fs::write(file_of(root.path(), &added), b"added").expect("written");
    let store = begin(root.path());
    assert_eq!(store.cas().missing(&digests), [*gone], "at once");
    assert!(store.cas().contains(&added));
    wait(&store);
    assert_eq!((store.stats().listed_at_open, store.stats().blobs), (2, 1002));
}

#[test]
fn a_file_that_somebody_cut_is_missing_and_until_then_callers_look() {
    let (root, digests) = closed();
    let path = file_of(root.path(), &digests[49]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    fs::OpenOptions::new().write(true).open(&path).expect("a file").set_len(1).expect("cut");
    let store = begin(root.path());
    wait(&store);
    assert_eq!(store.stats().listed_at_open, 0, "its directory is as it was");
    assert_eq!(store.cas().missing(&digests), [digests[49]]);
}

#[test]
fn after_an_end_without_order_what_is_younger_than_the_checkpoint_is_hashed() {
    let (root, digests) = closed();
    let store = begin(root.path());
    wait(&store);
    let late = store.cas().put(SHA256, b"late").expect("stored");
    // The directories of the copy have other times and inode numbers, so this copies the copy's blobs back.
    let state = fs::read(root.path().join("state")).expect("a state file");
    let index = fs::read(root.path().join("index")).expect("an index file");
    drop(store);
    let torn = file_of(root.path(), &late);
    fs::set_permissions(&torn, fs::Permissions::from_mode(0o644)).expect("chmod");
    fs::write(&torn, b"l\0\0e").expect("written");
    fs::write(root.path().join("state"), state).expect("written");
    fs::write(root.path().join("index"), index).expect("written");
    let store = begin(root.path());
    assert_eq!(store.cas().missing(&[digests[0], late]), [late], "asked while it opens");
    wait(&store);
    assert!(store.is_durable());
    let stats = store.stats();
    assert!(stats.verified_at_open > 0 && stats.removed_at_open == 1, "{stats:?}");
    assert_eq!(store.cas().missing(&digests), []);
}

#[test]
fn a_copied_root_and_a_damaged_index_are_listed() {
    let (root, digests) = closed();
    let copy = temp_dir();
    copy_tree(root.path(), copy.path());
    let store = begin(copy.path());
    assert_eq!(store.cas().missing(&digests), []);
    wait(&store);
    assert_eq!(store.stats().listed_at_open, 1024);
    drop(store);
    let path = copy.path().join("index");
    let whole = fs::read(&path).expect("a file");
    for at in [0, 10, 20, 50, 48 + 80 * 300, whole.len() - 1] {
        let mut content = whole.clone();
        content[at] ^= 1;
        check_index(copy.path(), &content, &digests);
    }
    for end in [0, 1, 47, 48 + 80 * 1024, whole.len() - 1] {
        check_index(copy.path(), &whole[..end], &digests);
    }
    check_index(copy.path(), &[&whole[..], b"x"].concat(), &digests);
}

/// Opens a store whose index is damaged.
fn check_index(root: &Path, content: &[u8], digests: &[Digest]) {
    fs::write(root.join("index"), content).expect("written");
    let store = begin(root);
    assert_eq!(store.cas().missing(digests), []);
    wait(&store);
    assert!(store.stats().listed_at_open > 0);
    assert_eq!(store.stats().blobs, 1002);
}

#[test]
fn a_directory_that_can_not_be_listed_is_told() {
    let (root, _) = closed();
    let shard = root.path().join("cas/blobs/sha256/00");
    fs::rename(&shard, root.path().join("moved")).expect("moved");
    fs::write(&shard, b"").expect("written");
    let store = begin(root.path());
    let failure = loop {
        if let Some(failure) = store.take_failure() {
            break failure;
        }
        std::thread::yield_now();
    };
    assert_eq!(failure.to_string(), "can't list sha256/00");
    assert!(!store.is_open());
    let failed = Store::open(snapshot(root.path()).path(), options(BOOT)).map(drop);
    assert!(failed.is_err());
}

#[test]
fn a_store_that_is_closed_while_it_opens_can_be_opened_again() {
    let (root, digests) = closed();
    let state = root.path().join("state");
    let text = fs::read_to_string(&state).expect("a file").replace("clean yes", "clean no");
    fs::write(&state, &text).expect("written");
    for _ in 0..5 {
        drop(begin(root.path()));
    }
    let store = begin(root.path());
    wait(&store);
    assert_eq!(store.cas().missing(&digests), []);
    assert_eq!(store.stats().removed_at_open, 0);
}

#[test]
fn the_account_of_a_killed_server_is_that_of_its_last_second() {
    let (root, _) = closed();
    let store = begin(root.path());
    wait(&store);
    let before = store.stats().used_bytes;
    for number in 2000..2500 {
        store.cas().put(SHA256, &content(number)).expect("stored");
    }
    let used = store.stats().used_bytes;
    assert!(used > before);
    let noted = format!("actiond used 1\nbytes {used:020}\n");
    while fs::read_to_string(root.path().join("used")).ok().as_deref() != Some(&noted) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // The index is that of the start.
    let left = snapshot(root.path());
    let after = begin(left.path());
    assert!(after.stats().used_bytes >= used, "before the directories were listed as well");
    wait(&after);
    assert_eq!(after.stats().used_bytes, used, "and nothing is charged twice");
}
