//! Blobs: verified, whole, and known to be there or not.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use bytes::Bytes;
use common::{BLAKE3, Fixture, SHA256};
use model::{Digest, DigestFunction};
use store::{Deleted, StoreError, StoreView};

/// Sizes around every bound that the store has inside.
const SIZES: [usize; 8] = [0, 1, 4095, 65_535, 65_536, 65_537, 262_145, 3_000_000];

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 7 + size) as u8).collect()
}

#[test]
fn blobs_of_every_size_round_trip() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    for function in DigestFunction::ALL {
        for size in SIZES {
            let content = content(size);
            let digest = cas.put(function, &content).expect("stored");
            assert_eq!(digest, Digest::of(function, &content));
            assert!(cas.contains(&digest));
            let read = cas.read(&digest).expect("read").expect("there");
            assert!(read == content, "{function} {size}");
            let mut file = cas.open(&digest).expect("opened").expect("there");
            let mut read = Vec::new();
            file.read_to_end(&mut read).expect("read");
            assert!(read == content, "{function} {size}");
        }
    }
}

#[test]
fn a_writer_takes_pieces_of_every_size() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    for size in SIZES {
        for piece in [1 << 20, 65_536, 1000_usize] {
            let mut content = content(size);
            content.extend(piece.to_le_bytes());
            let expected = Digest::of(SHA256, &content);
            let mut writer = cas.writer(SHA256, Some(expected));
            let (begin, rest) = content.split_at(content.len() / 3);
            for piece in begin.chunks(piece) {
                writer.write(piece).expect("written");
            }
            let pieces: Vec<&[u8]> = rest.chunks(piece).collect();
            for pieces in pieces.chunks(7) {
                writer.write_pieces(pieces).expect("written");
            }
            assert_eq!(writer.written(), content.len() as u64);
            assert!(!cas.contains(&expected), "not visible before it is whole");
            assert_eq!(writer.commit().expect("stored"), expected);
            assert!(cas.read(&expected).expect("read").expect("there") == content);
        }
    }
}

#[test]
fn a_blob_is_a_read_only_file_of_root_with_one_name() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let small = cas.put(SHA256, b"abc").expect("stored");
    let large = cas.put(SHA256, &content(1_000_000)).expect("stored");
    let empty = Digest::empty(BLAKE3);
    for digest in [small, large, empty] {
        let stat = fs::metadata(fixture.blob_file(&digest)).expect("a file");
        assert_eq!(stat.permissions().mode(), 0o100_444);
        assert_eq!((stat.uid(), stat.gid(), stat.nlink()), (0, 0, 1));
        assert_eq!(stat.len(), digest.size_bytes());
    }
}

#[test]
fn what_is_wrong_leaves_no_trace() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let before = fixture.blob_files();
    for size in [10, 500_000] {
        let content = content(size);
        let right = Digest::of(SHA256, &content);
        let wrong_hash = Digest::new(SHA256, [7; 32], size as u64);
        let longer = Digest::new(SHA256, *right.hash(), size as u64 + 1);
        let shorter = Digest::new(SHA256, *right.hash(), size as u64 - 1);
        for wrong in [wrong_hash, longer, shorter] {
            let error = cas.put_expected(&wrong, &content).expect_err("refused");
            assert!(matches!(error, StoreError::DigestMismatch { .. }), "{error}");
        }
        for wrong in [wrong_hash, longer] {
            let mut writer = cas.writer(SHA256, Some(wrong));
            writer.write(&content).expect("written");
            let error = writer.commit().expect_err("refused");
            assert!(matches!(error, StoreError::DigestMismatch { .. }), "{error}");
        }
        let mut writer = cas.writer(SHA256, Some(shorter));
        let error = writer.write(&content).expect_err("refused at once");
        assert!(matches!(error, StoreError::TooManyBytes { .. }), "{error}");
        drop(writer);
        let mut given_up = cas.writer(SHA256, Some(right));
        given_up.write(&content[..size / 2]).expect("written");
        drop(given_up);
        for digest in [right, wrong_hash, longer, shorter] {
            assert!(!cas.contains(&digest));
            assert!(cas.read(&digest).expect("read").is_none());
        }
    }
    assert_eq!(fixture.blob_files(), before);
    assert_eq!(common::files(&fixture.root.path().join("tmp")).len(), 0);
}

#[test]
fn a_known_hash_with_another_size_is_absent() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let digest = cas.put(SHA256, b"abc").expect("stored");
    let forged = Digest::new(SHA256, *digest.hash(), 4);
    assert!(!cas.contains(&forged));
    assert!(cas.read(&forged).expect("read").is_none());
    assert!(cas.open(&forged).expect("opened").is_none());
    assert_eq!(cas.delete(&forged).expect("asked"), Deleted::Absent);
    assert!(cas.contains(&digest));
    let empty = Digest::new(SHA256, *digest.hash(), 0);
    assert!(cas.read(&empty).expect("read").is_none());
    assert_eq!(cas.missing(&[forged, digest, empty]), [forged, empty]);
}

#[test]
fn what_is_there_is_not_written_again() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let content = content(100_000);
    let digest = cas.put(SHA256, &content).expect("stored");
    let inode = |fixture: &Fixture| {
        let stat = fs::metadata(fixture.blob_file(&digest)).expect("a file");
        (stat.ino(), stat.ctime_nsec(), stat.nlink())
    };
    let before = inode(&fixture);
    cas.put(SHA256, &content).expect("stored");
    cas.put_expected(&digest, &content).expect("stored");
    let mut writer = cas.writer(SHA256, Some(digest));
    writer.write(&content).expect("written");
    writer.commit().expect("stored");
    assert_eq!(inode(&fixture), before);
}

#[test]
fn many_upload_one_blob_at_once() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    for round in 0..20 {
        let content = content(70_000 + round);
        let digest = Digest::of(SHA256, &content);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut writer = cas.writer(SHA256, Some(digest));
                    for piece in content.chunks(10_000) {
                        writer.write(piece).expect("written");
                    }
                    writer.commit().expect("stored");
                    assert!(cas.read(&digest).expect("read").expect("there") == content);
                });
            }
        });
    }
    let stats = fixture.store.stats();
    assert_eq!(stats.blobs, 20 + 2, "and the empty ones");
    assert_eq!(fixture.blob_files().len() as u64, stats.blobs);
}

#[test]
fn the_empty_blob_is_always_there() {
    let fixture = Fixture::new();
    for function in DigestFunction::ALL {
        let empty = Digest::empty(function);
        let cas = fixture.store.cas();
        assert!(cas.contains(&empty));
        assert_eq!(cas.read(&empty).expect("read").expect("there").len(), 0);
        assert_eq!(cas.delete(&empty).expect("asked"), Deleted::Pinned);
        // The directories of most functions are made when they are needed.
        assert!(cas.open(&empty).expect("opened").is_some());
        assert!(fixture.blob_file(&empty).exists());
        fs::remove_file(fixture.blob_file(&empty)).expect("removed from outside");
        assert!(cas.open(&empty).expect("opened").is_some());
        assert!(cas.contains(&empty));
    }
}

/// The answer of a view that never waits; `Err` when it would have to wait.
fn known(read: Result<Option<Bytes>, StoreError>) -> Result<Option<Bytes>, ()> {
    read.map_err(|error| assert!(matches!(error, StoreError::WouldWait), "{error}"))
}

#[test]
fn a_small_blob_that_is_in_memory_is_read_without_waiting() {
    // Not in memory as the others are: a tmpfs can't be read this way.
    let root = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let fixture = Fixture { store: common::open(root.path()), root };
    let cas = fixture.store.cas();
    let read = |digest: &Digest| known(fixture.store.resident().blob(digest));
    assert_eq!(read(&Digest::of(SHA256, b"absent")), Ok(None));
    for size in [1, 4096, 4097] {
        let digest = cas.put(SHA256, &content(size)).expect("stored");
        cas.read(&digest).expect("read");
        let expected = if size <= 4096 { Ok(Some(content(size).into())) } else { Err(()) };
        assert_eq!(read(&digest), expected, "{size} bytes");
    }
    let digest = cas.put(SHA256, b"abc").expect("stored");
    cas.read(&digest).expect("read");
    fs::write(fixture.blob_file(&digest), "a").expect("root may");
    assert_eq!(read(&digest), Err(()), "damaged");
}

#[test]
fn a_file_that_somebody_deleted_is_noticed() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let digest = cas.put(SHA256, b"abc").expect("stored");
    let generation = cas.generation();
    fs::remove_file(fixture.blob_file(&digest)).expect("removed");
    assert!(cas.read(&digest).expect("read").is_none());
    assert!(!cas.contains(&digest));
    assert!(cas.generation() > generation);
    cas.put(SHA256, b"abc").expect("stored anew");
    assert_eq!(cas.read(&digest).expect("read").expect("there"), "abc");
}

#[test]
fn a_file_that_somebody_truncated_is_not_served() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    type Look = fn(&store::Cas, &Digest) -> bool;
    let looks: [Look; 2] = [
        |cas, digest| cas.read(digest).expect("read").is_some(),
        |cas, digest| cas.open(digest).expect("opened").is_some(),
    ];
    for is_served in looks {
        let digest = cas.put(SHA256, b"abc").expect("stored");
        let file =
            fs::OpenOptions::new().write(true).open(fixture.blob_file(&digest)).expect("root may");
        file.set_len(1).expect("truncated");
        assert!(!is_served(cas, &digest));
        assert!(!cas.contains(&digest));
        assert!(!fixture.blob_file(&digest).exists());
    }
}

#[test]
fn a_file_in_the_way_that_is_no_blob_is_replaced() {
    let fixture = Fixture::new();
    let digest = Digest::of(SHA256, b"abc");
    fs::write(fixture.blob_file(&digest), "something else").expect("written from outside");
    let cas = fixture.store.cas();
    assert!(!cas.contains(&digest));
    cas.put(SHA256, b"abc").expect("stored");
    assert_eq!(cas.read(&digest).expect("read").expect("there"), "abc");
    assert_eq!(fs::read(fixture.blob_file(&digest)).expect("read"), b"abc");
    assert_eq!(common::files(&fixture.root.path().join("tmp")).len(), 0);
}

#[test]
fn a_blob_over_the_limit_is_not_read_at_once() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let mut writer = cas.writer(BLAKE3, None);
    let piece = vec![1; 1 << 20];
    for _ in 0..65 {
        writer.write(&piece).expect("written");
    }
    let digest = writer.commit().expect("stored");
    let error = cas.read(&digest).expect_err("refused");
    assert!(matches!(error, StoreError::TooLargeToRead { .. }), "{error}");
    assert!(cas.open(&digest).expect("opened").is_some());
}

#[test]
fn a_closed_store_is_read_only() {
    let fixture = Fixture::new();
    let cas = fixture.store.cas();
    let digest = cas.put(SHA256, b"abc").expect("stored");
    let mut writer = cas.writer(SHA256, None);
    writer.write(b"late").expect("written");
    fixture.store.close().expect("closed");
    fixture.store.close().expect("closed already");
    for error in [
        writer.commit().map(|_| ()),
        cas.put(SHA256, b"new").map(|_| ()),
        cas.delete(&digest).map(|_| ()),
        fixture.store.action_cache().put("", &digest, b"value"),
    ] {
        assert!(matches!(error, Err(StoreError::Closed)), "{error:?}");
    }
    assert_eq!(cas.read(&digest).expect("read").expect("there"), "abc");
}

/// A blob in whose place something else stands is missing, and the next upload brings it back.
#[test]
fn what_is_no_blob_under_its_name_goes_to_quarantine() {
    type Replace = fn(&std::path::Path);
    let replacements: [(&str, Replace); 5] = [
        ("a directory", |path| fs::create_dir(path).expect("a directory")),
        ("a symlink", |path| std::os::unix::fs::symlink("/etc/passwd", path).expect("a link")),
        ("a longer file", |path| fs::write(path, "abcd").expect("a file")),
        ("an empty file", |path| fs::write(path, "").expect("a file")),
        ("a pipe", |path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).expect("a pipe");
        }),
    ];
    for (what, replace) in replacements {
        for by_stream in [false, true] {
            let fixture = Fixture::new();
            let cas = fixture.store.cas();
            let digest = cas.put(SHA256, b"abc").expect("stored");
            let used = fixture.store.stats().used_bytes;
            let file = fixture.blob_file(&digest);
            fs::remove_file(&file).expect("removed");
            replace(&file);
            let is_none = if by_stream {
                cas.open(&digest).expect("opened").is_none()
            } else {
                // A longer file begins with the blob, which is right.
                let read = cas.read(&digest).expect("read");
                read.is_none() || what == "a longer file"
            };
            assert!(is_none, "{what}");
            if what == "a longer file" && !by_stream {
                continue;
            }
            assert!(!cas.contains(&digest), "{what}");
            let quarantine = fixture.root.path().join("quarantine");
            assert_eq!(fs::read_dir(&quarantine).expect("a directory").count(), 1, "{what}");
            cas.put(SHA256, b"abc").expect("stored anew");
            assert_eq!(cas.read(&digest).expect("read").expect("there"), "abc", "{what}");
            assert!(fixture.store.stats().used_bytes > used, "what is in quarantine counts");
        }
    }
}
