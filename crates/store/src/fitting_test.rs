//! A build whose files fit into the store with 2 % to spare, in a store that is full of older content.

use std::path::Path;
use std::sync::Arc;

use model::{Digest, DigestFunction};

use crate::recency::{Tick, Usage};
use crate::size::StoreSize;
use crate::store::{Store, StoreOptions};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const MINUTE: Tick = 600;
/// The numbers of the older blobs begin here.
const OLDER: u64 = 1 << 32;
/// Sizes of the build's blobs: less than a block, a little more than some blocks, and more than the marks are apart.
const SIZES: [usize; 6] = [100, 4097, 65_536, 20_000, 500_000, 3_000_000];

fn open(root: &Path, limit: u64) -> Arc<Store> {
    let size = StoreSize::Bytes(limit);
    Store::open(root, StoreOptions { size, ..StoreOptions::default() }).expect("the store opens")
}

fn content(number: u64) -> Vec<u8> {
    let size = SIZES[number as usize % SIZES.len()];
    let mut content = number.to_le_bytes().repeat(size / 8 + 1);
    content.truncate(size);
    content
}

/// A build: blobs that are stored at once, new blobs that grow, and a cached result for each. (A client does not send what the
/// store says it has. It would be charged a second time until it is complete.)
fn build(store: &Store, blobs: u64) -> Vec<Digest> {
    (0..blobs)
        .map(|number| {
            let content = content(number);
            let is_there = store.cas().index().contains(&Digest::of(FUNCTION, &content));
            let digest = if number % 2 == 0 || is_there {
                store.cas().put(FUNCTION, &content).expect("room is made")
            } else {
                let mut writer = store.cas().writer(FUNCTION, None);
                content.chunks(50_000).for_each(|piece| writer.write(piece).expect("written"));
                writer.commit().expect("room is made")
            };
            store.action_cache().put("", &digest, b"result").expect("room is made");
            digest
        })
        .collect()
}

/// Stores blobs until some were evicted. They were used an hour ago, or a minute.
fn fill(store: &Store) {
    for number in OLDER.. {
        if store.stats().evicted_blobs > 0 {
            break;
        }
        let digest = store.cas().put(FUNCTION, &content(number)).expect("room is made");
        let idle = if number % 3 == 0 { MINUTE } else { 60 * MINUTE };
        let last_use = store.evictor().clock.now() - idle;
        store.cas().index().insert(&digest, Usage::recorded(last_use, number % 2 == 0));
    }
}

#[test]
fn a_build_with_two_percent_to_spare_loses_nothing_beside_older_content() {
    for blobs in [60, 250] {
        let root = tempfile::tempdir().expect("a directory");
        let store = open(root.path(), 1 << 30);
        build(&store, blobs);
        let used = store.stats().used_bytes;
        drop(store);
        drop(root);

        let root = tempfile::tempdir().expect("a directory");
        let store = open(root.path(), used * 100 / 98);
        fill(&store);
        let before = store.stats();
        for round in 0..2 {
            let digests = build(&store, blobs);
            let lost = digests.iter().filter(|blob| !store.cas().index().contains(blob)).count();
            assert_eq!(lost, 0, "{blobs} blobs, round {round}: {:?}", store.stats());
            for digest in &digests {
                let result = store.action_cache().get("", digest).expect("read");
                assert!(result.is_some(), "{blobs} blobs, round {round}");
            }
        }
        assert!(store.stats().evicted_blobs > before.evicted_blobs, "{:?}", store.stats());
    }
}
