//! The operations of administrators on a whole store: looking at it, making room in it, verifying it.
//!
//! All of it goes part by part through the index and tells of its progress, so that a caller can show it
//! and can stop. A server goes on serving meanwhile.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::Digest;

use crate::error::StoreError;
use crate::evictor::Evictor;
use crate::index::{Index, PARTS};
use crate::recency::{Tick, seconds, ticks};
use crate::store::Store;
use crate::verify::Verdict;

/// A part of what is to be freed is freed between two reports of progress.
const STEPS: u64 = 32;
/// But not less than this, because every step looks at the whole index.
const STEP_BYTES_MIN: u64 = 64 << 20;

/// A blob or a cached result, as far as its use of the disk is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The blob; `None` for a cached result.
    pub blob: Option<Digest>,
    /// The size of the file in bytes.
    pub size_bytes: u64,
    /// The disk space of the file by the store's account, in bytes.
    pub cost_bytes: u64,
    /// The time since the last use.
    pub idle: Duration,
}

/// The goals of garbage collection. It comes as close to each given goal as it can, because the blobs that
/// running actions need stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Goals {
    /// The store takes this much of the disk at most, in bytes.
    pub used_bytes_max: Option<u64>,
    /// Nothing is left that was not used for this long.
    pub idle_min: Option<Duration>,
}

/// How far garbage collection got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// The number of blobs and cached results that were evicted.
    pub files: u64,
    /// The disk space that this made free, in bytes.
    pub bytes: u64,
    /// The disk space of the store now.
    pub used_bytes: u64,
}

/// How far verification got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// The number of blobs that were hashed.
    pub blobs: u64,
    /// The sum of their sizes in bytes.
    pub bytes: u64,
    /// The damaged blobs that were found since the last report.
    pub damaged: Vec<Digest>,
}

impl Store {
    /// Calls with everything in the store that can be evicted, in no order.
    pub fn each_item(&self, mut visit: impl FnMut(Item) -> ControlFlow<()>) {
        self.settle();
        let Evictor { cas, action_cache, space, clock, .. } = self.evictor();
        let now = clock.now();
        let mut items = Vec::new();
        for index in [cas.index(), action_cache.index()] {
            let is_blobs = std::ptr::eq(index, cas.index());
            for part in 0..PARTS {
                // Not with the shard locked: the visitor may wait.
                items.extend(index.idle(Index::shard_of(part), 0, now, 0));
                for (digest, last_use) in items.drain(..) {
                    let item = Item {
                        blob: is_blobs.then_some(digest),
                        size_bytes: digest.size_bytes(),
                        cost_bytes: space.cost(digest.size_bytes()),
                        idle: Duration::from_secs(seconds(now.saturating_sub(last_use))),
                    };
                    if visit(item).is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// Evicts until the goals are reached, until nothing is left to evict, or until `progress` says to
    /// stop.
    pub fn collect_garbage(
        &self,
        goals: Goals,
        mut progress: impl FnMut(Collected) -> ControlFlow<()>,
    ) -> Result<Collected, StoreError> {
        self.settle();
        let mut collection = Collection { evictor: self.evictor(), files: 0, bytes: 0 };
        let mut tell = |collection: &Collection<'_>| progress(collection.so_far());
        if let Some(idle) = goals.idle_min
            && collection.evict_idle(ticks(idle), &mut tell)?.is_break()
        {
            return Ok(collection.so_far());
        }
        if let Some(bytes) = goals.used_bytes_max {
            let _ = collection.evict_to(bytes, &mut tell)?;
        }
        Ok(collection.so_far())
    }

    /// Hashes all blobs on the disk, past the page cache, and moves damaged ones into quarantine.
    /// Stops when `progress` says so.
    pub fn verify_all(
        &self,
        mut progress: impl FnMut(&mut Verified) -> ControlFlow<()>,
    ) -> Result<Verified, StoreError> {
        let cas = self.cas();
        let mut verifier = cas.verifier();
        let mut verified = Verified::default();
        for part in 0..PARTS {
            for digest in cas.index().files_of(part) {
                match verifier.verify(&digest)? {
                    Verdict::Absent => continue,
                    Verdict::Good => {}
                    Verdict::Damaged => verified.damaged.push(digest),
                }
                verified.blobs += 1;
                verified.bytes += digest.size_bytes();
                if progress(&mut verified).is_break() {
                    return Ok(verified);
                }
            }
        }
        Ok(verified)
    }

    /// The disk space charged for a file of that size, in bytes.
    pub fn cost(&self, size_bytes: u64) -> u64 {
        self.evictor().space.cost(size_bytes)
    }
}

struct Collection<'a> {
    evictor: &'a Evictor,
    files: u64,
    bytes: u64,
}

type Tell<'a> = &'a mut dyn FnMut(&Collection<'_>) -> ControlFlow<()>;

impl Collection<'_> {
    fn so_far(&self) -> Collected {
        let used_bytes = self.evictor.space.used();
        Collected { files: self.files, bytes: self.bytes, used_bytes }
    }

    fn evict_idle(&mut self, idle: Tick, tell: Tell<'_>) -> Result<ControlFlow<()>, StoreError> {
        let Evictor { cas, action_cache, clock, evictions, .. } = self.evictor;
        let now = clock.now();
        let is_old = |(_, last_use): &(Digest, Tick)| now.saturating_sub(*last_use) >= idle;
        for part in 0..PARTS {
            let shard = Index::shard_of(part);
            let mut results = action_cache.index().idle(shard, 0, now, 0);
            results.retain(is_old);
            if !results.is_empty() {
                let (files, bytes) = action_cache.evict(shard, &results)?;
                evictions.results.fetch_add(files, Ordering::Relaxed);
                self.files += files;
                self.bytes += bytes;
            }
            let mut blobs = cas.index().idle(shard, 0, now, 0);
            blobs.retain(is_old);
            for (digest, last_use) in blobs {
                let bytes = cas.evict(&digest, last_use)?;
                if bytes > 0 {
                    evictions.count_blob(&digest, now.saturating_sub(last_use));
                    self.files += 1;
                    self.bytes += bytes;
                }
            }
            cas.notice_changes();
            if tell(self).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn evict_to(&mut self, bytes: u64, tell: Tell<'_>) -> Result<ControlFlow<()>, StoreError> {
        let step = (self.evictor.space.used().saturating_sub(bytes) / STEPS).max(STEP_BYTES_MIN);
        loop {
            let excess = self.evictor.space.used().saturating_sub(bytes);
            if excess == 0 {
                break;
            }
            let before = self.evictor.evicted_files();
            let freed = self.evictor.evict(excess.min(step))?;
            self.files += self.evictor.evicted_files() - before;
            self.bytes += freed;
            if freed == 0 || tell(self).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
