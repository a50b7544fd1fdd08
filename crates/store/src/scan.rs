//! Fills the indexes from the directories, and removes what a crash tore.
//!
//! Several threads take shards from a counter. A file costs its share of a listing and one
//! `statx`; after a crash of the machine, young blobs are hashed as well.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use model::{Digest, DigestFunction};
use rustix::fs::{
    Advice, AtFlags, FileType, Mode, OFlags, Statx, StatxFlags, fadvise, openat, statx, unlinkat,
};
use rustix::io::Errno;

use crate::access::{Access, Kind};
use crate::action_cache::key_of_name;
use crate::empty_directory::each_entry;
use crate::hash_file::{FileHash, hash_file};
use crate::index::Index;
use crate::recency::{Tick, tick_at};
use crate::root::OpenError;
use crate::space::Space;
use crate::state::Recovery;

const SHARDS: usize = 256;
/// More threads than this only wait for each other in the kernel.
const THREADS_MAX: usize = 8;

/// The entry that was found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Blobs that were hashed again.
    pub(crate) verified: AtomicU64,
    /// Torn blobs that were removed.
    pub(crate) removed: AtomicU64,
    /// Files that are neither blobs nor cached results and were left alone.
    pub(crate) foreign: AtomicU64,
}

/// A directory of shards, and where what it holds is noted.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) kind: Kind,
    pub(crate) directory: &'a OwnedFd,
    pub(crate) index: &'a Index,
}

/// The context of the scan, the same for all shards.
#[derive(Clone, Copy)]
pub(crate) struct Scanner<'a> {
    pub(crate) sources: [Source<'a>; 2],
    pub(crate) recovery: Recovery,
    pub(crate) access: &'a Access,
    pub(crate) now: Tick,
    pub(crate) space: &'a Space,
}

/// Puts everything that the sources hold into their indexes, and charges it.
pub(crate) fn scan(scanner: Scanner<'_>) -> Result<Scan, OpenError> {
    let report = Scan::default();
    let next = AtomicUsize::new(0);
    let worker = || {
        let per_source = DigestFunction::ALL.len() * SHARDS;
        let shards = scanner.sources.len() * per_source;
        while let Some(shard) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < shards) {
            let shard = Shard {
                scanner,
                source: scanner.sources[shard / per_source],
                function: DigestFunction::ALL[shard % per_source / SHARDS],
                first_byte: (shard % SHARDS) as u8,
                report: &report,
            };
            shard.run()?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a scanning thread does not panic"))
            .collect::<Result<Vec<()>, OpenError>>()
    })?;
    report.log();
    Ok(report)
}

impl Scan {
    /// Once, however many there are; the debug level names each.
    fn log(&self) {
        let verified = self.verified.load(Ordering::Relaxed);
        let removed = self.removed.load(Ordering::Relaxed);
        let foreign = self.foreign.load(Ordering::Relaxed);
        if removed > 0 || verified > 0 {
            tracing::warn!(verified, removed, "hashed young blobs again, removed torn ones");
        }
        if foreign > 0 {
            tracing::warn!(foreign, "left files alone that are neither blobs nor cached results");
        }
    }
}

struct Shard<'a> {
    scanner: Scanner<'a>,
    source: Source<'a>,
    function: DigestFunction,
    first_byte: u8,
    report: &'a Scan,
}

impl Shard<'_> {
    fn run(&self) -> Result<(), OpenError> {
        let path = format!("{}/{:02x}", self.function.name(), self.first_byte);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let visit_all = || {
            let directory = openat(self.source.directory, &path, flags, Mode::empty())?;
            each_entry(&directory, |name, _| self.visit(&directory, name))
        };
        visit_all().map_err(|e: Errno| OpenError::io("list", &path, e))
    }

    fn visit(&self, directory: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        let stat = statx(
            directory,
            name,
            AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC,
            StatxFlags::TYPE | StatxFlags::SIZE | StatxFlags::CTIME,
        )?;
        let Some(digest) = self.digest(name, &stat) else {
            tracing::debug!(?name, shard = self.first_byte, "not a blob; left alone");
            self.report.foreign.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        if self.source.kind == Kind::Blob && self.is_torn(directory, name, &digest, &stat)? {
            tracing::debug!(%digest, "removed a blob that a crash tore");
            self.report.removed.fetch_add(1, Ordering::Relaxed);
            return unlinkat(directory, name, AtFlags::empty());
        }
        let Scanner { access, now, space, .. } = self.scanner;
        let made = tick_at(stat.stx_ctime.tv_sec);
        self.source.index.insert(&digest, access.usage(self.source.kind, &digest, made, now));
        space.add(space.cost(digest.size_bytes()));
        Ok(())
    }

    /// The digest, or the key of a cached result, that name and size make; `None` if they make neither.
    fn digest(&self, name: &CStr, stat: &Statx) -> Option<Digest> {
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return None;
        }
        let (name, size_bytes) = (name.to_bytes(), stat.stx_size);
        match self.source.kind {
            Kind::Blob => Digest::parse_hex_bytes(self.function, name, size_bytes)
                .ok()
                .filter(|digest| digest.hash()[0] == self.first_byte),
            Kind::CachedResult => key_of_name(self.function, self.first_byte, name, size_bytes),
        }
    }

    fn is_torn(
        &self,
        directory: &OwnedFd,
        name: &CStr,
        digest: &Digest,
        stat: &Statx,
    ) -> Result<bool, Errno> {
        if digest.size_bytes() == 0 {
            return Ok(!digest.is_empty_blob());
        }
        match self.scanner.recovery {
            Recovery::Verify { since } if stat.stx_ctime.tv_sec >= since => {
                self.report.verified.fetch_add(1, Ordering::Relaxed);
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(directory, name, flags, Mode::empty())?;
                // A failing hint costs nothing.
                let _ = fadvise(&file, 0, None, Advice::Sequential);
                let found = hash_file(file.as_fd(), self.function, digest.size_bytes());
                match found {
                    Ok(FileHash::Whole(found)) => Ok(found != *digest),
                    Ok(FileHash::Longer) => Ok(true),
                    // A blob that the disk can't return counts as torn too.
                    Err(Errno::IO) => Ok(true),
                    Err(e) => Err(e),
                }
            }
            _ => Ok(false),
        }
    }
}
