//! A file system that is full, in earnest: a small tmpfs that no other process sees.

mod common;

use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use common::{SHA256, open, options, small_tmpfs};
use store::{Store, StoreError, StoreOptions, StoreSize};

/// Different content for every number.
fn content(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(256 * 1024 / 4)
}

#[test]
fn a_full_disk_is_an_error_that_leaves_no_trace_and_passes() {
    let mount = small_tmpfs("8m", "100k");
    let store = open(&PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())));
    let cas = store.cas();
    let mut stored = Vec::new();
    let error = loop {
        match cas.put(SHA256, &content(stored.len() as u32)) {
            Ok(digest) => stored.push(digest),
            Err(error) => break error,
        }
        assert!(stored.len() < 100, "the disk never fills up");
    };
    assert!(error.is_exhausted(), "{error}");
    assert_eq!(store.stats().blobs, stored.len() as u64 + 2, "and the empty ones");
    for digest in &stored {
        assert!(cas.read(digest).expect("read").is_some());
    }

    let mut writer = cas.writer(SHA256, None);
    let written = (1000..1100).try_for_each(|number| writer.write(&content(number)));
    assert!(written.is_err_and(|error| error.is_exhausted()));
    drop(writer);
    let action = stored[0];
    let result = store.action_cache().put("", &action, &content(0).repeat(40));
    assert!(result.is_err_and(|error: StoreError| error.is_exhausted()));
    assert!(store.action_cache().get("", &action).expect("read").is_none());

    cas.delete(&stored[0]).expect("deleted");
    cas.put(SHA256, &content(5000)).expect("there is room again");
}

/// Opens a store on a file system that somebody else has filled, with blocks or inodes.
fn check_start(inodes: &str, fill: impl Fn(&Path)) {
    let mount = small_tmpfs("8m", inodes);
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let root = path.join("root");
    let bounded = || {
        let size = StoreSize::Bytes(64 << 20);
        Store::open(&root, StoreOptions { size, ..options(common::BOOT) })
    };
    let store = bounded().expect("a new store");
    let blobs: Vec<_> =
        (0..4).map(|n| store.cas().put(SHA256, &content(n)).expect("stored")).collect();
    let pin_me = blobs[3];
    drop(store);
    fill(&path);
    assert!(std::fs::write(path.join("one more"), "x").is_err(), "it is full");
    let store = bounded().expect("a full file system is no reason not to start");
    let cas = store.cas();
    let left: Vec<_> = blobs.iter().filter(|blob| cas.contains(blob)).collect();
    assert!(left.len() < 4, "room was made");
    for blob in left {
        assert!(cas.read(blob).expect("read").is_some());
        cas.delete(blob).expect("deleted");
    }
    std::fs::remove_dir_all(path.join("filler")).expect("removed");
    cas.put(SHA256, &content(3)).expect("there is room again");
    assert!(cas.contains(&pin_me));
}

#[test]
fn a_store_opens_on_a_disk_without_blocks() {
    check_start("100k", |path| {
        let filler = path.join("filler");
        std::fs::create_dir(&filler).expect("a directory");
        let mut file = std::fs::File::create(filler.join("file")).expect("a file");
        while file.write_all(&[1; 4096]).is_ok() {}
    });
}

#[test]
fn a_store_opens_on_a_disk_without_inodes() {
    check_start("1200", |path| {
        let filler = path.join("filler");
        std::fs::create_dir(&filler).expect("a directory");
        for number in 0.. {
            if std::fs::write(filler.join(number.to_string()), "").is_err() {
                break;
            }
        }
    });
}

#[test]
fn a_store_on_a_full_disk_closes_in_order() {
    let mount = small_tmpfs("8m", "100k");
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let root = path.join("root");
    let store = open(&root);
    let blob = store.cas().put(SHA256, &content(1)).expect("stored");
    let mut filler = std::fs::File::create(path.join("filler")).expect("a file");
    while filler.write_all(&[1; 4096]).is_ok() {}
    while filler.write_all(&[1]).is_ok() {}
    assert!(std::fs::write(root.join("one more"), "x").is_err(), "it is full");
    store.close().expect("a full disk is no fault of the store");
    drop(store);

    let state =
        std::fs::read_to_string(root.join("state")).expect("the record of the start stands");
    assert!(!state.contains("clean yes"), "{state}");
    let store = open(&root);
    assert_eq!(store.cas().read(&blob).expect("read").expect("it is there"), content(1));
}
