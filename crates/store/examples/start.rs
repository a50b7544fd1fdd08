//! The cost of a start: `cargo run --release -p store --example start -- fill DIR BLOBS`, then
//! `… -- open DIR`, with a cold or a warm cache.
//!
//! `fill` stores that many small blobs and a cached result for every tenth one. `open` opens the store as
//! a server does and prints when it could be asked, when it was open, and the memory that it took. `kill`
//! is as `open`, stores some blobs, and ends without a word.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Digest, DigestFunction};
use store::{Store, StoreOptions};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
/// Some of the blobs that `kill` stores.
const LAST_BLOBS: u64 = 20_000;

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", root, blobs] => fill(Path::new(root), blobs.parse().expect("a number")),
        ["open", root] => drop(open(Path::new(root))),
        ["kill", root] => {
            let store = open(Path::new(root));
            put(&store, u64::MAX - LAST_BLOBS, LAST_BLOBS);
            std::process::abort();
        }
        _ => panic!("use fill DIR BLOBS, open DIR, or kill DIR"),
    }
}

fn put(store: &Store, first: u64, count: u64) {
    for number in first..first + count {
        let digest = store.cas().put(FUNCTION, &number.to_le_bytes()).expect("stored");
        if number % 10 == 0 {
            store.action_cache().put("", &digest, &[7; 300]).expect("stored");
        }
    }
}

fn fill(root: &Path, blobs: u64) {
    let store = Store::open(root, StoreOptions::default()).expect("a store");
    let half = blobs / 2;
    std::thread::scope(|scope| {
        scope.spawn(|| put(&store, 0, half));
        put(&store, half, blobs - half);
    });
}

fn open(root: &Path) -> Arc<Store> {
    let (before, started) = (resident_bytes(), Instant::now());
    let options = StoreOptions { opens_in_background: true, ..StoreOptions::default() };
    let store = Store::open(root, options).expect("a store");
    let asked = Digest::of(FUNCTION, &1_u64.to_le_bytes());
    assert!(store.cas().contains(&asked));
    println!("can be asked after {:.3} s", started.elapsed().as_secs_f64());
    while !store.is_open() {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("open after {:.3} s", started.elapsed().as_secs_f64());
    let stats = store.stats();
    let bytes = resident_bytes() - before;
    let files = stats.blobs + stats.results;
    println!("{} blobs, {} results, {} bytes each", stats.blobs, stats.results, bytes / files);
    println!("{} hashed again", stats.verified_at_open);
    store
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = text.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4096
}
