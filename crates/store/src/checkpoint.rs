//! Durability without a sync per blob.
//!
//! A `fsync` per blob would cost more than everything else an upload does. What a cache needs is
//! less: after a crash of the machine it must know which blobs may be torn. So every few seconds,
//! if something changed, a thread calls `syncfs` and records the time; a start after a crash hashes
//! again what is younger. See `docs/storage-format.md`, "state".
//!
//! Linux tells of a failed write once. The next sync succeeds, and what was lost stays lost. So after
//! a sync that failed no checkpoint is made any more, nothing says `clean`, and what is younger than
//! the last good checkpoint is hashed before it is served, from the disk as far as the kernel lets go
//! of what it has in memory. The next start hashes it as well.
//!
//! ```text
//!   change ──> dirty ──(interval)──> syncfs ──> state: checkpoint   and so on
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

/// Brings a file system to the disk.
type SyncFileSystem = fn(&OwnedFd) -> rustix::io::Result<()>;

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
                 is hashed before it is served, and again by the next start. Look at the disk, then \
                 restart the server"
            );
            StoreError::io("sync", "the store", e)
        })
    }

    /// Records that a server runs, when everything is known to be on the disk.
    pub(crate) fn record_start(&self) -> Result<(), StoreError> {
        self.record(false, checkpoint_now())
    }

    /// Makes checkpoints in a thread until [`Checkpoints::close`].
    pub(crate) fn spawn(self: &Arc<Self>, interval: Duration) -> std::io::Result<JoinHandle<()>> {
        let checkpoints = Arc::clone(self);
        std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || checkpoints.run(interval))
    }

    /// Ends the thread, keeps further changes out and records that everything is on the disk.
    pub(crate) fn close(&self, thread: Option<JoinHandle<()>>) -> Result<(), StoreError> {
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
        let checkpoint = checkpoint_now();
        // What else is on the file system can make this take long, so not without need.
        if self.dirty.load(Ordering::Acquire) {
            self.sync()?;
        }
        if self.suspect_since().is_some() {
            return Err(StoreError::SyncFailed);
        }
        self.record(true, checkpoint)
    }

    fn run(&self, interval: Duration) {
        let mut stop = self.stop.lock();
        while !*stop && self.suspect_since().is_none() {
            self.wake.wait_for(&mut stop, interval);
            if !*stop && self.dirty.swap(false, Ordering::AcqRel) {
                MutexGuard::unlocked(&mut stop, || self.checkpoint_or_retry());
            }
        }
    }

    fn checkpoint_or_retry(&self) {
        if let Err(error) = self.checkpoint() {
            // The record of the last one stands: a crash now costs hashing more, nothing else.
            tracing::warn!(error = &error as &dyn std::error::Error, "no checkpoint");
            self.dirty.store(true, Ordering::Release);
        }
    }

    fn record(&self, clean: bool, checkpoint: i64) -> Result<(), StoreError> {
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

        // The kernel tells of it once.
        checkpoints.sync = |_| Ok(());
        assert!(matches!(checkpoints.checkpoint(), Err(StoreError::SyncFailed)));
        assert!(matches!(checkpoints.close(None), Err(StoreError::SyncFailed)));
        assert_eq!(state(), last_good);
    }
}
