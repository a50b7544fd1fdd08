//! The record of last uses, which outlives the server; see `docs/storage-format.md`, "access".
//!
//! Written now and then and when the store is closed, as a whole. It is a hint: without it, a blob
//! was last used when its file was made.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use model::{BlobHasher, Digest, DigestFunction};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, renameat, unlinkat};
use rustix::io::{Errno, pread, pwrite};

use crate::index::Index;
use crate::recency::{Tick, Usage};
use crate::root::write_all;

const NAME: &str = "access";
const MAGIC: &[u8; 8] = b"ACTD-USE";
const VERSION: u32 = 1;
const COUNT_AT: usize = 16;
const CHECKSUM_AT: usize = 24;
const HEADER_BYTES: usize = 56;
const RECORD_BYTES: usize = 16;
/// A record of more than this, half a gigabyte, is not ours: an index of it takes 2 GiB of memory.
const RECORDS_MAX: u64 = 32 << 20;
const BUFFER_BYTES: usize = 64 * 1024;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Blob,
    CachedResult,
}

/// Last uses that an earlier server recorded.
#[derive(Default)]
pub(crate) struct Access {
    uses: HashMap<u64, (Tick, bool)>,
}

impl Access {
    /// Reads the record; an empty one if there is none, or a torn one.
    pub(crate) fn read(root: &OwnedFd) -> Self {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let content = openat(root, NAME, flags, Mode::empty()).and_then(|file| read_file(&file));
        match content {
            Ok(content) => Self::parse(&content).unwrap_or_else(|| {
                tracing::warn!("the record of last uses is damaged and is ignored");
                Self::default()
            }),
            Err(Errno::NOENT) => Self::default(),
            Err(error) => {
                tracing::warn!(%error, "the record of last uses can't be read");
                Self::default()
            }
        }
    }

    /// The recorded use of a file, else its first use when it was made; never later than `now`.
    pub(crate) fn usage(&self, kind: Kind, digest: &Digest, made: Tick, now: Tick) -> Usage {
        let recorded = self.uses.get(&key(kind, digest.function(), digest.hash()));
        let (last_use, is_reused) = recorded.copied().unwrap_or((made, false));
        Usage::recorded(last_use.max(made).min(now), is_reused)
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let (header, records) = content.split_at_checked(HEADER_BYTES)?;
        let count = u64::from_le_bytes(*header[COUNT_AT..].first_chunk()?);
        let is_ours = header.starts_with(MAGIC)
            && header[8..12] == VERSION.to_le_bytes()
            && records.len() as u64 == count.checked_mul(RECORD_BYTES as u64)?
            && header[CHECKSUM_AT..] == checksum(records);
        if !is_ours {
            return None;
        }
        let uses = records.as_chunks::<RECORD_BYTES>().0.iter().map(|record| {
            let key = u64::from_le_bytes(*record.first_chunk().expect("8 of 16 bytes"));
            let tick = Tick::from_le_bytes(*record[8..].first_chunk().expect("4 of 8 bytes"));
            (key, (tick, record[12] != 0))
        });
        Some(Self { uses: uses.collect() })
    }

    /// Replaces the record by what the indexes know.
    pub(crate) fn write(
        temporary: &OwnedFd,
        root: &OwnedFd,
        blobs: &Index,
        results: &Index,
    ) -> rustix::io::Result<()> {
        match unlinkat(temporary, NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(temporary, NAME, flags, PRIVATE_FILE)?;
        let written = write_records(&file, blobs, results);
        let replaced = written.and_then(|()| renameat(temporary, NAME, root, NAME));
        replaced.inspect_err(|_| {
            // If this fails too, the next start removes it.
            let _ = unlinkat(temporary, NAME, AtFlags::empty());
        })
    }
}

/// Piece by piece: a record of a large store is large.
fn write_records(file: &OwnedFd, blobs: &Index, results: &Index) -> rustix::io::Result<()> {
    write_all(file.as_fd(), &[0; HEADER_BYTES])?;
    let mut hasher = BlobHasher::new(DigestFunction::Blake3);
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut outcome = Ok(());
    for (kind, index) in [(Kind::Blob, blobs), (Kind::CachedResult, results)] {
        for function in DigestFunction::ALL {
            index.each(function, |slot| {
                if outcome.is_err() {
                    return;
                }
                buffer.extend_from_slice(&key(kind, function, &slot.hash).to_le_bytes());
                buffer.extend_from_slice(&slot.usage.last_use.to_le_bytes());
                buffer.extend_from_slice(&[slot.usage.is_reused.into(), 0, 0, 0]);
                if buffer.len() + RECORD_BYTES > BUFFER_BYTES {
                    hasher.update(&buffer);
                    outcome = write_all(file.as_fd(), &buffer);
                    buffer.clear();
                }
            });
        }
    }
    outcome?;
    hasher.update(&buffer);
    write_all(file.as_fd(), &buffer)?;
    let count = hasher.size_bytes() / RECORD_BYTES as u64;
    let header = header(count, hasher.finish().hash());
    match pwrite(file, &header, 0)? {
        HEADER_BYTES => Ok(()),
        _ => Err(Errno::IO),
    }
}

fn header(count: u64, checksum: &[u8; 32]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[COUNT_AT..CHECKSUM_AT].copy_from_slice(&count.to_le_bytes());
    header[CHECKSUM_AT..].copy_from_slice(checksum);
    header
}

fn checksum(records: &[u8]) -> [u8; 32] {
    *Digest::of(DigestFunction::Blake3, records).hash()
}

/// Eight bytes of the hash, told apart by kind and function. Two files that share them would share
/// a last use, no more.
fn key(kind: Kind, function: DigestFunction, hash: &[u8; 32]) -> u64 {
    let tag = match (kind, function) {
        (Kind::Blob, DigestFunction::Sha256) => 0,
        (Kind::Blob, DigestFunction::Blake3) => 1,
        (Kind::CachedResult, DigestFunction::Sha256) => 2,
        (Kind::CachedResult, DigestFunction::Blake3) => 3,
    };
    u64::from_le_bytes(*hash.first_chunk().expect("8 of 32 bytes")) ^ tag
}

fn read_file(file: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
    let size_bytes = fstat(file)?.st_size as u64;
    if size_bytes > HEADER_BYTES as u64 + RECORDS_MAX * RECORD_BYTES as u64 {
        return Err(Errno::FBIG);
    }
    let mut content = vec![0; size_bytes as usize];
    let mut at = 0;
    while at < content.len() {
        match pread(file, &mut content[at..], at as u64) {
            Ok(0) => break,
            Ok(read) => at += read,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    content.truncate(at);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u32) -> Digest {
        Digest::of(DigestFunction::Sha256, &number.to_le_bytes())
    }

    fn open(directory: &tempfile::TempDir) -> OwnedFd {
        std::fs::File::open(directory.path()).expect("a directory").into()
    }

    #[test]
    fn uses_come_back_and_damage_is_noticed() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = open(&directory);
        let (blobs, results) = (Index::new(1), Index::new(2));
        for number in 0..10_000 {
            blobs.insert(&digest(number), Usage::recorded(1000 + number, number % 3 == 0));
        }
        results.insert(&digest(1), Usage::recorded(77, true));
        Access::write(&root, &root, &blobs, &results).expect("written");
        let access = Access::read(&root);
        let now = Tick::MAX;
        for number in 0..10_000 {
            let usage = access.usage(Kind::Blob, &digest(number), 5, now);
            assert_eq!(usage, Usage::recorded(1000 + number, number % 3 == 0));
        }
        let usage = |kind, number, made, now| access.usage(kind, &digest(number), made, now);
        assert_eq!(usage(Kind::CachedResult, 1, 5, now), Usage::recorded(77, true));
        assert_eq!(usage(Kind::CachedResult, 2, 5, now), Usage::recorded(5, false));
        // Stored anew after the record was written; and a clock that was set back.
        assert_eq!(usage(Kind::Blob, 0, 5000, now).last_use, 5000);
        assert_eq!(usage(Kind::Blob, 0, 5, 10).last_use, 10);

        let path = directory.path().join(NAME);
        let mut content = std::fs::read(&path).expect("a file");
        content[HEADER_BYTES + 100] ^= 1;
        assert!(Access::parse(&content).is_none());
        for cut in [0, 1, HEADER_BYTES, content.len() - 1] {
            assert!(Access::parse(&content[..cut]).is_none(), "cut at {cut}");
        }
    }
}
