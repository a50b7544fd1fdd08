//! The store's disk space and its bound.
//!
//! Everything that takes blocks is charged before it is written: uploads while they grow, blobs,
//! cached results, and what is in quarantine. Two bounds hold: the limit of the store, and a reserve
//! of the file system that stays free whoever fills it.
//!
//! ```text
//!  0 ──────────────── low ──── high ── limit
//!    charged at once │        │       │
//!                    │        │       └ the charge waits for the evictor, then fails
//!                    │        └ the evictor is woken
//!                    └ the evictor stops here
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags, StatVfs, fstatvfs};

use crate::disk::{openat, syncfs};
use crate::error::{Shortage, StoreError};
use crate::trouble::Trouble;

/// The cost of a file beside its blocks: its entry in a directory, and its inode where inodes are
/// made as they are needed.
const FILE_OVERHEAD_BYTES: u64 = 512;
/// One in so many bytes, and one in so many inodes, stays free.
const RESERVE_SHARE: u64 = 50;
/// More is never kept free: it is there to end what has begun.
const RESERVE_BYTES_MAX: u64 = 1 << 30;
/// The evictor works when less than so many reserves are free: before the reserve is touched, because running actions are
/// stopped when it is.
pub(crate) const AHEAD: u64 = 2;
/// The most that is charged until the next look at the file system.
const UNCHECKED_BYTES_MAX: u64 = 8 << 20;
/// A pass for the limit frees one in so many bytes at least. That is the distance of the two marks, so that this never makes a pass go on
/// beyond the lower one.
const PASS_SHARE_MIN: u64 = HIGH_SHARE;
/// The evictor begins when less than one in so many bytes of the limit is left.
const HIGH_SHARE: u64 = 128;
/// The evictor stops when one in so many bytes of the limit is left: less than 2 %, see [`Space::low`].
const LOW_SHARE: u64 = 64;
/// The number of the evictor's passes that a charge waits for. The second sees what the first one's other
/// waiters took, and what was pinned for a moment.
const PASSES_MAX: usize = 3;
/// How often, and how many times, the file system is asked whether what was freed is free: 2 s in all.
const FREED_PERIOD: Duration = Duration::from_millis(50);
const FREED_LOOKS: usize = 40;

/// The account of the store.
pub(crate) struct Space {
    directory: OwnedFd,
    /// [`u64::MAX`] for none.
    limit: AtomicU64,
    block_bytes: u64,
    reserve: Reserve,
    used: AtomicU64,
    /// The part of it that is known from an earlier server's account only: files in directories that are
    /// still to be listed.
    unlisted: AtomicU64,
    /// Charged since the file system was looked at.
    unchecked: AtomicU64,
    trouble: Trouble,
    /// The evictor was asked to work ahead and has not begun yet.
    is_asked: AtomicBool,
    state: Mutex<State>,
    pressure: Condvar,
    relieved: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes that charges wait for.
    wanted: u64,
    begun: u64,
    ended: u64,
    is_closed: bool,
}

/// The part of a file system that stays free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reserve {
    bytes: u64,
    inodes: u64,
}

/// Bytes that were charged, and are given back when this is dropped.
#[must_use = "what is charged is given back when this is dropped"]
pub(crate) struct Charge {
    space: Arc<Space>,
    bytes: u64,
}

impl Space {
    /// An account of the file system of `directory`. Without a limit, nothing is bounded and nothing
    /// is kept free.
    pub(crate) fn new(directory: OwnedFd) -> rustix::io::Result<Self> {
        let disk = fstatvfs(&directory)?;
        Ok(Self {
            directory,
            limit: AtomicU64::new(u64::MAX),
            block_bytes: disk.f_frsize.max(512),
            reserve: Reserve::of(&disk),
            used: AtomicU64::new(0),
            unlisted: AtomicU64::new(0),
            unchecked: AtomicU64::new(0),
            trouble: Trouble::default(),
            is_asked: AtomicBool::new(false),
            state: Mutex::default(),
            pressure: Condvar::new(),
            relieved: Condvar::new(),
        })
    }

    /// The blocks that a file of that size takes, and what else it costs.
    pub(crate) fn cost(&self, size_bytes: u64) -> u64 {
        size_bytes.next_multiple_of(self.block_bytes).saturating_add(FILE_OVERHEAD_BYTES)
    }

    /// Counts directories that were made: a block each, while they are small.
    pub(crate) fn add_directories(&self, count: u64) {
        if self.limit().is_some() {
            self.add(count * self.block_bytes);
        }
    }

    /// The charge so far.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bounds the store from now on.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The limit, if there is one.
    pub(crate) fn limit(&self) -> Option<u64> {
        Some(self.limit_or_max()).filter(|limit| *limit != u64::MAX)
    }

    fn limit_or_max(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// The reasons of failed writes.
    pub(crate) fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// Charges what is on the disk already.
    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Charges what an earlier server had in its account beyond what is known now.
    pub(crate) fn add_unlisted(&self, used_by_account: u64) {
        let bytes = used_by_account.saturating_sub(self.used());
        self.unlisted.fetch_add(bytes, Ordering::Relaxed);
        self.add(bytes);
    }

    /// Charges what the files of a directory cost, in place of what the index file said.
    pub(crate) fn settle(&self, cost_bytes: u64, recorded_bytes: u64) {
        self.add(cost_bytes);
        self.release(recorded_bytes);
        self.release_unlisted(cost_bytes.saturating_sub(recorded_bytes));
    }

    /// Every directory is listed.
    pub(crate) fn settle_all(&self) {
        self.release_unlisted(u64::MAX);
    }

    fn release_unlisted(&self, bytes_max: u64) {
        let less = |unlisted: u64| Some(unlisted.saturating_sub(bytes_max));
        let before = self.unlisted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.release(before.map_or(0, |before| before.min(bytes_max)));
    }

    /// Gives back what was charged.
    pub(crate) fn release(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Charges a file of that size; waits for the evictor when there is no room.
    pub(crate) fn charge_file(self: &Arc<Self>, size_bytes: u64) -> Result<Charge, StoreError> {
        let bytes = self.cost(size_bytes);
        self.take(bytes)?;
        Ok(Charge { space: Arc::clone(self), bytes })
    }

    fn take(&self, bytes: u64) -> Result<(), StoreError> {
        let Some(limit) = self.limit() else {
            self.add(bytes);
            return Ok(());
        };
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let is_within = before.saturating_add(bytes) <= limit && self.is_reserve_free(bytes);
        if is_within {
            if before + bytes > self.high() {
                self.ask();
            }
            return Ok(());
        }
        self.release(bytes);
        self.take_or_wait(bytes).map_err(|shortage| {
            self.trouble.refused(shortage);
            StoreError::Full(shortage)
        })
    }

    /// Wakes the evictor, to work ahead.
    fn ask(&self) {
        if !self.is_asked.swap(true, Ordering::Relaxed) {
            // With the lock, or the evictor may be about to sleep.
            let _state = self.state.lock();
            self.pressure.notify_one();
        }
    }

    fn take_or_wait(&self, bytes: u64) -> Result<(), Shortage> {
        let mut shortage = Shortage::Limit { bytes: self.limit_or_max() };
        for pass in 0..=PASSES_MAX {
            match self.try_take(bytes) {
                Ok(()) => return Ok(()),
                Err(short) => shortage = short,
            }
            if pass < PASSES_MAX && !self.wait_for_pass(bytes) {
                break;
            }
        }
        Err(shortage)
    }

    fn try_take(&self, bytes: u64) -> Result<(), Shortage> {
        let fits = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit_or_max());
        if self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(Shortage::Limit { bytes: self.limit_or_max() });
        }
        if !self.reserve.is_free(self.disk().as_ref()) {
            self.release(bytes);
            return Err(Shortage::Reserve { bytes: self.reserve.bytes });
        }
        Ok(())
    }

    /// Waits until a pass has ended that began after this call. False when there is no evictor.
    fn wait_for_pass(&self, bytes: u64) -> bool {
        let mut state = self.state.lock();
        state.wanted = state.wanted.saturating_add(bytes);
        let before = state.begun;
        while state.ended <= before {
            if state.is_closed {
                return false;
            }
            self.pressure.notify_one();
            self.relieved.wait(&mut state);
        }
        true
    }

    /// Looks at the file system now and then, on the path of every charge.
    fn is_reserve_free(&self, bytes: u64) -> bool {
        let unchecked = self.unchecked.fetch_add(bytes + self.block_bytes, Ordering::Relaxed);
        if unchecked < UNCHECKED_BYTES_MAX.min(self.reserve.bytes / 4) {
            return true;
        }
        self.unchecked.store(0, Ordering::Relaxed);
        let disk = self.disk();
        if disk.as_ref().is_some_and(|disk| self.reserve.missing(disk, AHEAD, 0, 1) > 0) {
            self.ask();
        }
        self.reserve.is_free(disk.as_ref())
    }

    fn disk(&self) -> Option<StatVfs> {
        // A file system that can't be looked at is not full: the write itself will tell.
        fstatvfs(self.directory.as_fd()).ok()
    }

    /// The free space of the file system in bytes; 0 if it can't be looked at.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.disk().as_ref().map_or(0, free_bytes)
    }

    /// Waits for the file system to have free what a pass freed, when the pass was for the sake of the disk. btrfs has it with
    /// the next commit, XFS some moments later. Until then every other pass would evict for the same need again.
    ///
    /// `free_before` is what was free before the pass. The wait is bounded, because others may take the space at the same
    /// time.
    pub(crate) fn wait_for_freed(&self, free_before: u64, freed: u64) {
        let goal = free_before.saturating_add(freed / 2);
        let is_there = |disk: StatVfs| {
            self.reserve.missing(&disk, AHEAD, 0, 1) == 0 || free_bytes(&disk) >= goal
        };
        if self.limit().is_none() || self.disk().is_none_or(is_there) {
            return;
        }
        // The kernel tells an error of the disk once to each open file, and the checkpoint has to hear of it. So this
        // sync is that of another one.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(another) = openat(&self.directory, ".", flags, Mode::empty()) {
            let _ = syncfs(&another);
        }
        for _ in 0..FREED_LOOKS {
            if self.disk().is_none_or(is_there) {
                return;
            }
            std::thread::sleep(FREED_PERIOD);
        }
    }

    fn high(&self) -> u64 {
        self.limit_or_max() - self.limit_or_max() / HIGH_SHARE
    }

    /// Close to the limit: a build that fits with 2 % to spare loses nothing. A pass leaves at least this much, less what
    /// charges wait for. So as long as a build and its charges that wait are no more than this, older content is enough.
    fn low(&self) -> u64 {
        self.limit_or_max() - self.limit_or_max() / LOW_SHARE
    }

    /// The number of bytes to evict for the limit.
    pub(crate) fn excess(&self, wanted: u64) -> u64 {
        let Some(_) = self.limit() else { return 0 };
        let taken = self.used().saturating_add(wanted);
        if taken <= self.high() {
            return 0;
        }
        // A pass looks at everything, and should be worth it.
        taken.saturating_sub(self.low()).max(self.used() / PASS_SHARE_MIN)
    }

    /// The number of bytes that the file system lacks so that the reserve is free that many times beside what is wanted.
    /// `files` are candidates for eviction, for a file system that runs out of inodes.
    pub(crate) fn missing(&self, reserves: u64, wanted: u64, files: u64) -> u64 {
        let Some(_) = self.limit() else { return 0 };
        let mean_file_bytes = self.used() / files.max(1);
        self.disk().map_or(0, |disk| self.reserve.missing(&disk, reserves, wanted, mean_file_bytes))
    }

    /// The least that a pass for the disk should free, because it looks at everything. Such passes begin before the reserve
    /// is touched.
    pub(crate) fn disk_pass_min(&self) -> u64 {
        (self.used() / PASS_SHARE_MIN).min(self.reserve.bytes / 2)
    }

    /// Waits for pressure, or for that long, and begins a pass. Gives the bytes that charges wait
    /// for; `None` when the store is closed.
    pub(crate) fn begin_pass(&self, patience: Duration) -> Option<u64> {
        let mut state = self.state.lock();
        if !state.is_closed && state.wanted == 0 && !self.is_asked.load(Ordering::Relaxed) {
            self.pressure.wait_for(&mut state, patience);
        }
        if state.is_closed {
            return None;
        }
        self.is_asked.store(false, Ordering::Relaxed);
        state.begun += 1;
        Some(std::mem::take(&mut state.wanted))
    }

    /// Tells those that wait that the pass has ended.
    pub(crate) fn end_pass(&self) {
        let mut state = self.state.lock();
        state.ended = state.begun;
        self.relieved.notify_all();
    }

    /// Whether [`Space::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// There is no evictor any more: charges that find no room fail at once.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.pressure.notify_all();
        self.relieved.notify_all();
    }
}

impl Reserve {
    fn of(disk: &StatVfs) -> Self {
        let bytes = disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_SHARE;
        Self { bytes: bytes.min(RESERVE_BYTES_MAX), inodes: disk.f_files / RESERVE_SHARE }
    }

    fn is_free(&self, disk: Option<&StatVfs>) -> bool {
        let Some(disk) = disk else { return true };
        free_bytes(disk) >= self.bytes && (disk.f_files == 0 || disk.f_ffree >= self.inodes)
    }

    /// The bytes to free so that it is free that many times, and `wanted` bytes beside it.
    fn missing(&self, disk: &StatVfs, times: u64, wanted: u64, mean_file_bytes: u64) -> u64 {
        let of_bytes = (times * self.bytes).saturating_add(wanted).saturating_sub(free_bytes(disk));
        // A file system that makes inodes as it needs them says that it has none (btrfs).
        let of_inodes = match disk.f_files {
            0 => 0,
            _ => (times * self.inodes).saturating_sub(disk.f_ffree),
        };
        of_bytes.max(of_inodes.saturating_mul(mean_file_bytes))
    }
}

/// The server is root, mostly, and may use the blocks that are kept for it. Root of a user namespace may
/// not. Nor may anybody on a file system that makes inodes as it needs them (btrfs): it counts as free what is kept
/// for its metadata.
fn free_bytes(disk: &StatVfs) -> u64 {
    static IS_ROOT: LazyLock<bool> =
        LazyLock::new(|| rustix::process::geteuid().is_root() && sys::user_namespace::is_initial());
    let blocks = if *IS_ROOT && disk.f_files != 0 { disk.f_bfree } else { disk.f_bavail };
    blocks.saturating_mul(disk.f_frsize)
}

impl Charge {
    /// Charges as much more as a file needs that has grown to that size.
    pub(crate) fn grow_to(&mut self, size_bytes: u64) -> Result<(), StoreError> {
        let bytes = self.space.cost(size_bytes);
        if bytes > self.bytes {
            self.space.take(bytes - self.bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// The bytes that are charged.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file has a name now, and is charged until that is taken away.
    pub(crate) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.space.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(limit: Option<u64>) -> Arc<Space> {
        let directory = std::fs::File::open("/").expect("a directory");
        let space = Space::new(directory.into()).expect("a file system");
        limit.into_iter().for_each(|limit| space.set_limit(limit));
        Arc::new(space)
    }

    #[test]
    fn what_is_charged_is_given_back_or_kept() {
        let space = space(None);
        let cost = space.cost(1);
        assert!(cost > space.block_bytes && space.cost(0) < cost);
        let mut charge = space.charge_file(1).expect("charged");
        charge.grow_to(10 * space.block_bytes).expect("charged");
        assert_eq!(space.used(), space.cost(10 * space.block_bytes));
        drop(charge);
        assert_eq!(space.used(), 0);
        space.charge_file(1).expect("charged").keep();
        assert_eq!(space.used(), cost);
    }

    #[test]
    fn an_earlier_account_stands_until_the_directories_are_listed() {
        let space = space(None);
        space.add(100); // As the index file has it: 40 and 60.
        space.add_unlisted(130);
        assert_eq!(space.used(), 130);
        space.settle(60, 40);
        assert_eq!(space.used(), 130, "20 of the 30 are found");
        space.settle(50, 60);
        assert_eq!(space.used(), 120, "others are gone");
        space.settle_all();
        assert_eq!(space.used(), 110, "what there is");
        space.settle_all();
        space.add_unlisted(50);
        assert_eq!(space.used(), 110);
    }

    #[test]
    fn over_the_limit_nothing_is_charged() {
        let space = space(Some(1 << 20));
        space.close();
        let within = space.charge_file(1 << 19).expect("charged");
        let refused = space.charge_file(1 << 20).map(drop);
        assert!(matches!(refused, Err(StoreError::Full(Shortage::Limit { .. }))), "{refused:?}");
        assert_eq!(space.used(), within.bytes);
        assert_eq!(space.trouble().counts().over_limit, 1);
    }

    #[test]
    fn the_evictor_makes_room_for_a_charge_that_waits() {
        let space = space(Some(1 << 20));
        space.add(1 << 20);
        let evictor = {
            let space = Arc::clone(&space);
            std::thread::spawn(move || {
                while let Some(wanted) = space.begin_pass(Duration::from_secs(60)) {
                    let excess = space.excess(wanted);
                    assert!(excess >= wanted);
                    space.release(excess.min(space.used()));
                    space.end_pass();
                }
            })
        };
        space.charge_file(1 << 18).expect("room was made").keep();
        space.close();
        evictor.join().expect("no panic");
        assert!(space.used() <= 1 << 20);
    }

    #[test]
    fn older_content_is_enough_for_a_build_with_two_percent_to_spare() {
        for limit in [64 << 20, 100_000_007, 1 << 30, 100 << 30] {
            let directory = std::fs::File::open("/").expect("a directory");
            let mut space = Space::new(directory.into()).expect("a file system");
            // Others fill this file system, too.
            space.reserve = Reserve { bytes: 0, inodes: 0 };
            let space = Arc::new(space);
            space.set_limit(limit);
            space.close();
            let mut older = limit;
            space.add(older);
            let (mut build, mut passes) = (0, 0);
            for number in 0.. {
                let size = [limit / 1000, 70_000, limit / 100, 1, limit / 300][number % 5];
                let cost = space.cost(size);
                if build + cost > limit / 100 * 98 {
                    break;
                }
                let is_waiting = space.used() + cost > limit;
                let excess = space.excess(if is_waiting { cost } else { 0 });
                assert!(excess <= older, "{limit}: {excess} of {older}, after {build}");
                older -= excess;
                space.release(excess);
                passes += usize::from(excess > 0);
                space.charge_file(size).expect("room was made").keep();
                build += cost;
            }
            assert!(build > limit / 100 * 96, "{limit}: {build}");
            // A pass is worth it.
            assert!(passes <= 128, "{limit}: {passes} passes");
        }
    }

    #[test]
    fn the_reserve_is_of_bytes_and_inodes() {
        let any = rustix::fs::statvfs("/").expect("a file system");
        let disk = |free, inodes| StatVfs {
            f_frsize: 4096,
            f_blocks: 10_000,
            f_bfree: free,
            f_bavail: free,
            f_files: 1000,
            f_ffree: inodes,
            ..any
        };
        let reserve = Reserve::of(&disk(0, 0));
        assert_eq!(reserve, Reserve { bytes: 200 * 4096, inodes: 20 });
        for (free, inodes, is_free, shortage) in [
            (1000, 1000, true, 0),
            (200, 1000, true, 200 * 4096),
            (199, 1000, false, 201 * 4096),
            (1000, 19, false, 21 * 10_000),
            (0, 0, false, 400 * 4096),
        ] {
            let disk = disk(free, inodes);
            assert_eq!(reserve.is_free(Some(&disk)), is_free, "{free} {inodes}");
            assert_eq!(reserve.missing(&disk, AHEAD, 0, 10_000), shortage, "{free} {inodes}");
        }
        // A file system without a number of inodes counts what its metadata may take as free.
        let btrfs = StatVfs { f_files: 0, f_ffree: 0, f_bavail: 199, ..disk(5000, 0) };
        assert!(!reserve.is_free(Some(&btrfs)));
        assert_eq!(reserve.missing(&btrfs, AHEAD, 0, 10_000), 201 * 4096);
    }
}
