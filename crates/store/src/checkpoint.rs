//! Durability without a sync per blob.
//!
//! A `fsync` per blob would cost more than everything else an upload does. A cache needs less:
//! after a crash of the machine it must know which blobs may be torn. So every few seconds,
//! if something changed, a thread calls `syncfs` and records the time; a start after a crash hashes
//! again what is younger. See `docs/storage-format.md`, "state".
//!
//! Linux reports a failed write once. The next sync succeeds, and the lost data stays lost. So after a
//! failed sync everything that is younger than the last checkpoint is suspect: reads hash it before they
//! serve it, no checkpoint is made and nothing says `clean`. When a sync succeeds again, the thread
//! hashes all suspect blobs as they are on the disk, moves the damaged ones into quarantine, and only
//! then makes checkpoints again. A server that ends before that leaves it to the next start.
//!
//! Data that is not on the disk yet is bounded in bytes and in time. The thread begins early enough that callers
//! mostly do not notice; a change that goes beyond the bound waits until enough is on the disk. With [`Durability::Group`] every caller waits for one before its client is told; all that wait
//! at the same time share it.
//!
//! ```text
//!   change ──> dirty ──(interval)──> syncfs ──> state: checkpoint   and so on
//!                                      │ fails
//!                                      ▼
//!              ┌─────────────────> SUSPECT ──(interval)──> syncfs ──> hash what is suspect ──> good again
//!              └── fails ──────────────────────────────────┴──────────────┘
//!   close: no more changes ──> syncfs ──> state: checkpoint, clean
//! ```

use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::error::StoreError;
use crate::state::{BootId, StateFile, checkpoint_now};
use crate::sync::{SyncFileSystem, sync_for};
use crate::trouble::Paced;

/// Hashes the blobs on the disk that changed since a time, in seconds since the epoch. Gives their
/// number, and the number of damaged ones.
pub(crate) type Verify = dyn Fn(i64) -> Result<(u64, u64), StoreError> + Send;

/// Nothing is suspect.
const NEVER: i64 = i64::MAX;

/// Data that is stored and not on the disk yet calls for a checkpoint from this many bytes on. Half of
/// [`UNSYNCED_BYTES_MAX`]: callers do not wait as long as a sync of this much ends before as much again is
/// stored. With less, more of a short build's uploads would share processor and disk with a sync.
const UNSYNCED_BYTES: u64 = 512 << 20;
/// And from this many bytes on, what is stored next waits for it. So a crash of the machine costs no
/// more than this, or one blob that is larger.
const UNSYNCED_BYTES_MAX: u64 = 1 << 30;
/// As [`UNSYNCED_BYTES_MAX`], with the time since the first of these changes.
const UNSYNCED_MILLIS_MAX: u64 = 30_000;

/// When what a client was told has reached the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Some seconds later. A crash of the machine costs at most what was stored in the last 30 s, and at
    /// most 1 GiB of it or one larger blob. A killed server costs nothing.
    #[default]
    Lazy,
    /// Before the client is told: one sync for all that wait.
    Group,
}

impl FromStr for Durability {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "lazy" => Ok(Self::Lazy),
            "group" => Ok(Self::Group),
            _ => Err("use lazy or group"),
        }
    }
}

/// Syncs that several callers share.
#[derive(Default)]
struct Group {
    is_running: bool,
    /// The number of syncs that failed.
    failed: u64,
}

/// Records what reached the disk, and keeps changes out once the store is closed.
pub(crate) struct Checkpoints {
    root: OwnedFd,
    temporary: OwnedFd,
    boot: BootId,
    sync: SyncFileSystem,
    /// The last one that was recorded, in seconds since the epoch.
    recorded: AtomicI64,
    /// From when on files may not be what was written; [`NEVER`] as long as every sync went well.
    suspect_since: AtomicI64,
    /// A server that ended without order left this one work, which is not done yet.
    is_recovering: AtomicBool,
    /// The last checkpoint could not be recorded, and not because the disk is full.
    is_unrecorded: AtomicBool,
    closed: RwLock<bool>,
    durability: Durability,
    dirty: AtomicBool,
    /// Counts the changes that have ended.
    changes: AtomicU64,
    /// The value of `changes` when the last successful sync began.
    synced: AtomicU64,
    unsynced_bytes: AtomicU64,
    /// The time of the first change that is not on the disk, in [`coarse_millis`]; 0 if there is none.
    unsynced_since: AtomicU64,
    group: Mutex<Group>,
    has_synced: Condvar,
    stop: Mutex<bool>,
    is_urgent: AtomicBool,
    wake: Condvar,
}

/// A change that is under way: the store can't be closed before it is dropped.
pub(crate) struct Change<'a> {
    checkpoints: &'a Checkpoints,
    _open: RwLockReadGuard<'a, bool>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // Afterwards, not before: a checkpoint in between must not take this change for synced.
        let checkpoints = self.checkpoints;
        checkpoints.dirty.store(true, Ordering::Release);
        checkpoints.changes.fetch_add(1, Ordering::SeqCst);
        if checkpoints.unsynced_since.load(Ordering::SeqCst) == 0 {
            checkpoints.unsynced_since.store(coarse_millis(), Ordering::Relaxed);
        }
    }
}

/// The time since the machine started, in milliseconds; no system call.
fn coarse_millis() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

impl Checkpoints {
    pub(crate) fn new(
        root: OwnedFd,
        temporary: OwnedFd,
        boot: BootId,
        durability: Durability,
    ) -> Self {
        Self {
            sync: sync_for(&root),
            root,
            temporary,
            boot,
            recorded: AtomicI64::new(i64::MIN),
            suspect_since: AtomicI64::new(NEVER),
            is_recovering: AtomicBool::new(false),
            is_unrecorded: AtomicBool::new(false),
            closed: RwLock::new(false),
            durability,
            dirty: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            unsynced_bytes: AtomicU64::new(0),
            unsynced_since: AtomicU64::new(0),
            group: Mutex::default(),
            has_synced: Condvar::new(),
            stop: Mutex::new(false),
            is_urgent: AtomicBool::new(false),
            wake: Condvar::new(),
        }
    }

    /// To be held while files appear or disappear.
    pub(crate) fn begin_change(&self) -> Result<Change<'_>, StoreError> {
        let closed = self.closed.read();
        if *closed {
            return Err(StoreError::Closed);
        }
        Ok(Change { checkpoints: self, _open: closed })
    }

    /// Syncs everything and records it.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        let checkpoint = checkpoint_now();
        self.sync()?;
        self.record(false, checkpoint)
    }

    /// From when on files have to be hashed before they are served, in seconds since the epoch.
    pub(crate) fn suspect_since(&self) -> Option<i64> {
        let since = self.suspect_since.load(Ordering::Acquire);
        (since != NEVER).then_some(since)
    }

    /// Counts a file that was stored. Waits for a sync if too much is not on the disk yet.
    pub(crate) fn stored(&self, bytes: u64) {
        let before = self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed);
        let after = before.saturating_add(bytes);
        let is_much = after >= UNSYNCED_BYTES && self.suspect_since().is_none();
        if is_much && !self.is_urgent.swap(true, Ordering::Relaxed) {
            // With the lock, or the thread may be about to sleep.
            let _stop = self.stop.lock();
            self.wake.notify_one();
        }
        // One blob alone may be larger than the bound.
        if before > 0 && self.is_out_of_bounds() {
            self.wait_until_bounded();
        }
    }

    /// Waits until what is not on the disk is within the bounds. A sync that is under way may be enough,
    /// so that one which begins now is mostly not waited for. When a sync fails, this returns: the
    /// thread that makes checkpoints tells of it, and so does health.
    fn wait_until_bounded(&self) {
        let mut group = self.group.lock();
        let failed = group.failed;
        while self.is_out_of_bounds() && group.failed == failed {
            if group.is_running {
                self.has_synced.wait(&mut group);
            } else {
                let _ = self.sync_with(&mut group);
            }
        }
    }

    fn is_out_of_bounds(&self) -> bool {
        let since = self.unsynced_since.load(Ordering::Relaxed);
        let is_late = since != 0 && coarse_millis().saturating_sub(since) > UNSYNCED_MILLIS_MAX;
        is_late || self.unsynced_bytes.load(Ordering::Relaxed) > UNSYNCED_BYTES_MAX
    }

    /// With [`Durability::Group`], waits until every change that has ended is on the disk.
    pub(crate) fn make_durable(&self) -> Result<(), StoreError> {
        if self.is_told_durably() { Ok(()) } else { self.sync_changes() }
    }

    /// Whether [`Checkpoints::make_durable`] would not wait.
    pub(crate) fn is_told_durably(&self) -> bool {
        let changes = self.changes.load(Ordering::Acquire);
        self.durability == Durability::Lazy || self.synced.load(Ordering::Acquire) >= changes
    }

    /// Waits for a sync that begins after this call, unless everything is on the disk. One of those
    /// that wait makes it.
    fn sync_changes(&self) -> Result<(), StoreError> {
        let wanted = self.changes.load(Ordering::Acquire);
        let mut group = self.group.lock();
        let failed = group.failed;
        while self.synced.load(Ordering::Acquire) < wanted {
            if group.failed != failed {
                return Err(StoreError::SyncFailed);
            }
            if group.is_running {
                self.has_synced.wait(&mut group);
                continue;
            }
            self.sync_with(&mut group)?;
        }
        Ok(())
    }

    /// Makes a sync that begins after this call.
    fn sync(&self) -> Result<(), StoreError> {
        let mut group = self.group.lock();
        while group.is_running {
            self.has_synced.wait(&mut group);
        }
        self.sync_with(&mut group)
    }

    /// Makes a sync, and tells all that wait for one. None is under way.
    fn sync_with(&self, group: &mut MutexGuard<'_, Group>) -> Result<(), StoreError> {
        group.is_running = true;
        let synced = MutexGuard::unlocked(group, || self.sync_alone());
        group.is_running = false;
        group.failed += u64::from(synced.is_err());
        self.has_synced.notify_all();
        synced
    }

    fn sync_alone(&self) -> Result<(), StoreError> {
        let is_recovering = self.is_recovering.load(Ordering::Acquire);
        if self.suspect_since().is_some() && !is_recovering {
            return Err(StoreError::SyncFailed);
        }
        let began = coarse_millis();
        let changes = self.changes.load(Ordering::Acquire);
        let bytes = self.unsynced_bytes.load(Ordering::Relaxed);
        (self.sync)(&self.root).map_err(|e| {
            if !is_recovering {
                let since = self.recorded.load(Ordering::Acquire);
                self.suspect_since.store(since, Ordering::Release);
            }
            tracing::error!(
                error = %e,
                "the file system lost data of the store; what was stored since the last checkpoint \
                 is hashed before it is served. Look at the disk: when it works again, the server \
                 hashes all of it and goes on"
            );
            StoreError::io("sync", "the store", e)
        })?;
        self.note_synced(changes, bytes, began);
        Ok(())
    }

    /// Everything is on the disk that had changed when a sync began.
    fn note_synced(&self, changes: u64, bytes: u64, began: u64) {
        self.synced.fetch_max(changes, Ordering::AcqRel);
        let less = |now: u64| Some(now.saturating_sub(bytes));
        let _ = self.unsynced_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        self.unsynced_since.store(0, Ordering::SeqCst);
        if self.changes.load(Ordering::SeqCst) != changes {
            self.unsynced_since.store(began, Ordering::Relaxed);
        }
    }

    /// Whether what is stored now reaches the disk, as far as is known.
    pub(crate) fn is_durable(&self) -> bool {
        self.suspect_since().is_none() && !self.is_unrecorded.load(Ordering::Acquire)
    }

    /// Tries to end the state after a failed sync. `verify` hashes the blobs that changed since that
    /// time on the disk.
    fn heal(&self, verify: &Verify) -> Result<(), StoreError> {
        let Some(since) = self.suspect_since() else { return Ok(()) };
        let failed = |e| StoreError::io("sync", "the store", e);
        let checkpoint = checkpoint_now();
        let began = coarse_millis();
        let changes = self.changes.load(Ordering::Acquire);
        let bytes = self.unsynced_bytes.load(Ordering::Relaxed);
        (self.sync)(&self.root).map_err(failed)?;
        let (verified, damaged) = verify(since)?;
        // Brings to the disk what went into quarantine, and tells of errors meanwhile.
        (self.sync)(&self.root).map_err(failed)?;
        self.record(false, checkpoint)?;
        self.suspect_since.store(NEVER, Ordering::Release);
        self.note_synced(changes, bytes, began);
        tracing::warn!(verified, damaged, "the disk works again; what it lost is in quarantine");
        Ok(())
    }

    /// Lets nothing be recorded as good, and files that changed since then be hashed before they are
    /// served, until [`Checkpoints::end_recovery`].
    pub(crate) fn begin_recovery(&self, since: i64) {
        self.is_recovering.store(true, Ordering::Release);
        self.suspect_since.store(since, Ordering::Release);
    }

    /// Brings to the disk what the kernel still has of the last server's files, all at once: hashing
    /// them on the disk would do that file by file.
    pub(crate) fn flush_for_recovery(&self) {
        if let Err(error) = (self.sync)(&self.root) {
            // The blobs are hashed as they are on the disk, which finds what was lost.
            tracing::warn!(%error, "the file system lost data; young blobs are hashed");
        }
    }

    /// All files that are in the index are known to be right.
    pub(crate) fn end_recovery(&self) -> Result<(), StoreError> {
        let checkpoint = checkpoint_now();
        // If the sync fails, files stay suspect, and the thread tries to end that.
        self.is_recovering.store(false, Ordering::Release);
        (self.sync)(&self.root).map_err(|e| StoreError::io("sync", "the store", e))?;
        self.record(false, checkpoint)?;
        self.suspect_since.store(NEVER, Ordering::Release);
        Ok(())
    }

    /// Records that a server runs, when everything is known to be on the disk.
    pub(crate) fn record_start(&self) -> Result<(), StoreError> {
        self.record(false, checkpoint_now())
    }

    /// Makes checkpoints in a thread until [`Checkpoints::close`]. `verify` is for [`Checkpoints::heal`].
    pub(crate) fn spawn(
        self: &Arc<Self>,
        interval: Duration,
        verify: Box<Verify>,
    ) -> std::io::Result<JoinHandle<()>> {
        let checkpoints = Arc::clone(self);
        std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || checkpoints.run(interval, &*verify))
    }

    /// Ends the thread, keeps further changes out and records that everything is on the disk.
    /// `write_last` is called in between: what it writes is brought to the disk as well.
    pub(crate) fn close(
        &self,
        thread: Option<JoinHandle<()>>,
        write_last: impl FnOnce(),
    ) -> Result<(), StoreError> {
        *self.stop.lock() = true;
        self.wake.notify_all();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that makes checkpoints panicked");
        }
        let mut closed = self.closed.write();
        if *closed {
            return Ok(());
        }
        *closed = true;
        if self.is_recovering.load(Ordering::Acquire) {
            // The record that the last server left stands.
            return Ok(());
        }
        write_last();
        let checkpoint = checkpoint_now();
        // Other files on the file system can make this slow, so it is done only when needed.
        if self.dirty.load(Ordering::Acquire) {
            self.sync()?;
        }
        if self.suspect_since().is_some() {
            return Err(StoreError::SyncFailed);
        }
        self.record(true, checkpoint)
    }

    fn run(&self, interval: Duration, verify: &Verify) {
        let lines = Paced::default();
        let mut stop = self.stop.lock();
        while !*stop {
            if !self.is_urgent.load(Ordering::Relaxed) {
                self.wake.wait_for(&mut stop, interval);
            }
            if !*stop {
                MutexGuard::unlocked(&mut stop, || self.checkpoint_or_retry(verify, &lines));
            }
        }
    }

    fn checkpoint_or_retry(&self, verify: &Verify, lines: &Paced) {
        self.is_urgent.store(false, Ordering::Relaxed);
        if self.is_recovering.load(Ordering::Acquire) {
            return;
        }
        let done = if self.suspect_since().is_some() {
            self.heal(verify)
        } else if self.dirty.swap(false, Ordering::AcqRel) {
            self.checkpoint()
        } else {
            Ok(())
        };
        if let Err(error) = done {
            // The record of the last one stands: a crash now costs hashing more, nothing else.
            self.dirty.store(true, Ordering::Release);
            if let Some(times) = lines.add(1) {
                tracing::warn!(times, error = &error as &dyn std::error::Error, "no checkpoint");
            }
        }
    }

    fn record(&self, clean: bool, checkpoint: i64) -> Result<(), StoreError> {
        let recorded = self.try_record(clean, checkpoint);
        self.is_unrecorded.store(recorded.is_err(), Ordering::Release);
        recorded
    }

    fn try_record(&self, clean: bool, checkpoint: i64) -> Result<(), StoreError> {
        let state = StateFile { boot: self.boot.clone(), clean, checkpoint };
        match state.write(&self.temporary, &self.root) {
            // The file that is there says what was true before this server, maybe that all is
            // well. Without one, the next start trusts nothing; removing it takes no room.
            Err(Errno::NOSPC | Errno::DQUOT) if !clean => {
                tracing::warn!("the disk is full: the state of the store can't be recorded");
                StateFile::remove(&self.root).map_err(|e| StoreError::io("remove", "state", e))
            }
            // Nothing is lost: the record that stands says that a server runs.
            Err(Errno::NOSPC | Errno::DQUOT) => {
                tracing::warn!("the disk is full: the next start reads young blobs again");
                Ok(())
            }
            written => {
                written.map_err(|e| StoreError::io("write", "state", e))?;
                self.recorded.store(checkpoint, Ordering::Release);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_sync_that_failed_nothing_is_called_good() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = || OwnedFd::from(std::fs::File::open(directory.path()).expect("a directory"));
        std::fs::create_dir(directory.path().join("tmp")).expect("a directory");
        let temporary = std::fs::File::open(directory.path().join("tmp")).expect("a directory");
        let mut checkpoints =
            Checkpoints::new(open(), temporary.into(), BootId(None), Durability::Lazy);
        checkpoints.checkpoint().expect("a checkpoint");
        let state = || std::fs::read_to_string(directory.path().join("state")).expect("a file");
        let last_good = state();
        assert_eq!(checkpoints.suspect_since(), None);
        drop(checkpoints.begin_change().expect("open"));

        checkpoints.sync = |_| Err(Errno::IO);
        checkpoints.checkpoint().expect_err("an error of the disk");
        let recorded = checkpoints.recorded.load(Ordering::Relaxed);
        assert_eq!(checkpoints.suspect_since(), Some(recorded));
        assert!(last_good.contains(&format!("checkpoint {recorded}\n")), "{last_good}");

        assert!(!checkpoints.is_durable());

        // The kernel reports it once.
        checkpoints.sync = |_| Ok(());
        assert!(matches!(checkpoints.checkpoint(), Err(StoreError::SyncFailed)));
        assert_eq!(state(), last_good);

        // Only what was hashed on the disk is good again.
        let failed = |_: i64| Err(StoreError::Closed);
        checkpoints.heal(&failed).expect_err("not verified");
        assert!(!checkpoints.is_durable());
        let asked = Arc::new(AtomicI64::new(0));
        let seen = Arc::clone(&asked);
        let verify = move |since: i64| {
            seen.store(since, Ordering::Relaxed);
            Ok((1, 1))
        };
        checkpoints.heal(&verify).expect("verified");
        assert_eq!(asked.load(Ordering::Relaxed), recorded);
        assert!(checkpoints.is_durable());
        checkpoints.checkpoint().expect("a checkpoint");

        checkpoints.sync = |_| Err(Errno::IO);
        checkpoints.checkpoint().expect_err("an error of the disk");
        let last_good = state();
        checkpoints.sync = |_| Ok(());
        drop(checkpoints.begin_change().expect("open"));
        assert!(matches!(checkpoints.close(None, || {}), Err(StoreError::SyncFailed)));
        assert_eq!(state(), last_good);
    }

    #[test]
    fn callers_share_a_sync_and_are_told_that_it_failed() {
        const CALLERS: u64 = 50;
        static SYNCS: AtomicU64 = AtomicU64::new(0);
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let directory = tempfile::tempdir().expect("a directory");
        let open = || OwnedFd::from(std::fs::File::open(directory.path()).expect("a directory"));
        let mut checkpoints = Checkpoints::new(open(), open(), BootId(None), Durability::Group);
        checkpoints.sync = |_| {
            SYNCS.fetch_add(1, Ordering::Relaxed);
            // It takes until everybody has come.
            while ASKED.load(Ordering::Relaxed) < CALLERS {
                std::thread::yield_now();
            }
            Ok(())
        };
        assert!(checkpoints.is_told_durably());
        checkpoints.make_durable().expect("nothing to do");
        assert_eq!(SYNCS.load(Ordering::Relaxed), 0);
        // On a busy machine threads start one after the other.
        let all_have_changed = std::sync::Barrier::new(CALLERS as usize);
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    drop(checkpoints.begin_change().expect("open"));
                    all_have_changed.wait();
                    let changes = checkpoints.changes.load(Ordering::Relaxed);
                    ASKED.fetch_add(1, Ordering::Relaxed);
                    checkpoints.make_durable().expect("synced");
                    assert!(checkpoints.synced.load(Ordering::Relaxed) >= changes.min(1));
                });
            }
        });
        assert!(checkpoints.is_told_durably());
        assert_eq!(SYNCS.load(Ordering::Relaxed), 1);

        checkpoints.sync = |_| Err(Errno::IO);
        drop(checkpoints.begin_change().expect("open"));
        std::thread::scope(|scope| {
            let caller = || checkpoints.make_durable().expect_err("an error of the disk");
            let callers: Vec<_> = (0..10).map(|_| scope.spawn(caller)).collect();
            callers.into_iter().for_each(|caller| drop(caller.join().expect("no panic")));
        });
        assert!(!checkpoints.is_durable() && !checkpoints.is_told_durably());
        checkpoints.sync = |_| Ok(());
        checkpoints.make_durable().expect_err("what was lost is lost");
        std::fs::create_dir(directory.path().join("tmp")).expect("a directory");
        checkpoints.heal(&|_| Ok((0, 0))).expect("verified");
        checkpoints.make_durable().expect("synced");
    }

    #[test]
    fn what_is_not_on_the_disk_is_bounded() {
        static SYNCS: AtomicU64 = AtomicU64::new(0);
        let directory = tempfile::tempdir().expect("a directory");
        let open = || OwnedFd::from(std::fs::File::open(directory.path()).expect("a directory"));
        let mut checkpoints = Checkpoints::new(open(), open(), BootId(None), Durability::Lazy);
        checkpoints.sync = |_| {
            SYNCS.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let store = |bytes| {
            drop(checkpoints.begin_change().expect("open"));
            checkpoints.stored(bytes);
            (SYNCS.load(Ordering::Relaxed), checkpoints.unsynced_bytes.load(Ordering::Relaxed))
        };
        assert_eq!(store(UNSYNCED_BYTES - 1), (0, UNSYNCED_BYTES - 1));
        assert!(!checkpoints.is_urgent.load(Ordering::Relaxed));
        assert_eq!(store(1), (0, UNSYNCED_BYTES));
        assert!(checkpoints.is_urgent.load(Ordering::Relaxed), "the thread is woken");
        assert_eq!(store(UNSYNCED_BYTES_MAX), (1, 0), "and then callers wait");
        assert_eq!(store(2 * UNSYNCED_BYTES_MAX), (1, 2 * UNSYNCED_BYTES_MAX), "a large blob");
        assert_eq!(store(1), (2, 0));
        let long_ago = coarse_millis() - UNSYNCED_MILLIS_MAX - 1;
        assert_eq!(store(1), (2, 1));
        checkpoints.unsynced_since.store(long_ago, Ordering::Relaxed);
        assert_eq!(store(1), (3, 0));
        assert_eq!(checkpoints.unsynced_since.load(Ordering::Relaxed), 0);
    }
}
