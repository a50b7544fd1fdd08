//! The files in which a store keeps its state, its index and its account: a store opens whatever they hold, and serves no
//! blob that is not what its digest says.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use fuzz::Choices;
use libfuzzer_sys::fuzz_target;
use model::{Digest, DigestFunction};
use store::fuzzing::seal_index;
use store::{Store, StoreOptions};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const BLOBS: [&[u8]; 3] = [b"a", b"another", &[7; 5000]];

/// The store of this process, and an index of it.
struct World {
    root: PathBuf,
    index: Vec<u8>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let root = std::env::temp_dir().join(format!("fuzz-store-{}", std::process::id()));
    let store = open(&root, false);
    fill(&store);
    drop(store);
    let index = std::fs::read(root.join("index")).expect("an index is written at the end");
    World { root, index }
});

fn open(root: &Path, in_background: bool) -> Arc<Store> {
    let options = StoreOptions { opens_in_background: in_background, ..StoreOptions::default() };
    Store::open(root, options).expect("no state keeps a store closed")
}

fn fill(store: &Store) {
    for blob in BLOBS {
        let digest = store.cas().put(FUNCTION, blob).expect("stored");
        store.action_cache().put("", &digest, blob).expect("stored");
    }
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let kind = choices.byte();
    let World { root, index } = &*WORLD;
    let state_bytes = usize::from(choices.byte());
    std::fs::write(root.join("state"), choices.bytes(state_bytes)).expect("written");
    let other_bytes = usize::from(choices.byte() % 32);
    let other = ["used", "size", "scrub"][usize::from(kind >> 2) % 3];
    std::fs::write(root.join(other), choices.bytes(other_bytes)).expect("written");
    let mut index = index.clone();
    // The entries of directories are 80 bytes each from the 48th on, and their records are at the end.
    while !choices.is_empty() {
        let place = u32::from_le_bytes([choices.byte(), choices.byte(), choices.byte(), 0]);
        let at = match place % 2 {
            0 => place as usize % index.len(),
            _ => index.len() - 1 - place as usize % (index.len() / 256),
        };
        index[at] = choices.byte();
    }
    if kind.is_multiple_of(2) {
        seal_index(&mut index);
    }
    std::fs::write(root.join("index"), &index).expect("written");
    let store = open(root, kind & 2 != 0);
    for blob in BLOBS {
        let digest = Digest::of(FUNCTION, blob);
        let read = store.cas().read(&digest).expect("read");
        assert!(read.is_none_or(|read| read == blob), "{digest} is something else");
        let result = store.action_cache().get("", &digest).expect("read");
        assert!(result.is_none_or(|result| result == blob), "the result of {digest}");
    }
    let absent = Digest::of(FUNCTION, b"absent");
    assert_eq!(store.cas().read(&absent).expect("read"), None);
    // An index that was not true is mended by what is stored.
    fill(&store);
    for blob in BLOBS {
        let read = store.cas().read(&Digest::of(FUNCTION, blob)).expect("read");
        assert!(read.is_some_and(|read| read == blob), "it was stored just now");
    }
    store.close().expect("it closes");
});
