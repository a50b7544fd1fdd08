//! Durability without a sync per blob.
//!
//! A `fsync` per blob would cost more than everything else an upload does. What a cache needs is
//! less: after a crash of the machine it must know which blobs may be torn. So every few seconds,
//! if something changed, a thread calls `syncfs` and records the time; a start after a crash hashes
//! again what is younger. See `docs/storage-format.md`, "state".
//!
//! ```text
//!   change ──> dirty ──(interval)──> syncfs ──> state: checkpoint   and so on
//!   close: no more changes ──> syncfs ──> state: checkpoint, clean
//! ```

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use rustix::fs::syncfs;
use rustix::io::Errno;

use crate::error::StoreError;
use crate::state::{BootId, State, checkpoint_now};

/// Records what reached the disk, and keeps changes out once the store is closed.
pub(crate) struct Checkpoints {
    root: OwnedFd,
    temporary: OwnedFd,
    boot: BootId,
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
        syncfs(&self.root).map_err(|e| StoreError::io("sync", "the store", e))?;
        self.record(false, checkpoint)
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
            syncfs(&self.root).map_err(|e| StoreError::io("sync", "the store", e))?;
        }
        self.record(true, checkpoint)
    }

    fn run(&self, interval: Duration) {
        let mut stop = self.stop.lock();
        while !*stop {
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
            written => written.map_err(|e| StoreError::io("write", "state", e)),
        }
    }
}
