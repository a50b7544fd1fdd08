//! The scrub, which reads what nobody else reads.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use common::{BOOT, SHA256, options};
use store::{BlobPath, Store, StoreOptions};

/// A bound for the wait that no working machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_rots_on_the_disk_is_found_and_can_be_uploaded_again() {
    let root = common::temp_dir();
    let open = |scrub_period| {
        let options = StoreOptions { scrub_period, ..options(BOOT) };
        Store::open(root.path(), options).expect("the store opens")
    };
    let store = open(None);
    let content = |number: u8| vec![number; 100_000];
    let blobs: Vec<_> =
        (0..20).map(|n| store.cas().put(SHA256, &content(n)).expect("stored")).collect();
    store.close().expect("closed");
    let path = store.cas().blobs_path().join(BlobPath::new(&blobs[7]).as_str());
    drop(store);
    // While nobody watches, as a disk does it.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let file = OpenOptions::new().write(true).open(&path).expect("a file");
    file.write_all_at(b"X", 50_000).expect("written");
    drop(file);

    let store = open(None);
    assert!(store.cas().contains(&blobs[7]), "nobody has noticed");
    assert_eq!(store.stats().scrubbed_blobs, 0, "it is off");
    drop(store);
    let store = open(Some(Duration::from_millis(1)));
    eventually("the damaged blob is missing", || !store.cas().contains(&blobs[7]));
    eventually("all were read", || store.stats().scrubbed_blobs >= 22);
    let stats = store.stats();
    assert_eq!((stats.quarantined_blobs, stats.quarantine_files), (1, 1));
    let is_there = |digest: &&model::Digest| store.cas().contains(digest);
    assert_eq!(blobs.iter().filter(is_there).count(), 19, "and no other one");
    store.cas().put(SHA256, &content(7)).expect("stored");
    assert_eq!(store.cas().read(&blobs[7]).expect("read").as_deref(), Some(&*content(7)));
    store.close().expect("the scrub ends");
    let position = std::fs::read_to_string(root.path().join("scrub")).expect("a position");
    assert!(position.starts_with("actiond scrub 1\n"), "{position}");
}
