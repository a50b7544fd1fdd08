//! The index on disk, so that a start need not list every directory; see `docs/storage-format.md`,
//! "index".
//!
//! It is written now and then and when the store is closed, as a whole. Nothing in it is trusted by
//! itself. Each part describes one directory, and has the directory's inode number and times as its
//! witness: when the directory has them still, no name was added to it or removed from it, and the
//! part is as good as a listing. Any other part only tells when its files were last used, and what they
//! cost, until the directory is listed.

use std::os::fd::{AsFd, OwnedFd};

use model::{Digest, DigestFunction, HashBytes};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat};
use rustix::io::{Errno, pread};
use rustix::time::{ClockId, clock_gettime};

use crate::disk::{openat, pwrite, renameat, unlinkat};
use crate::index::{Index, PARTS};
use crate::recency::{Tick, Usage};
use crate::root::write_all;
use crate::table::Record;

const NAME: &str = "index";
const MAGIC: &[u8; 8] = b"ACTD-IDX";
const VERSION: u32 = 1;
const CHECKSUM_AT: usize = 16;
const HEADER_BYTES: usize = 48;
const ENTRY_BYTES: usize = 80;
/// The parts of blobs, then those of cached results.
const ENTRIES: usize = 2 * PARTS;
const TABLE_BYTES: usize = ENTRIES * ENTRY_BYTES;
const RECORDS_AT: usize = HEADER_BYTES + TABLE_BYTES;
/// The length of a record without its hash, in bytes: the size, the last use, and whether it was used again.
const RECORD_REST_BYTES: usize = 16;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A blob, below `cas/blobs`.
    Blob,
    /// A cached result, below `ac`.
    CachedResult,
}

/// A state of a directory: every name that is added or removed changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    inode: u64,
    modified: Time,
    changed: Time,
}

/// Seconds since the epoch, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Time(i64, u32);

impl Witness {
    /// The state that `stat` shows.
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            modified: Time(stat.st_mtime, stat.st_mtime_nsec as u32),
            changed: Time(stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }

    /// Whether no name was added or removed since then, in seconds since the epoch.
    pub(crate) fn is_older_than(&self, seconds: i64) -> bool {
        self.modified.0 < seconds && self.changed.0 < seconds
    }

    /// Whether a later change may leave the same state. File systems take the time from a clock that
    /// ticks every few milliseconds; `tick` is what that clock showed before the state was read.
    fn may_repeat(&self, tick: Time) -> bool {
        self.modified.max(self.changed) >= tick
    }
}

/// The time of the clock that file systems use.
fn file_clock() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time(now.tv_sec, now.tv_nsec as u32)
}

/// The file's entry for a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `None` if the directory may have changed unnoticed.
    pub(crate) witness: Option<Witness>,
    /// The disk space that its files take.
    pub(crate) cost_bytes: u64,
    records: u64,
    /// The position of the records in the file.
    offset: u64,
    checksum: HashBytes,
}

/// An index that an earlier server wrote.
pub(crate) struct IndexFile {
    file: OwnedFd,
    entries: Vec<Entry>,
}

impl IndexFile {
    /// Opens the file; `None` if there is none, or a damaged one.
    pub(crate) fn open(root: &OwnedFd) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(root, NAME, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return None,
            Err(error) => {
                tracing::warn!(%error, "the index of the store can't be opened");
                return None;
            }
        };
        let entries = read_entries(&file);
        if entries.is_none() {
            tracing::warn!("the index of the store is damaged; its directories are listed");
        }
        Some(Self { file, entries: entries? })
    }

    /// The file's entry for a part.
    pub(crate) fn entry(&self, kind: Kind, part: usize) -> &Entry {
        &self.entries[entry_number(kind, part)]
    }

    /// The sum of what the files of all parts cost.
    pub(crate) fn cost_bytes(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.cost_bytes))
    }

    /// The files of a part; `None` if the record of them is damaged.
    pub(crate) fn records(&self, kind: Kind, part: usize) -> Option<Vec<Record>> {
        let entry = self.entry(kind, part);
        let record_bytes = record_bytes(part);
        let length = usize::try_from(entry.records).ok()?.checked_mul(record_bytes)?;
        let content = read_exact(&self.file, entry.offset, length).ok()?;
        let is_whole = *Digest::of(DigestFunction::Blake3, &content).hash() == entry.checksum;
        is_whole.then(|| content.chunks_exact(record_bytes).map(decode).collect())
    }
}

/// Makes the checksums right for whatever else is in the file, so that a fuzzer gets past them.
#[cfg(feature = "fuzzing")]
pub(crate) fn seal(content: &mut [u8]) {
    let checksum = |bytes: &[u8]| *Digest::of(DigestFunction::Blake3, bytes).hash();
    if content.len() < RECORDS_AT {
        return;
    }
    let mut at = RECORDS_AT;
    for number in 0..ENTRIES {
        let entry = HEADER_BYTES + number * ENTRY_BYTES..HEADER_BYTES + (number + 1) * ENTRY_BYTES;
        let Ok(encoded) = content[entry.clone()].try_into() else { return };
        let records = usize::try_from(decode_entry(encoded, 0).records).unwrap_or(usize::MAX);
        let length = records.saturating_mul(record_bytes(number % PARTS));
        let Some(end) = at.checked_add(length).filter(|end| *end <= content.len()) else { break };
        let sum = checksum(&content[at..end]);
        content[entry.end - 32..entry.end].copy_from_slice(&sum[..32]);
        at = end;
    }
    let sum = checksum(&content[HEADER_BYTES..RECORDS_AT]);
    content[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum[..32]);
}

/// The bytes of a record of that part.
fn record_bytes(part: usize) -> usize {
    let (function, _) = Index::shard_of(part);
    function.hash_bytes() + RECORD_REST_BYTES
}

fn entry_number(kind: Kind, part: usize) -> usize {
    match kind {
        Kind::Blob => part,
        Kind::CachedResult => PARTS + part,
    }
}

fn read_entries(file: &OwnedFd) -> Option<Vec<Entry>> {
    let size_bytes = u64::try_from(fstat(file).ok()?.st_size).ok()?;
    let content = read_exact(file, 0, RECORDS_AT).ok()?;
    let (header, table) = content.split_at_checked(HEADER_BYTES)?;
    let is_ours = header.starts_with(MAGIC)
        && header[8..12] == VERSION.to_le_bytes()
        && header[12..CHECKSUM_AT] == (ENTRIES as u32).to_le_bytes()
        && header[CHECKSUM_AT..] == **Digest::of(DigestFunction::Blake3, table).hash();
    if !is_ours {
        return None;
    }
    let mut offset = RECORDS_AT as u64;
    let mut entries = Vec::with_capacity(ENTRIES);
    for (number, encoded) in table.as_chunks::<ENTRY_BYTES>().0.iter().enumerate() {
        let entry = decode_entry(encoded, offset);
        let record_bytes = record_bytes(number % PARTS) as u64;
        offset = offset.checked_add(entry.records.checked_mul(record_bytes)?)?;
        entries.push(entry);
    }
    (offset == size_bytes).then_some(entries)
}

/// The bytes of the file from an offset on; fewer of them are an error.
fn read_exact(file: &OwnedFd, offset: u64, length: usize) -> rustix::io::Result<Vec<u8>> {
    let mut content = vec![0; length];
    let mut at = 0;
    while at < length {
        match pread(file, &mut content[at..], offset + at as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(read) => at += read,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(content)
}

fn encode(slot: &Record, into: &mut Vec<u8>) {
    into.extend_from_slice(&slot.hash);
    into.extend_from_slice(&slot.size_bytes.to_le_bytes());
    into.extend_from_slice(&slot.usage.last_use.to_le_bytes());
    into.extend_from_slice(&[slot.usage.is_reused.into(), 0, 0, 0]);
}

fn decode(record: &[u8]) -> Record {
    let (hash, rest) = record.split_at(record.len() - RECORD_REST_BYTES);
    let mut fields = Fields(rest);
    let (hash, size_bytes) = (HashBytes::of(hash), u64::from_le_bytes(fields.take()));
    let last_use = Tick::from_le_bytes(fields.take());
    let [is_reused] = fields.take();
    Record { hash, size_bytes, usage: Usage::recorded(last_use, is_reused != 0) }
}

fn encode_entry(entry: &Entry, into: &mut Vec<u8>) {
    let witness =
        entry.witness.unwrap_or(Witness { inode: 0, modified: Time(0, 0), changed: Time(0, 0) });
    into.extend_from_slice(&witness.inode.to_le_bytes());
    for Time(seconds, nanoseconds) in [witness.modified, witness.changed] {
        into.extend_from_slice(&seconds.to_le_bytes());
        into.extend_from_slice(&nanoseconds.to_le_bytes());
    }
    into.extend_from_slice(&entry.records.to_le_bytes());
    into.extend_from_slice(&entry.cost_bytes.to_le_bytes());
    into.extend_from_slice(&entry.checksum);
}

fn decode_entry(encoded: &[u8; ENTRY_BYTES], offset: u64) -> Entry {
    let mut fields = Fields(encoded);
    let inode = u64::from_le_bytes(fields.take());
    let mut time = || Time(i64::from_le_bytes(fields.take()), u32::from_le_bytes(fields.take()));
    let (modified, changed) = (time(), time());
    let witness = Witness { inode, modified, changed };
    Entry {
        // No directory has the inode number 0.
        witness: (inode != 0).then_some(witness),
        records: u64::from_le_bytes(fields.take()),
        cost_bytes: u64::from_le_bytes(fields.take()),
        offset,
        checksum: HashBytes::from(fields.take::<32>()),
    }
}

/// Takes fields from the front of a record, whose length the caller knows.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("a record has all its fields");
        self.0 = rest;
        *field
    }
}

/// The content of a directory, at a moment in which the store does not change it.
pub(crate) trait Snapshot {
    /// Puts the files of a part into `slots`, and returns the state of its directory. `None` if the part
    /// is not known.
    fn snapshot(&self, part: usize, slots: &mut Vec<Record>)
    -> rustix::io::Result<Option<Witness>>;
}

/// Replaces the file by what is known now. `is_final` if the store makes no changes any more.
pub(crate) fn write(
    temporary: &OwnedFd,
    root: &OwnedFd,
    sources: [&dyn Snapshot; 2],
    cost: &dyn Fn(u64) -> u64,
    is_final: bool,
) -> rustix::io::Result<()> {
    match unlinkat(temporary, NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(temporary, NAME, flags, PRIVATE_FILE)?;
    let written = write_parts(&file, sources, cost, is_final);
    let replaced = written.and_then(|()| renameat(temporary, NAME, root, NAME));
    replaced.inspect_err(|_| {
        // If this fails too, the next start removes it.
        let _ = unlinkat(temporary, NAME, AtFlags::empty());
    })
}

/// Part by part: the index of a large store is large.
fn write_parts(
    file: &OwnedFd,
    sources: [&dyn Snapshot; 2],
    cost: &dyn Fn(u64) -> u64,
    is_final: bool,
) -> rustix::io::Result<()> {
    write_all(file.as_fd(), &vec![0; RECORDS_AT])?;
    let mut table = Vec::with_capacity(TABLE_BYTES);
    let (mut slots, mut records) = (Vec::new(), Vec::new());
    for source in sources {
        for part in 0..PARTS {
            slots.clear();
            records.clear();
            let tick = file_clock();
            let witness = source.snapshot(part, &mut slots)?;
            slots.iter().for_each(|slot| encode(slot, &mut records));
            write_all(file.as_fd(), &records)?;
            let entry = Entry {
                witness: witness.filter(|witness| is_final || !witness.may_repeat(tick)),
                cost_bytes: slots.iter().map(|slot| cost(slot.size_bytes)).sum(),
                records: slots.len() as u64,
                offset: 0,
                checksum: *Digest::of(DigestFunction::Blake3, &records).hash(),
            };
            encode_entry(&entry, &mut table);
        }
    }
    let mut header = Vec::with_capacity(RECORDS_AT);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&(ENTRIES as u32).to_le_bytes());
    header.extend_from_slice(Digest::of(DigestFunction::Blake3, &table).hash());
    header.append(&mut table);
    match pwrite(file, &header, 0)? {
        RECORDS_AT => Ok(()),
        _ => Err(Errno::IO),
    }
}
