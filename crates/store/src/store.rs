//! The store as a whole: opened, with everything that belongs to it, and closed.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::action_cache::{ActionCache, ENTRY_MODE};
use crate::cas::{BLOB_MODE, Cas};
use crate::checkpoint::Checkpoints;
use crate::error::StoreError;
use crate::index::Index;
use crate::root::{OpenError, Root};
use crate::scan::{Scan, scan};
use crate::state::{BootId, Recovery, State};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How long after a change a checkpoint is made. What a crash of the machine costs at the next
    /// start is hashing the blobs of about this time.
    pub checkpoint_interval: Duration,
    /// The run of the machine, in place of what the kernel says. For tests of recovery.
    pub boot_id: Option<String>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { checkpoint_interval: Duration::from_secs(5), boot_id: None }
    }
}

/// How much is in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// The number of blobs, the empty ones included.
    pub blobs: u64,
    /// The sum of their sizes in bytes.
    pub bytes: u64,
    /// How many blobs were hashed again when the store was opened.
    pub verified_at_open: u64,
    /// How many torn blobs were removed when the store was opened.
    pub removed_at_open: u64,
}

/// A root directory that is ours alone until this is dropped.
pub struct Store {
    cas: Cas,
    action_cache: ActionCache,
    checkpoints: Arc<Checkpoints>,
    checkpoint_thread: Mutex<Option<JoinHandle<()>>>,
    work_path: PathBuf,
    scan: Scan,
    /// Last, because dropping it unlocks the root.
    root: Root,
}

impl Store {
    /// Opens a root, which is made when it is not there, and recovers it from whatever end the
    /// last server had. Refuses one that is not ours, or is in use; see [`OpenError`].
    pub fn open(path: &Path, options: StoreOptions) -> Result<Arc<Self>, OpenError> {
        let path = std::path::absolute(path).map_err(|e| OpenError::io("find", path, e))?;
        let root = Root::open(&path)?;
        root.empty_scratch()?;

        let boot = options.boot_id.map_or_else(BootId::current, |id| BootId(Some(id)));
        let recovery = match State::read(&root.directory) {
            None if root.is_new => Recovery::Nothing,
            last => State::recovery(last.as_ref(), &boot),
        };
        let index = Index::new(secret());
        let scan = scan(&root.blobs, &index, recovery)?;

        let checkpoints = Arc::new(Checkpoints::new(
            root.share(&root.directory)?,
            root.share(&root.temporary)?,
            boot,
        ));
        let cas = Cas::new(
            root.publisher(&root.blobs, "blob", BLOB_MODE)?,
            path.join("cas/blobs"),
            Arc::clone(&checkpoints),
            index,
        );
        let action_cache = ActionCache::new(
            root.publisher(&root.action_cache, "entry", ENTRY_MODE)?,
            Arc::clone(&checkpoints),
        );
        begin(&cas, &checkpoints, recovery)
            .map_err(|source| OpenError::Recovery { path: path.clone(), source })?;
        let thread = checkpoints
            .spawn(options.checkpoint_interval)
            .map_err(|e| OpenError::io("start the thread that syncs", &path, e))?;
        Ok(Arc::new(Self {
            cas,
            action_cache,
            checkpoints,
            checkpoint_thread: Mutex::new(Some(thread)),
            work_path: path.join("work"),
            scan,
            root,
        }))
    }

    /// The blobs.
    pub fn cas(&self) -> &Cas {
        &self.cas
    }

    /// The cached results.
    pub fn action_cache(&self) -> &ActionCache {
        &self.action_cache
    }

    /// A directory on the file system of the blobs, for the work of others. Empty at the start.
    pub fn work_dir(&self) -> &Path {
        &self.work_path
    }

    /// The directory of [`Store::work_dir`].
    pub fn work_dirfd(&self) -> BorrowedFd<'_> {
        self.root.work.as_fd()
    }

    /// The root directory.
    pub fn path(&self) -> &Path {
        &self.root.path
    }

    /// How much is there.
    pub fn stats(&self) -> Stats {
        let (blobs, bytes) = self.cas.count();
        Stats {
            blobs,
            bytes,
            verified_at_open: self.scan.verified.load(Ordering::Relaxed),
            removed_at_open: self.scan.removed.load(Ordering::Relaxed),
        }
    }

    /// Brings everything to the disk and records that. Nothing can be stored or deleted from then
    /// on ([`StoreError::Closed`]); reading goes on. Dropping the store does it too, but can only
    /// log what fails.
    pub fn close(&self) -> Result<(), StoreError> {
        let thread = self.checkpoint_thread.lock().take();
        self.checkpoints.close(thread)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                path = ?self.root.path,
                "the store was not closed in order; the next start checks it",
            );
        }
    }
}

/// Makes what every store has, and records that a server runs.
fn begin(cas: &Cas, checkpoints: &Checkpoints, recovery: Recovery) -> Result<(), StoreError> {
    cas.ensure_empty_blobs()?;
    match recovery {
        Recovery::Nothing => checkpoints.record_start(),
        Recovery::Sync | Recovery::Verify { .. } => checkpoints.checkpoint(),
    }
}

/// A number that clients do not know. Without one, clients could at worst slow the index down.
fn secret() -> u64 {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => std::process::id().into(),
    }
}
