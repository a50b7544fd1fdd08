//! A store with a bound: it holds, and what must stay stays.

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use common::{Numbers, SHA256, files, options};
use model::Digest;
use store::{Goals, PinSet, Shortage, Store, StoreError, StoreOptions, StoreSize};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 32 * MIB;
/// The space of the store's directories, a block each.
const DIRECTORIES: u64 = 4 * MIB;

fn open(root: &Path) -> Arc<Store> {
    let size = StoreSize::Bytes(LIMIT);
    Store::open(root, StoreOptions { size, ..options(common::BOOT) }).expect("the store opens")
}

fn content(number: u64, size: usize) -> Vec<u8> {
    let mut content = number.to_le_bytes().repeat(size / 8 + 1);
    content.truncate(size);
    content
}

/// The blocks of all blobs and cached results.
fn on_disk(root: &Path) -> u64 {
    let blocks = |file| std::fs::metadata(file).map_or(0, |file: std::fs::Metadata| file.blocks());
    ["cas", "ac"].iter().flat_map(|name| files(&root.join(name))).map(blocks).sum::<u64>() * 512
}

struct Everything;

impl PinSet for Everything {
    fn contains(&self, _: &Digest) -> bool {
        true
    }
}

struct Pinned(Vec<Digest>);

impl PinSet for Pinned {
    fn contains(&self, digest: &Digest) -> bool {
        self.0.contains(digest)
    }
}

#[test]
fn a_flood_of_any_kind_stays_within_the_bound() {
    let root = common::temp_dir();
    let store = open(root.path());
    let cas = store.cas();
    for number in 0..600 {
        let size = [1, 5000, 100_000, 400_000][number as usize % 4];
        let content = content(number, size);
        match number % 3 {
            0 => drop(cas.put(SHA256, &content).expect("room is made")),
            1 => {
                let mut writer = cas.writer(SHA256, None);
                content.chunks(50_000).for_each(|piece| writer.write(piece).expect("written"));
                writer.commit().expect("room is made");
            }
            _ => {
                let action = Digest::of(SHA256, &content);
                store.action_cache().put("", &action, &content).expect("room is made");
            }
        }
        assert!(store.stats().used_bytes <= LIMIT);
        if number % 20 == 0 {
            assert!(on_disk(root.path()) + DIRECTORIES <= LIMIT, "{number}");
        }
    }
    assert!(store.stats().evicted_blobs > 100, "{:?}", store.stats());
    let used = store.stats().used_bytes;
    drop(store);
    // The evictor may have gone on until the store was closed.
    let counted = open(root.path()).stats().used_bytes;
    assert!(counted <= used, "{used} in use, {counted} counted anew");
    let on_disk = on_disk(root.path());
    assert!(counted >= on_disk, "{counted} counted anew, {on_disk} on the disk");
    // Nothing is to be evicted now, so the running account and a new count agree to the byte.
    let store = open(root.path());
    store.cas().put(SHA256, &content(1_000, 5000)).expect("there is room");
    let used = store.stats().used_bytes;
    drop(store);
    assert_eq!(open(root.path()).stats().used_bytes, used, "counted anew");
}

#[test]
fn what_fits_with_two_percent_to_spare_is_never_evicted() {
    let root = common::temp_dir();
    let store = open(root.path());
    let room = (LIMIT - DIRECTORIES) * 98 / 100 - LIMIT / 64;
    // The cost of a blob of 16 blocks by the account.
    let blobs = room / (65_536 + 512);
    for round in 0..3 {
        for number in 0..blobs {
            store.cas().put(SHA256, &content(number, 65_536)).expect("stored");
        }
        assert_eq!(store.stats().evicted_blobs, 0, "round {round}");
    }
    assert_eq!(store.stats().blobs, blobs + 2, "and the empty ones");
}

#[test]
fn pinned_blobs_stay_and_uploads_are_refused_when_nothing_else_is_left() {
    let root = common::temp_dir();
    let store = open(root.path());
    let cas = store.cas();
    let pin = cas.pin(Arc::new(Everything));
    let mut stored = Vec::new();
    let error = loop {
        match cas.put(SHA256, &content(stored.len() as u64, 300_000)) {
            Ok(digest) => stored.push(digest),
            Err(error) => break error,
        }
        assert!(stored.len() < 1000, "the bound does not hold");
    };
    assert!(matches!(error, StoreError::Full(Shortage::Limit { bytes: LIMIT })), "{error}");
    assert!(error.is_exhausted() && error.to_string().contains("--cas-size"), "{error}");
    assert_eq!(store.stats().failed_writes.over_limit, 1);
    // All else goes on: reading, and storing what is there.
    for (number, digest) in stored.iter().enumerate() {
        assert!(cas.read(digest).expect("read").is_some());
        cas.put(SHA256, &content(number as u64, 300_000)).expect("is there already");
    }
    let mut writer = cas.writer(SHA256, None);
    let large = content(7, 1 << 20);
    let written = (0..).map(|_| writer.write(&large)).take(100).find(Result::is_err);
    assert!(matches!(written, Some(Err(StoreError::Full(_)))), "a large upload as well");
    drop(writer);
    drop(pin);
    cas.put(SHA256, &content(5000, 300_000)).expect("there is room again");
    assert!(store.stats().evicted_blobs > 0);
}

#[test]
fn a_smaller_bound_is_kept_from_the_start() {
    let root = common::temp_dir();
    let store = open(root.path());
    for number in 0..70 {
        store.cas().put(SHA256, &content(number, 300_000)).expect("stored");
    }
    assert!(store.stats().used_bytes > 20 * MIB);
    drop(store);
    let options = StoreOptions { size: StoreSize::Bytes(16 * MIB), ..options(common::BOOT) };
    let store = Store::open(root.path(), options).expect("the store opens");
    assert!(store.stats().used_bytes <= 16 * MIB);
    assert!(on_disk(root.path()) + DIRECTORIES <= 16 * MIB);
}

#[test]
fn an_incomplete_result_is_removed_unless_it_was_replaced() {
    let root = common::temp_dir();
    let store = open(root.path());
    let cache = store.action_cache();
    let action = Digest::of(SHA256, b"action");
    cache.put("", &action, b"new").expect("stored");
    cache.remove_incomplete("", &action, b"old").expect("asked");
    assert!(cache.get("", &action).expect("read").is_some());
    cache.remove_incomplete("", &action, b"new").expect("asked");
    assert_eq!(cache.get("", &action).expect("read"), None);
}

/// Random operations on a store whose bound is a third of what they touch, against a plain map.
#[test]
fn the_bounded_store_never_lies() {
    for seed in [3, 99, 20_261_129] {
        let root = common::temp_dir();
        let mut numbers = Numbers(seed);
        let mut store = open(root.path());
        let mut pins: Vec<(store::Pin, Vec<Digest>)> = Vec::new();
        let mut stored: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        let mut evicted = 0;
        for step in 0..1000 {
            let number = numbers.below(400);
            let content = content(number, 1 + (number as usize * 7919) % 400_000);
            let digest = Digest::of(SHA256, &content);
            let cas = store.cas().clone();
            match numbers.below(100) {
                0..50 => {
                    // All blobs are of one second, so a pass of this moment may take this one as well.
                    let is_kept = (0..10).any(|_| {
                        cas.put(SHA256, &content).expect("room is made");
                        cas.contains(&digest)
                    });
                    assert!(is_kept, "what was stored a moment ago is there");
                    stored.insert(digest, content);
                }
                50..60 => {
                    // First pinned, then found present: it stays.
                    let set = vec![digest];
                    let pin = cas.pin(Arc::new(Pinned(set.clone())));
                    if cas.contains(&digest) && pins.len() < 10 {
                        pins.push((pin, set));
                    }
                }
                60..70 => drop(pins.pop()),
                70..95 => {
                    let was_there = cas.contains(&digest);
                    let read = cas.read(&digest).expect("read");
                    assert!(read.is_none() || was_there);
                    if let Some(read) = read {
                        assert!(stored.get(&digest).is_some_and(|content| *content == read));
                    }
                }
                95..99 => {
                    cas.delete(&digest).expect("asked");
                }
                _ => {
                    pins.clear();
                    evicted += store.stats().evicted_blobs;
                    drop(cas);
                    drop(store);
                    store = open(root.path());
                }
            }
            for (_, set) in &pins {
                for digest in set {
                    assert!(
                        store.cas().contains(digest),
                        "seed {seed}, step {step}: a pinned blob is gone"
                    );
                }
            }
            assert!(store.stats().used_bytes <= LIMIT, "seed {seed}, step {step}");
        }
        assert!(evicted + store.stats().evicted_blobs > 0, "seed {seed}");
        for digest in pins.iter().flat_map(|(_, set)| set) {
            assert!(store.cas().read(digest).expect("read").is_some(), "seed {seed}");
        }
        drop(pins);
        // The evictor makes room ahead of need at any moment, until there is more than that. A pass that is under way ends
        // with the store.
        let goals = Goals { used_bytes_max: Some(LIMIT / 2), ..Goals::default() };
        store.collect_garbage(goals, |_| ControlFlow::Continue(())).expect("collected");
        drop(store);
        let store = open(root.path());
        let used = store.stats().used_bytes;
        drop(store);
        assert_eq!(open(root.path()).stats().used_bytes, used, "seed {seed}: the account is right");
    }
}
