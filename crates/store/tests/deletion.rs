//! Deleting, pinning, and the index afterwards.

mod common;

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Fixture, SHA256};
use model::Digest;
use store::{Deleted, PinSet};

struct Set(HashSet<Digest>);

impl PinSet for Set {
    fn contains(&self, digest: &Digest) -> bool {
        self.0.contains(digest)
    }
}

fn set(digests: &[Digest]) -> Arc<dyn PinSet> {
    Arc::new(Set(digests.iter().copied().collect()))
}

#[test]
fn a_deleted_blob_is_gone_from_everywhere() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let before = fixture.store.stats();
    let digest = cas.put(SHA256, b"abc").expect("stored");
    let mut open = cas.open(&digest).expect("opened").expect("there");
    let generation = cas.generation();
    assert_eq!(cas.delete(&digest).expect("deleted"), Deleted::Gone);
    assert_eq!(cas.delete(&digest).expect("asked"), Deleted::Absent);
    assert_eq!(cas.generation(), generation + 1);
    assert!(!cas.contains(&digest));
    assert!(!fixture.blob_file(&digest).exists());
    assert_eq!(fixture.store.stats(), before);
    let mut content = String::new();
    std::io::Read::read_to_string(&mut open, &mut content).expect("who reads it goes on");
    assert_eq!(content, "abc");
}

#[test]
fn deletions_and_uploads_last_over_a_restart() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let kept = cas.put(SHA256, b"kept").expect("stored");
    let deleted = cas.put(SHA256, b"deleted").expect("stored");
    let removed = cas.put(SHA256, b"removed by somebody").expect("stored");
    cas.delete(&deleted).expect("deleted");
    let fixture = fixture.reopen();
    assert_eq!(fixture.store.cas().missing(&[kept, deleted]), [deleted]);
    let file = fixture.blob_file(&removed);
    drop(fixture.store);
    fs::remove_file(file).expect("removed while no server runs");
    let store = common::open(fixture.root.path());
    assert_eq!(store.cas().missing(&[kept, removed]), [removed]);
}

#[test]
fn a_pinned_blob_stays_until_the_last_pin_goes() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let digest = cas.put(SHA256, b"abc").expect("stored");
    let other = cas.put(SHA256, b"other").expect("stored");
    let first = cas.pin(set(&[digest]));
    let second = cas.pin(set(&[digest]));
    let generation = cas.generation();
    assert_eq!(cas.delete(&digest).expect("asked"), Deleted::Pinned);
    drop(first);
    assert_eq!(cas.delete(&digest).expect("asked"), Deleted::Pinned);
    assert_eq!(cas.generation(), generation);
    assert_eq!(cas.delete(&other).expect("deleted"), Deleted::Gone);
    drop(second);
    assert_eq!(cas.delete(&digest).expect("deleted"), Deleted::Gone);
}

#[test]
fn who_pins_first_and_then_finds_a_blob_keeps_it() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let digest = Digest::of(SHA256, b"contended");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    cas.put(SHA256, b"contended").expect("stored");
                    cas.delete(&digest).expect("asked");
                }
            });
        }
        for _ in 0..2_000 {
            let pin = cas.pin(set(&[digest]));
            let generation = cas.generation();
            if cas.contains(&digest) {
                assert_eq!(cas.delete(&digest).expect("asked"), Deleted::Pinned);
                let read = cas.read(&digest).expect("read");
                assert_eq!(read.expect("pinned"), "contended");
                assert_eq!(cas.generation(), generation, "nothing else is deleted");
            }
            drop(pin);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn index_and_directory_agree_after_uploads_and_deletions_at_once() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let contents: Vec<String> = (0..4).map(|number| format!("blob {number}")).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let contents = &contents;
            scope.spawn(move || {
                let mut numbers = common::Numbers(thread + 1);
                for _ in 0..1_000 {
                    let content = &contents[numbers.below(4) as usize];
                    let digest = cas.put(SHA256, content.as_bytes()).expect("stored");
                    if numbers.below(2) == 0 {
                        cas.delete(&digest).expect("deleted");
                    }
                }
            });
        }
    });
    for content in &contents {
        let digest = Digest::of(SHA256, content.as_bytes());
        let is_file = fixture.blob_file(&digest).exists();
        assert_eq!(cas.contains(&digest), is_file, "{content}");
    }
    assert_eq!(fixture.blob_files().len() as u64, fixture.store.stats().blobs);
}
