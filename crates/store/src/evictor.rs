//! Makes room: evicts the files that have been idle for the longest time, ahead of need.
//!
//! A pass first adds up what the files of each rank cost. It then evicts all files of the ranks that are needed
//! whole, and a part of those of the last rank. It reads every entry of the index up to three times, in memory order,
//! and removes at least one in 128 of them. So the cost per eviction is constant, and a use of a file only has to
//! note its time.
//!
//! Cached results go before blobs of the same rank, because a result without its blobs is useless.
//! Pinned files stay, and so do files that were used since the pass looked at them. [`Others`] says how much goes when it
//! is not the store that fills the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::{Digest, DigestFunction};
use parking_lot::Mutex;

use crate::action_cache::ActionCache;
use crate::cas::Cas;
use crate::error::StoreError;
use crate::index::Histogram;
use crate::others::{Others, wait_for_space};
use crate::recency::{Clock, RANKS, RANKS_LEASED, Tick, is_leased, ticks};
use crate::space::{AHEAD, Space};
use crate::trouble::Paced;

/// How often the free space of the file system is checked: other programs fill it as well.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// The least time between passes that free nothing, each of which reads the whole index.
const FRUITLESS_PAUSE: Duration = Duration::from_millis(50);
/// The kernel tells of every blob that is evicted, and keeps 16,384 such events at most by default. So
/// they are taken after this many evictions.
const NOTICE_EVERY: u64 = 1024;

/// How often the ages of the files are read. It takes about 20 ms for a million files.
const AGES_PERIOD: Duration = Duration::from_secs(30);

/// The evictions since the start.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    pub(crate) blobs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) leased: AtomicU64,
    pub(crate) results: AtomicU64,
    /// For how many ticks the blob that was evicted last had been idle.
    pub(crate) last_idle: AtomicU32,
}

impl Evictions {
    /// Counts a blob that had been idle for that long. Returns how many there were before.
    pub(crate) fn count_blob(&self, digest: &Digest, idle: Tick) -> u64 {
        self.bytes.fetch_add(digest.size_bytes(), Ordering::Relaxed);
        self.last_idle.store(idle, Ordering::Relaxed);
        self.blobs.fetch_add(1, Ordering::Relaxed)
    }
}

/// How old the files were when they were last looked at.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    /// The cost of the files that were used within the lease.
    pub(crate) leased_bytes: AtomicU64,
    /// For how many ticks the file has been idle that has been idle for longest.
    pub(crate) oldest_idle: AtomicU32,
}

/// See the module.
pub(crate) struct Evictor {
    pub(crate) cas: Cas,
    pub(crate) action_cache: ActionCache,
    pub(crate) space: Arc<Space>,
    pub(crate) clock: Arc<Clock>,
    /// Changes by [`Evictor::set_lease`].
    pub(crate) lease: AtomicU32,
    pub(crate) others: Mutex<Others>,
    pub(crate) evictions: Evictions,
    pub(crate) ages: Ages,
}

/// One pass.
struct Pass<'a> {
    evictor: &'a Evictor,
    now: Tick,
    /// Files of lower ranks stay.
    rank_min: usize,
    need: u64,
    freed: u64,
}

impl Evictor {
    /// Makes passes in a thread, and calls `upkeep` about once a second, until the space is closed.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        upkeep: impl Fn() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let evictor = Arc::clone(self);
        std::thread::Builder::new().name("evictor".into()).spawn(move || evictor.run(&upkeep))
    }

    fn run(&self, upkeep: &dyn Fn()) {
        let log = Log::default();
        let mut looked: Option<Instant> = None;
        while let Some(wanted) = self.space.begin_pass(LOOK_PERIOD) {
            let before = self.evicted();
            let (need, freed) = self.make_room(wanted);
            self.space.end_pass();
            log.pass(self, before);
            if need > 0 && freed == 0 {
                std::thread::sleep(FRUITLESS_PAUSE);
            }
            if looked.is_none_or(|last| last.elapsed() >= AGES_PERIOD) {
                looked = Some(Instant::now());
                self.look_at_ages();
            }
            self.look_after_changes();
            upkeep();
        }
    }

    /// Handles what others did to blobs, so that clients are told the truth where no action asks.
    fn look_after_changes(&self) {
        self.cas.notice_changes();
        if let Err(error) = self.cas.look_at_all_if_needed() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "looking at all blobs failed"
            );
        }
    }

    /// The number of blobs and results that were evicted since the start.
    pub(crate) fn evicted_files(&self) -> u64 {
        self.evicted().0
    }

    /// Evicts that many bytes at least, if there is so much. Returns how much it was.
    pub(crate) fn evict(&self, need: u64) -> Result<u64, StoreError> {
        let mut pass = Pass { evictor: self, now: self.clock.now(), rank_min: 0, need, freed: 0 };
        pass.run()?;
        Ok(pass.freed)
    }

    /// The number of evicted blobs and results, and of blobs evicted before their lease ended.
    fn evicted(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Evictions { blobs, results, leased, .. } = &self.evictions;
        (count(blobs) + count(results), count(leased))
    }

    fn lease(&self) -> Tick {
        self.lease.load(Ordering::Relaxed)
    }

    /// Files that are idle for less are evicted last from now on.
    pub(crate) fn set_lease(&self, lease: Duration) {
        self.lease.store(ticks(lease), Ordering::Relaxed);
    }

    fn look_at_ages(&self) {
        let now = self.clock.now();
        let lease = self.lease();
        let (mut leased_bytes, mut oldest_idle) = (0, 0);
        for index in [self.cas.index(), self.action_cache.index()] {
            for function in DigestFunction::ALL {
                index.each(function, |record| {
                    let idle = now.saturating_sub(record.usage.last_use);
                    oldest_idle = idle.max(oldest_idle);
                    if idle < lease {
                        leased_bytes += self.space.cost(record.size_bytes);
                    }
                });
            }
        }
        self.ages.leased_bytes.store(leased_bytes, Ordering::Relaxed);
        self.ages.oldest_idle.store(oldest_idle, Ordering::Relaxed);
    }

    /// Evicts what is above the marks, and `wanted` bytes more; for others as much as [`Others`] says. Returns how many bytes
    /// were to go, and how many were freed.
    pub(crate) fn make_room(&self, wanted: u64) -> (u64, u64) {
        let files = self.cas.index().files() + self.action_cache.index().files();
        let missing = |reserves| self.space.missing(reserves, wanted, files);
        let mut others = self.others.lock();
        let own = |others: &Others, used| others.own_growth(used).saturating_add(wanted);
        let of_others = || match self.space.is_closed() {
            true => 0,
            false => missing(1).saturating_sub(own(&others, self.space.used())),
        };
        let lacks = of_others() > 0;
        let is_own = !lacks || (!others.stays && wait_for_space(others.patience, of_others));
        others.stays = !is_own;

        let (used, ahead) = (self.space.used(), missing(AHEAD));
        let of_disk = if is_own { ahead.min(own(&others, used)) } else { ahead };
        let pass_min = self.space.disk_pass_min();
        let is_due = of_disk >= pass_min || missing(1) > 0;
        let of_disk = if is_due && ahead > 0 { of_disk.max(pass_min) } else { 0 };
        let need = self.space.excess(wanted).max(of_disk);
        let freed = self.pass(0, need);
        if need > 0 || ahead == 0 {
            // Not from what is used now: charges went on meanwhile.
            others.count_from(used.saturating_sub(freed));
        }
        let claim = others.claim(missing(AHEAD), pass_min, self.space.used(), Instant::now());
        let given = self.pass(RANKS_LEASED, claim);
        others.give(given, self.space.used());
        (need + claim, freed + given)
    }

    /// Evicts `need` bytes of files of that rank or a higher one, if there is so much. Returns how much it was.
    fn pass(&self, rank_min: usize, need: u64) -> u64 {
        if need == 0 {
            return 0;
        }
        let free_before = self.space.free_bytes();
        let mut pass = Pass { evictor: self, now: self.clock.now(), rank_min, need, freed: 0 };
        if let Err(error) = pass.run() {
            tracing::error!(error = &error as &dyn std::error::Error, "eviction failed");
        }
        if pass.freed > 0 {
            self.space.wait_for_freed(free_before, pass.freed);
        }
        tracing::debug!(need, freed = pass.freed, used = self.space.used(), rank_min, "evicted");
        pass.freed
    }
}

/// The log lines about evictions, at a bounded rate.
#[derive(Default)]
struct Log {
    evicted: Paced,
    leased: Paced,
}

impl Log {
    /// Logs a pass, given the counts before it.
    fn pass(&self, evictor: &Evictor, before: (u64, u64)) {
        let (evicted, leased) = evictor.evicted();
        let new = (evicted - before.0, leased - before.1);
        if new.0 > 0
            && let Some(files) = self.evicted.add(new.0)
        {
            let (used_bytes, limit_bytes) = (evictor.space.used(), evictor.space.limit());
            tracing::info!(files, used_bytes, limit_bytes, "evicted blobs and cached results");
        }
        if new.1 > 0
            && let Some(leased) = self.leased.add(new.1)
        {
            tracing::warn!(
                leased,
                "evicted blobs before their lease ended; raise --cas-size, or free space on the disk, if builds miss them"
            );
        }
    }
}

impl Pass<'_> {
    fn run(&mut self) -> Result<(), StoreError> {
        let mut costs: Box<Histogram> = Box::new([0; RANKS]);
        let space = &self.evictor.space;
        let cost = |size_bytes| space.cost(size_bytes);
        for index in [self.evictor.cas.index(), self.evictor.action_cache.index()] {
            index.survey(self.now, self.evictor.lease(), cost, &mut costs);
        }
        // Pinned files were counted but stay, so lower ranks may be needed as well.
        let mut rank = RANKS;
        while rank > self.rank_min && self.freed < self.need {
            let (mut expected, mut of_higher_ranks) = (0, 0);
            while rank > self.rank_min && expected < self.need - self.freed {
                rank -= 1;
                of_higher_ranks = expected;
                expected += costs[rank];
            }
            // All of these go. Together with the last rank, of which only a part goes, they would go in the order
            // of shards, and one in a late shard would outlive pass after pass.
            if of_higher_ranks > 0 {
                self.evict_from(rank + 1)?;
            }
            self.evict_from(rank)?;
        }
        Ok(())
    }

    /// Evicts what has that rank or a higher one, until there is enough.
    fn evict_from(&mut self, rank: usize) -> Result<(), StoreError> {
        let Evictor { cas, action_cache, evictions, .. } = self.evictor;
        let lease = self.evictor.lease();
        // From another shard each time: the last one of a pass is left half full.
        let first = self.now as u8;
        let shards = || (0..=u8::MAX).map(|shard| shard.wrapping_add(first));
        let shards =
            || DigestFunction::ALL.into_iter().flat_map(|f| shards().map(move |shard| (f, shard)));
        if self.freed >= self.need {
            return Ok(());
        }
        for shard in shards() {
            let idle = action_cache.index().idle(shard, rank, self.now, lease);
            if !idle.is_empty() {
                let (results, bytes) = action_cache.evict(shard, &idle)?;
                evictions.results.fetch_add(results, Ordering::Relaxed);
                self.freed += bytes;
            }
        }
        for shard in shards() {
            for (digest, last_use) in cas.index().idle(shard, rank, self.now, lease) {
                if self.freed >= self.need {
                    return Ok(());
                }
                let bytes = cas.evict(&digest, last_use)?;
                self.freed += bytes;
                if bytes > 0 {
                    let idle = self.now.saturating_sub(last_use);
                    if evictions.count_blob(&digest, idle) % NOTICE_EVERY == 0 {
                        cas.notice_changes();
                    }
                    let leased = is_leased(rank) && idle < lease;
                    evictions.leased.fetch_add(leased.into(), Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::recency::Usage;
    use crate::size::StoreSize;
    use crate::store::{Store, StoreOptions};

    const FUNCTION: DigestFunction = DigestFunction::Sha256;
    const LIMIT: u64 = 32 << 20;
    const BLOB_BYTES: usize = 64 << 10;
    const HOUR: Tick = 36_000;

    fn open(root: &Path) -> Arc<Store> {
        let size = StoreSize::Bytes(LIMIT);
        Store::open(root, StoreOptions { size, ..StoreOptions::default() })
            .expect("the store opens")
    }

    /// In memory where there is one: no test here is about the disk.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::TempDir::new_in("/dev/shm");
        directory.or_else(|_| tempfile::tempdir()).expect("a directory")
    }

    fn content(number: u32) -> Vec<u8> {
        number.to_le_bytes().repeat(BLOB_BYTES / 4)
    }

    /// Stores a blob that was used that many ticks ago.
    fn put(store: &Store, number: u32, idle: Tick, is_reused: bool) -> Digest {
        let digest = store.cas().put(FUNCTION, &content(number)).expect("stored");
        let last_use = store.evictor().clock.now() - idle;
        store.cas().index().insert(&digest, Usage::recorded(last_use, is_reused));
        digest
    }

    /// Stores blobs until that many were evicted.
    fn flood(store: &Store, evicted: u64) {
        for number in 1_000_000.. {
            if store.stats().evicted_blobs >= evicted {
                break;
            }
            store.cas().put(FUNCTION, &content(number)).expect("room is made");
        }
    }

    fn is_there(store: &Store, digest: &Digest) -> bool {
        store.cas().index().contains(digest)
    }

    #[test]
    fn what_was_idle_for_longest_goes_first_and_leased_blobs_last() {
        let root = directory();
        let store = open(root.path());
        let classes = [
            (200 * HOUR, true),
            (40 * HOUR, false),
            (100 * HOUR, true),
            (4 * HOUR, true),
            (2 * HOUR, false),
            (0, false),
        ];
        let mut number = 0;
        let classes = classes.map(|(idle, is_reused)| {
            [(); 40].map(|()| {
                number += 1;
                put(&store, number, idle, is_reused)
            })
        });
        let lost = |class: &[Digest]| class.iter().filter(|blob| !is_there(&store, blob)).count();
        let mut order = Vec::new();
        while store.stats().evicted_blobs < 140 {
            flood(&store, store.stats().evicted_blobs + 1);
            for (at, class) in classes.iter().enumerate() {
                if lost(class) > 0 && !order.contains(&at) {
                    // A class is begun when the ones before it are used up, or about to be.
                    order.push(at);
                }
            }
        }
        assert!(order.is_sorted(), "{order:?}");
        assert_eq!(lost(&classes[5]), 0);
        assert_eq!(lost(&classes[0]), 40);
        assert_eq!(store.stats().evicted_leased_blobs, 0, "there was enough without a lease");
        while lost(&classes[4]) < 40 {
            flood(&store, store.stats().evicted_blobs + 1);
            assert!(lost(&classes[5]) < 40, "the oldest leases go first");
        }
        assert!(store.stats().evicted_leased_blobs > 0);
    }

    #[test]
    fn a_cached_result_goes_before_the_blobs_of_its_age() {
        let root = directory();
        let store = open(root.path());
        let cache = store.action_cache();
        let old: Vec<_> = (0..20).map(|number| put(&store, number, 50 * HOUR, true)).collect();
        for instance in ["", "other"] {
            for action in &old {
                cache.put(instance, action, b"old").expect("stored");
            }
        }
        let now = store.evictor().clock.now();
        for shard in 0..=u8::MAX {
            for (key, _) in cache.index().idle((FUNCTION, shard), 0, now, 0) {
                cache.index().insert(&key, Usage::recorded(now - 50 * HOUR, true));
            }
        }
        let young = Digest::of(FUNCTION, b"young");
        cache.put("", &young, b"young").expect("stored");
        flood(&store, 1);
        for action in &old {
            for instance in ["", "other"] {
                assert_eq!(cache.get(instance, action).expect("read"), None);
            }
        }
        assert_eq!(store.stats().evicted_results, 40);
        assert!(cache.get("", &young).expect("read").is_some());
        assert_eq!(cache.index().files(), 1);
    }

    #[test]
    fn what_is_known_of_use_survives_a_restart() {
        let root = directory();
        let store = open(root.path());
        let once = put(&store, 1, 0, false);
        let reused = put(&store, 2, 0, true);
        let used = store.stats().used_bytes;
        drop(store);
        let store = open(root.path());
        let mut found = Vec::new();
        store.cas().index().each(FUNCTION, |record| {
            found.push((record.hash.to_vec(), record.usage.is_reused));
        });
        assert!(found.contains(&(once.hash().to_vec(), false)));
        assert!(found.contains(&(reused.hash().to_vec(), true)));
        assert_eq!(store.stats().used_bytes, used, "the account comes back as well");
    }
}
