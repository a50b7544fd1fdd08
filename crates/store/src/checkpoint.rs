//! Durability without a sync per blob.
//!
//! A `fsync` per blob would cost more than everything else an upload does. What a cache needs is
//! less: after a crash of the machine it must know which blobs may be torn. So every few seconds,
//! if something changed, a thread calls `syncfs` and records the time; a start after a crash hashes
//! again what is younger. See `docs/storage-format.md`, "state".
//!
//! Linux reports a failed write once. The next sync succeeds, and the lost data stays lost. So after a
//! failed sync everything that is younger than the last checkpoint is suspect: reads hash it before they
//! serve it, no checkpoint is made and nothing says `clean`. When a sync succeeds again, the thread
//! hashes all suspect blobs as they are on the disk, moves the damaged ones into quarantine, and only
//! then makes checkpoints again. A server that ends before that leaves it to the next start.
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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use rustix::fs::syncfs;
use rustix::io::Errno;

use crate::error::StoreError;
use crate::state::{BootId, State, checkpoint_now};
use crate::trouble::Paced;

/// Brings a file system to the disk.
type SyncFileSystem = fn(&OwnedFd) -> rustix::io::Result<()>;

/// Hashes the blobs on the disk that changed since a time, in seconds since the epoch. Gives their
/// number, and the number of damaged ones.
pub(crate) type Verify = dyn Fn(i64) -> Result<(u64, u64), StoreError> + Send;

/// Nothing is suspect.
const NEVER: i64 = i64::MAX;

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
    dirty: AtomicBool,
    stop: Mutex<bool>,
    wake: Condvar,
}

/// A change that is under way: the store can't be closed before it is dropped.
pub(crate) struct Change<'a> {
    dirty: &'a AtomicBool,
    _open: RwLockReadGuard<'a, bool>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // Afterwards, not before: a checkpoint in between must not take this change for synced.
        self.dirty.store(true, Ordering::Release);
    }
}

impl Checkpoints {
    pub(crate) fn new(root: OwnedFd, temporary: OwnedFd, boot: BootId) -> Self {
        Self {
            root,
            temporary,
            boot,
            sync: |root| syncfs(root),
            recorded: AtomicI64::new(i64::MIN),
            suspect_since: AtomicI64::new(NEVER),
            is_recovering: AtomicBool::new(false),
            is_unrecorded: AtomicBool::new(false),
            closed: RwLock::new(false),
            dirty: AtomicBool::new(false),
            stop: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// To be held while files appear or disappear.
    pub(crate) fn begin_change(&self) -> Result<Change<'_>, StoreError> {
        let closed = self.closed.read();
        if *closed {
            return Err(StoreError::Closed);
        }
        Ok(Change { dirty: &self.dirty, _open: closed })
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

    fn sync(&self) -> Result<(), StoreError> {
        if self.suspect_since().is_some() {
            return Err(StoreError::SyncFailed);
        }
        (self.sync)(&self.root).map_err(|e| {
            let since = self.recorded.load(Ordering::Acquire);
            self.suspect_since.store(since, Ordering::Release);
            tracing::error!(
                error = %e,
                "the file system lost data of the store; what was stored since the last checkpoint \
                 is hashed before it is served. Look at the disk: when it works again, the server \
                 hashes all of it and goes on"
            );
            StoreError::io("sync", "the store", e)
        })
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
        (self.sync)(&self.root).map_err(failed)?;
        let (verified, damaged) = verify(since)?;
        // Brings to the disk what went into quarantine, and tells of errors meanwhile.
        (self.sync)(&self.root).map_err(failed)?;
        self.record(false, checkpoint)?;
        self.suspect_since.store(NEVER, Ordering::Release);
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
            self.wake.wait_for(&mut stop, interval);
            if !*stop {
                MutexGuard::unlocked(&mut stop, || self.checkpoint_or_retry(verify, &lines));
            }
        }
    }

    fn checkpoint_or_retry(&self, verify: &Verify, lines: &Paced) {
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
        let state = State { boot: self.boot.clone(), clean, checkpoint };
        match state.write(&self.temporary, &self.root) {
            // The file that is there says what was true before this server, maybe that all is
            // well. Without one, the next start trusts nothing; removing it takes no room.
            Err(Errno::NOSPC | Errno::DQUOT) if !clean => {
                tracing::warn!("the disk is full: the state of the store can't be recorded");
                State::remove(&self.root).map_err(|e| StoreError::io("remove", "state", e))
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
        let mut checkpoints = Checkpoints::new(open(), temporary.into(), BootId(None));
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
}
