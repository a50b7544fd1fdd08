//! Cached results: one of them, whole, or none.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use bytes::Bytes;
use common::{BLAKE3, Fixture, SHA256};
use model::Digest;
use store::{ENTRY_BYTES_MAX, StoreError, StoreView};

fn action() -> Digest {
    Digest::of(SHA256, b"action")
}

fn entry_files(fixture: &Fixture) -> Vec<PathBuf> {
    common::files(&fixture.root.path().join("ac"))
}

#[test]
fn values_of_every_size_round_trip_and_last() {
    let fixture = Fixture::new();
    let sizes = [0, 1, 4000, 4040, 4041, 5000, 3_000_000];
    let action = |size: usize| Digest::of(SHA256, &size.to_le_bytes());
    let value = |size: usize| vec![size as u8; size];
    for size in sizes {
        let cache = fixture.store.action_cache();
        assert!(cache.get("", &action(size)).expect("asked").is_none());
        cache.put("", &action(size), &value(size)).expect("stored");
    }
    let fixture = fixture.reopen();
    for size in sizes {
        let found = fixture.store.action_cache().get("", &action(size));
        assert!(found.expect("read").expect("there") == value(size), "{size}");
    }
    assert_eq!(common::files(&fixture.root.path().join("tmp")).len(), 0);
}

#[test]
fn instances_functions_and_sizes_are_kept_apart() {
    let fixture = Fixture::new();
    let cache = fixture.store.action_cache();
    let other_size = Digest::new(SHA256, *action().hash(), 1);
    let other_function = Digest::new(BLAKE3, *action().hash(), action().size_bytes());
    let keys = [
        ("", action()),
        ("main", action()),
        ("../../../etc", action()),
        ("main/sub", action()),
        ("", other_size),
        ("", other_function),
    ];
    for (number, (instance, action)) in keys.iter().enumerate() {
        cache.put(instance, action, &[number as u8]).expect("stored");
    }
    for (number, (instance, action)) in keys.iter().enumerate() {
        let value = cache.get(instance, action).expect("read").expect("there");
        assert_eq!(value, [number as u8][..]);
    }
    assert_eq!(entry_files(&fixture).len(), keys.len());
    assert!(cache.delete("main", &action()).expect("deleted"));
    assert!(!cache.delete("main", &action()).expect("asked"));
    assert!(cache.get("main", &action()).expect("read").is_none());
    assert!(cache.get("", &action()).expect("read").is_some());
}

#[test]
fn an_entry_is_a_read_only_file_of_root() {
    let fixture = Fixture::new();
    let cache = fixture.store.action_cache();
    cache.put("", &action(), b"value").expect("stored");
    let stat = fs::metadata(&entry_files(&fixture)[0]).expect("a file");
    assert_eq!((stat.mode(), stat.uid(), stat.nlink()), (0o100_400, 0, 1));
}

/// An entry in whose place something else stands is absent, nothing waits for it, and the next result replaces it.
#[test]
fn what_is_no_entry_under_its_name_is_removed() {
    let fixture = Fixture::new();
    let cache = fixture.store.action_cache();
    cache.put("", &action(), b"value").expect("stored");
    let file = entry_files(&fixture).remove(0);
    let replacements: [fn(&std::path::Path); 3] = [
        |path| fs::create_dir(path).expect("a directory"),
        |path| std::os::unix::fs::symlink("/etc/passwd", path).expect("a link"),
        |path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).expect("a pipe");
        },
    ];
    for replace in replacements {
        fs::remove_file(&file).expect("removed");
        replace(&file);
        assert!(cache.get("", &action()).expect("read").is_none());
        assert!(fs::symlink_metadata(&file).is_err(), "it is removed");
        cache.put("", &action(), b"value").expect("stored anew");
        assert_eq!(cache.get("", &action()).expect("read").expect("there"), "value");
    }
}

#[test]
fn a_torn_entry_reads_as_absent_and_is_removed() {
    let fixture = Fixture::new();
    let cache = fixture.store.action_cache();
    let value = vec![42; 10_000];
    cache.put("", &action(), &value).expect("stored");
    let file = entry_files(&fixture).remove(0);
    let whole = fs::read(&file).expect("an entry");
    let mut flipped = whole.clone();
    flipped[9_000] ^= 1;
    let mut longer = whole.clone();
    longer.push(0);
    let mut zeros = whole.clone();
    zeros[..4096].fill(0);
    let torn = [&whole[..0], &whole[..20], &whole[..56], &whole[..4096], &whole[..9_999]];
    for content in torn.into_iter().chain([&flipped[..], &longer, &zeros]) {
        fs::write(&file, content).expect("root may");
        assert!(cache.get("", &action()).expect("read").is_none());
        assert!(!file.exists(), "{} bytes", content.len());
        cache.put("", &action(), &value).expect("stored anew");
        let read = cache.get("", &action()).expect("read").expect("there");
        assert!(read == value);
    }
}

/// The answer of a view that never waits; `Err` when it would have to wait.
fn known(read: Result<Option<Bytes>, StoreError>) -> Result<Option<Bytes>, ()> {
    read.map_err(|error| assert!(matches!(error, StoreError::WouldWait), "{error}"))
}

#[test]
fn a_small_entry_that_is_in_memory_is_read_without_waiting() {
    // Not in memory as the others are: a tmpfs can't be read this way.
    let root = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let fixture = Fixture { store: common::open(root.path()), root };
    let cache = fixture.store.action_cache();
    let read = |instance| known(fixture.store.resident().cached_result(instance, &action()));
    assert_eq!(read(""), Err(()), "never looked for");
    assert_eq!(cache.get("", &action()).expect("a look"), None);
    assert_eq!(read(""), Ok(None), "remembered to be absent");
    for size in [0, 1, 4000] {
        cache.put("", &action(), &vec![7; size]).expect("stored");
        assert_eq!(read(""), Ok(Some(vec![7; size].into())));
    }
    assert_eq!(read("other"), Err(()));
    cache.put("", &action(), &[7; 5000]).expect("stored");
    assert_eq!(read(""), Err(()), "not small");
    cache.put("", &action(), b"value").expect("stored");
    let file = entry_files(&fixture).remove(0);
    let whole = fs::read(&file).expect("an entry");
    fs::write(&file, &whole[1..]).expect("root may");
    assert_eq!(read(""), Err(()), "damaged");
}

#[test]
fn an_entry_of_another_action_reads_as_absent() {
    let fixture = Fixture::new();
    let cache = fixture.store.action_cache();
    let other = Digest::of(SHA256, b"other");
    cache.put("", &action(), b"value").expect("stored");
    let from = entry_files(&fixture).remove(0);
    cache.put("", &other, b"other value").expect("stored");
    let to = entry_files(&fixture).into_iter().find(|file| *file != from);
    fs::copy(&from, to.expect("two entries")).expect("root may");
    assert!(cache.get("", &other).expect("read").is_none());
}

#[test]
fn a_reader_sees_the_old_value_or_the_new_one() {
    let fixture = Fixture::new();
    let cache = fixture.store.action_cache();
    let value = |number: u8| vec![number; 5_000 + usize::from(number)];
    cache.put("", &action(), &value(0)).expect("stored");
    std::thread::scope(|scope| {
        for writer in 0..2 {
            scope.spawn(move || {
                for number in 0..200 {
                    cache.put("", &action(), &value(number | writer)).expect("stored");
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..1_000 {
                let read = cache.get("", &action()).expect("read").expect("always there");
                assert!(read == value(read[0]));
            }
        });
    });
}

#[test]
fn a_value_over_the_limit_is_refused() {
    let fixture = Fixture::new();
    let cache = fixture.store.action_cache();
    let value = vec![0; ENTRY_BYTES_MAX as usize + 1];
    let error = cache.put("", &action(), &value).expect_err("refused");
    assert!(matches!(error, StoreError::EntryTooLarge { .. }), "{error}");
    cache.put("", &action(), &value[1..]).expect("stored");
    let read = cache.get("", &action()).expect("read").expect("there");
    assert_eq!(read.len() as u64, ENTRY_BYTES_MAX);
}
