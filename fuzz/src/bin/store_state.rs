//! The files in which a store keeps its state and its last uses: a store opens whatever they hold.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use store::{Store, StoreOptions};

/// The store of this process.
static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = std::env::temp_dir().join(format!("fuzz-store-{}", std::process::id()));
    open(&root);
    root
});

fn open(root: &PathBuf) {
    let store = Store::open(root, StoreOptions::default()).expect("no state keeps a store closed");
    store.close().expect("it closes");
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (state, access) = input;
    let root = &*ROOT;
    std::fs::write(root.join("state"), state).expect("the file can be written");
    std::fs::write(root.join("access"), access).expect("the file can be written");
    open(root);
});
