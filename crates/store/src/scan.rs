//! Fills the indexes from the index file and from the directories, and removes what a crash tore.
//!
//! A part of the index file is taken as it is when its directory is still in the state that the file
//! names, and, after an end without order, when no name in it is younger than the last checkpoint.
//! Any other directory is listed. A listed file costs one `statx`; after a crash, young blobs are hashed
//! as well, as they are on the disk: the page cache may hold what the disk has lost.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use model::{Digest, DigestFunction, HashBytes};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, statat, statx};
use rustix::io::Errno;

use crate::action_cache::key_of_name;
use crate::cas::READ_FLAGS;
use crate::disk::{openat, unlinkat};
use crate::empty_directory::each_entry;
use crate::hash_disk::{DirectBuffer, hash_on_disk, is_whole};
use crate::index::{Index, PARTS};
use crate::index_file::{IndexFile, Kind, Witness};
use crate::quarantine::is_of_file;
use crate::recency::{Tick, Usage, tick_at};
use crate::root::OpenError;
use crate::space::Space;
use crate::state::Recovery;
use crate::table::Table;

/// More threads than this only wait for each other in the kernel.
const THREADS_MAX: usize = 8;

/// The result of a scan.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Directories that were listed.
    pub(crate) listed: AtomicU64,
    /// Blobs that were hashed again.
    pub(crate) verified: AtomicU64,
    /// Torn blobs that were removed.
    pub(crate) removed: AtomicU64,
    /// Files that are neither blobs nor cached results and were left alone.
    pub(crate) foreign: AtomicU64,
    /// The first directory that could not be listed.
    failure: Mutex<Option<OpenError>>,
}

impl Scan {
    /// The first error, if there was one since the last call.
    pub(crate) fn take_failure(&self) -> Option<OpenError> {
        self.failure.lock().take()
    }

    /// Once, however many there are; the debug level names each.
    pub(crate) fn log(&self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (verified, removed) = (count(&self.verified), count(&self.removed));
        if removed > 0 || verified > 0 {
            tracing::warn!(verified, removed, "hashed young blobs again, removed torn ones");
        }
        let foreign = count(&self.foreign);
        if foreign > 0 {
            tracing::warn!(foreign, "left files alone that are neither blobs nor cached results");
        }
    }
}

/// Calls `act` with every part, in several threads, until it returns false.
pub(crate) fn each_part(act: impl Fn(usize) -> bool + Sync) {
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some(part) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < PARTS) {
            if !act(part) {
                return;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(worker);
        }
        worker();
    });
}

/// Fills an index.
pub(crate) struct Filler {
    pub(crate) kind: Kind,
    pub(crate) directory: OwnedFd,
    pub(crate) recovery: Recovery,
    pub(crate) file: Option<Arc<IndexFile>>,
    pub(crate) now: Tick,
    pub(crate) space: Arc<Space>,
    pub(crate) report: Arc<Scan>,
}

/// A directory that is listed.
struct Listing<'a> {
    filler: &'a Filler,
    function: DigestFunction,
    first_byte: u8,
    directory: OwnedFd,
    uses: HashMap<HashBytes, Usage>,
    buffer: Option<DirectBuffer>,
    cost_bytes: u64,
}

impl Filler {
    /// Fills a part from the index file, if that can be trusted.
    pub(crate) fn load(&self, part: usize, table: &mut Table) -> bool {
        let Some(file) = &self.file else { return false };
        let entry = file.entry(self.kind, part);
        let Some(witness) = entry.witness else { return false };
        let is_on_disk = match (self.kind, self.recovery) {
            (Kind::Blob, Recovery::Verify { since }) => witness.is_older_than(since),
            // A cached result is checked whenever it is read.
            (Kind::Blob, Recovery::Nothing) | (Kind::CachedResult, _) => true,
        };
        let path = path_of(part);
        let stat = statat(&self.directory, &path, AtFlags::SYMLINK_NOFOLLOW);
        if !is_on_disk || stat.ok().map(|stat| Witness::of(&stat)) != Some(witness) {
            return false;
        }
        let Some(records) = file.records(self.kind, part) else { return false };
        table.reserve(records.len());
        let mut cost_bytes = 0;
        for slot in records {
            let usage = Usage::recorded(slot.usage.last_use.min(self.now), slot.usage.is_reused);
            table.insert(&slot.hash, slot.size_bytes, usage);
            cost_bytes += self.space.cost(slot.size_bytes);
        }
        self.settle_account(part, cost_bytes);
        true
    }

    /// Fills a part from its directory.
    pub(crate) fn list(&self, part: usize, table: &mut Table) {
        self.report.listed.fetch_add(1, Ordering::Relaxed);
        let path = path_of(part);
        let mut cost_bytes = 0;
        let listed = self.begin(part, &path).and_then(|mut listing| {
            let listed = listing.run(table);
            cost_bytes = listing.cost_bytes;
            listed
        });
        if let Err(error) = listed {
            let error = OpenError::io("list", path, error);
            self.report.failure.lock().get_or_insert(error);
        }
        self.settle_account(part, cost_bytes);
    }

    fn begin(&self, part: usize, path: &str) -> Result<Listing<'_>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let records = self.file.as_ref().and_then(|file| file.records(self.kind, part));
        let records = records.into_iter().flatten();
        let (function, first_byte) = Index::shard_of(part);
        Ok(Listing {
            filler: self,
            function,
            first_byte,
            directory: openat(&self.directory, path, flags, Mode::empty())?,
            uses: records.map(|slot| (slot.hash, slot.usage)).collect(),
            buffer: None,
            cost_bytes: 0,
        })
    }

    /// Charges what the files of a part cost, in place of what the index file says that they do.
    fn settle_account(&self, part: usize, cost_bytes: u64) {
        let recorded = self.file.as_ref().map(|file| file.entry(self.kind, part).cost_bytes);
        self.space.settle(cost_bytes, recorded.unwrap_or(0));
    }
}

fn path_of(part: usize) -> String {
    let (function, first_byte) = Index::shard_of(part);
    format!("{}/{first_byte:02x}", function.name())
}

impl Listing<'_> {
    fn run(&mut self, table: &mut Table) -> Result<(), Errno> {
        let directory = self.directory.try_clone().map_err(|_| Errno::MFILE)?;
        each_entry(&directory, |name, _| self.visit(name, table))
    }

    fn visit(&mut self, name: &CStr, table: &mut Table) -> Result<(), Errno> {
        let found = statx(
            &self.directory,
            name,
            AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC,
            StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::CTIME,
        );
        let stat = match found {
            Err(Errno::NOENT) => return Ok(()),
            found => found?,
        };
        let report = &self.filler.report;
        let Some(digest) = self.digest(name, &stat) else {
            tracing::debug!(?name, shard = self.first_byte, "not a blob; left alone");
            report.foreign.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        if self.filler.kind == Kind::Blob && self.is_torn(name, &digest, &stat)? {
            tracing::debug!(%digest, "removed a blob that a crash tore");
            report.removed.fetch_add(1, Ordering::Relaxed);
            return unlinkat(&self.directory, name, AtFlags::empty());
        }
        let made = tick_at(stat.stx_ctime.tv_sec);
        table.insert(digest.hash(), digest.size_bytes(), self.usage(&digest, made));
        self.cost_bytes += self.filler.space.cost(digest.size_bytes());
        Ok(())
    }

    /// The recorded use of a file, else its first use when it was made; never later than now.
    fn usage(&self, digest: &Digest, made: Tick) -> Usage {
        let recorded = self.uses.get(digest.hash());
        let (last_use, is_reused) =
            recorded.map_or((made, false), |usage| (usage.last_use, usage.is_reused));
        Usage::recorded(last_use.max(made).min(self.filler.now), is_reused)
    }

    /// The digest, or the key of a cached result, that name and size make; `None` if they make neither.
    fn digest(&self, name: &CStr, stat: &Statx) -> Option<Digest> {
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return None;
        }
        let (name, size_bytes) = (name.to_bytes(), stat.stx_size);
        match self.filler.kind {
            Kind::Blob => Digest::parse_hex_bytes(self.function, name, size_bytes)
                .ok()
                .filter(|digest| digest.hash()[0] == self.first_byte),
            Kind::CachedResult => key_of_name(self.function, self.first_byte, name, size_bytes),
        }
    }

    fn is_torn(&mut self, name: &CStr, digest: &Digest, stat: &Statx) -> Result<bool, Errno> {
        if digest.size_bytes() == 0 {
            return Ok(!digest.is_empty_blob());
        }
        match self.filler.recovery {
            Recovery::Verify { since } if stat.stx_ctime.tv_sec >= since => {
                self.filler.report.verified.fetch_add(1, Ordering::Relaxed);
                let found = hash_on_disk(
                    &self.directory,
                    name,
                    READ_FLAGS,
                    self.function,
                    digest.size_bytes(),
                    self.buffer.get_or_insert_with(DirectBuffer::new),
                );
                match found {
                    Ok(found) => Ok(!is_whole(found, digest)),
                    // A blob that the disk can't return counts as torn too.
                    Err(e) if is_of_file(e) => Ok(true),
                    Err(e) => Err(e),
                }
            }
            _ => Ok(false),
        }
    }
}
