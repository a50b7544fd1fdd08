//! The work that remains when a store is open already: listing the directories that the index file does not
//! vouch for, hashing young blobs after a crash, and making room.
//!
//! A server does it in a thread and serves meanwhile: a question about a directory that was not
//! listed lists it. After a crash nothing is recorded as good until the end of it, and blobs that may be
//! torn are hashed before they are served.
//!
//! ```text
//!   parts of the index file ──► every directory ──► room ──► checkpoint, index file ──► OPEN
//!                                     │                                                  │
//!                                     └─ fails: the server ends            every file is looked at
//! ```

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::checkpoint::Checkpoints;
use crate::error::StoreError;
use crate::evictor::Evictor;
use crate::index::PARTS;
use crate::index_file;
use crate::root::OpenError;
use crate::scan::{Scan, each_part};
use crate::state::Recovery;
use parking_lot::Mutex;

/// The lowest priority for the processor, setpriority(2).
const NICE: i32 = 19;

/// See the module.
pub(crate) struct Opening {
    pub(crate) evictor: Arc<Evictor>,
    pub(crate) checkpoints: Arc<Checkpoints>,
    pub(crate) recovery: Recovery,
    pub(crate) scan: Arc<Scan>,
    pub(crate) index: IndexWriter,
    pub(crate) path: PathBuf,
    pub(crate) is_open: AtomicBool,
    pub(crate) stop: AtomicBool,
    pub(crate) failure: Mutex<Option<OpenError>>,
}

/// Writes the index file.
pub(crate) struct IndexWriter {
    pub(crate) root: OwnedFd,
    pub(crate) temporary: OwnedFd,
    pub(crate) evictor: Arc<Evictor>,
}

impl IndexWriter {
    /// Replaces the file, unless directories are still to be listed. `is_final` if the store makes no
    /// changes any more. The file is a shortcut for the next start, so a failure is only logged.
    pub(crate) fn write(&self, is_final: bool) {
        let Evictor { cas, action_cache, space, .. } = &*self.evictor;
        if !cas.index().is_settled() || !action_cache.index().is_settled() {
            return;
        }
        let cost = |size_bytes| space.cost(size_bytes);
        let written =
            index_file::write(&self.temporary, &self.root, [cas, action_cache], &cost, is_final);
        if let Err(error) = written {
            tracing::warn!(%error, "the index of the store was not written");
        }
    }
}

impl Opening {
    /// Does it now.
    pub(crate) fn run(&self) -> Result<(), OpenError> {
        let Evictor { cas, action_cache, .. } = &*self.evictor;
        each_part(|part| {
            cas.index().settle(part);
            action_cache.index().settle(part);
            !self.stop.load(Ordering::Relaxed)
        });
        if let Some(failure) = self.scan.take_failure() {
            return Err(failure);
        }
        if self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.scan.log();
        self.evictor.space.settle_all();
        // First of all: what comes now writes, and the disk may be full.
        self.evictor.make_room(0);
        self.record().map_err(|source| OpenError::Recovery { path: self.path.clone(), source })?;
        let listed = self.scan.listed.load(Ordering::Relaxed);
        if listed > 0 {
            self.index.write(false);
        }
        tracing::debug!(listed, "the store is open");
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes what every store has, and records that a server runs.
    fn record(&self) -> Result<(), StoreError> {
        self.evictor.cas.ensure_empty_blobs()?;
        match self.recovery {
            Recovery::Nothing => self.checkpoints.record_start(),
            Recovery::Verify { .. } => self.checkpoints.end_recovery(),
        }
    }

    /// Does it in a thread.
    pub(crate) fn spawn(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let opening = Arc::clone(self);
        std::thread::Builder::new().name("opening".into()).spawn(move || {
            if let Recovery::Verify { .. } = opening.recovery {
                opening.checkpoints.flush_for_recovery();
            }
            if let Err(failure) = opening.run() {
                *opening.failure.lock() = Some(failure);
                return;
            }
            opening.compare();
        })
    }

    /// Looks at the type and the size of every file: somebody may have truncated one while no server
    /// ran, which leaves its directory as it was. Until the end of it, actions look at their inputs.
    fn compare(&self) {
        // Without it the comparison disturbs more, and does its work all the same.
        let _ = rustix::process::setpriority_process(None, NICE);
        let cas = &self.evictor.cas;
        for part in 0..PARTS {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = cas.damaged(&cas.index().files_of(part)) {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "a damaged blob could not be taken away");
                return;
            }
        }
        cas.set_compared();
    }
}
