//! The store as a whole: opened, with everything that belongs to it, and closed.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::DigestFunction;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, fstat, statat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::account_file::AccountFile;
use crate::action_cache::{ActionCache, ENTRY_MODE};
use crate::beside::Beside;
use crate::cas::{BLOB_MODE, BlobDirectory, Cas};
use crate::checkpoint::{Checkpoints, Durability};
use crate::error::StoreError;
use crate::evictor::{Ages, Evictions, Evictor};
use crate::function_directories::{DIRECTORIES, FunctionDirectories};
use crate::index::Index;
use crate::index_file::{IndexFile, Kind};
use crate::opening::{IndexWriter, Opening};
use crate::others::Others;
use crate::quarantine::Quarantine;
use crate::recency::{Clock, seconds, ticks};
use crate::root::{OpenError, Root};
use crate::scan::{Filler, Scan, each_part};
use crate::scrub::{Scrub, Scrubbed};
use crate::size::StoreSize;
use crate::space::Space;
use crate::state::{BootId, Recovery, StateFile, seconds_now};
use crate::table::Table;
use crate::tier::Tier;
use crate::trouble::FailedWrites;

/// The settings with which a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The bound on the store.
    pub size: StoreSize,
    /// The time for which a blob that a client was told about is kept, unless there is no other way to make
    /// room. Default 3 h, the time for which Bazel remembers what it was told.
    pub lease: Duration,
    /// The delay of a checkpoint after a change. The cost of a machine's crash at the next
    /// start is hashing the blobs of about this time.
    pub checkpoint_interval: Duration,
    /// When what a client was told has reached the disk.
    pub durability: Durability,
    /// How long it takes until every blob was read and hashed again; `None` for never.
    pub scrub_period: Option<Duration>,
    /// Whether [`Store::open`] may return before every directory was listed and young blobs were hashed;
    /// see [`Store::is_open`]. A root without an index file is listed first all the same.
    pub opens_in_background: bool,
    /// The run of the machine, in place of what the kernel says. For tests of recovery.
    pub boot_id: Option<String>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            size: StoreSize::Unbounded,
            lease: Duration::from_secs(3 * 3600),
            checkpoint_interval: Duration::from_secs(5),
            durability: Durability::Lazy,
            scrub_period: None,
            opens_in_background: false,
            boot_id: None,
        }
    }
}

/// The time after which the index file is written again. If the server is killed, a blob that was
/// used after that counts as used when it was stored.
const INDEX_INTERVAL: Duration = Duration::from_secs(600);

/// The state of a store at one moment. Counters start at zero when the store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// The number of blobs, the empty ones included.
    pub blobs: u64,
    /// The sum of their sizes in bytes.
    pub bytes: u64,
    /// The number of cached results.
    pub results: u64,
    /// The number of directories that were listed when the store was opened; the others are known from
    /// the index file.
    pub listed_at_open: u64,
    /// The number of blobs that were hashed again when the store was opened.
    pub verified_at_open: u64,
    /// The number of torn blobs that were removed when the store was opened.
    pub removed_at_open: u64,
    /// The disk space that the store takes by its own account, in bytes.
    pub used_bytes: u64,
    /// The disk space that it may take; `None` when it is not bounded.
    pub limit_bytes: Option<u64>,
    /// The part of it that was used within the lease, in bytes, when that was last added up.
    pub leased_bytes: u64,
    /// The time in seconds for which the file has been idle that has been idle for longest, when that
    /// was last looked at.
    pub oldest_idle_seconds: u64,
    /// The number of evicted blobs.
    pub evicted_blobs: u64,
    /// The sum of their sizes.
    pub evicted_bytes: u64,
    /// The number of blobs that were evicted before their lease ended.
    pub evicted_leased_blobs: u64,
    /// The number of evicted cached results.
    pub evicted_results: u64,
    /// The time in seconds for which the blob that was evicted last had been idle.
    pub evicted_idle_seconds: u64,
    /// The writes that failed.
    pub failed_writes: FailedWrites,
    /// The number of blobs that turned out to be damaged.
    pub quarantined_blobs: u64,
    /// The number of blobs that the scrub has read.
    pub scrubbed_blobs: u64,
    /// The sum of their sizes.
    pub scrubbed_bytes: u64,
    /// How much of the present round of the scrub is done, in 1,536 parts.
    pub scrubbed_parts: u64,
    /// The number of files in `quarantine/`.
    pub quarantine_files: u64,
    /// The disk space that they take, in bytes.
    pub quarantine_bytes: u64,
}

/// A root directory that is ours alone until this is dropped.
pub struct Store {
    cas: Cas,
    action_cache: ActionCache,
    checkpoints: Arc<Checkpoints>,
    checkpoint_thread: Mutex<Option<JoinHandle<()>>>,
    opening: Arc<Opening>,
    opening_thread: Mutex<Option<JoinHandle<()>>>,
    evictor: Arc<Evictor>,
    evictor_thread: Mutex<Option<JoinHandle<()>>>,
    scrub: Option<Arc<Scrub>>,
    scrub_thread: Mutex<Option<JoinHandle<()>>>,
    work_path: PathBuf,
    scan: Arc<Scan>,
    tier: OnceLock<Arc<dyn Tier>>,
    account: Arc<AccountFile>,
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
        let recovery = match StateFile::read(&root.directory) {
            None if root.is_new => Recovery::Nothing,
            last => StateFile::recovery(last.as_ref(), seconds_now()),
        };
        let clock = Arc::new(Clock::start());
        let look_failed = |e| OpenError::io("look at the file system of", &path, e);
        let space = Arc::new(Space::new(root.share(&root.directory)?).map_err(look_failed)?);
        let checkpoints = Arc::new(Checkpoints::new(
            root.share(&root.directory)?,
            root.share(&root.temporary)?,
            boot,
            options.durability,
        ));
        let scan = Arc::new(Scan::default());
        let file = IndexFile::open(&root.directory).map(Arc::new);
        let in_background = options.opens_in_background && file.is_some();
        if let Recovery::Verify { since } = recovery {
            checkpoints.begin_recovery(since);
            if !in_background {
                checkpoints.flush_for_recovery();
            }
        }
        let filler = |kind, directory| -> Result<_, OpenError> {
            Ok(Arc::new(Filler {
                kind,
                directory: root.share(directory)?,
                recovery,
                file: file.clone(),
                now: clock.now(),
                space: Arc::clone(&space),
                report: Arc::clone(&scan),
            }))
        };
        space.add(file.as_ref().map_or(0, |file| file.cost_bytes()));
        let blobs = index(filler(Kind::Blob, &root.blobs)?, &root.functions, in_background);
        let results =
            index(filler(Kind::CachedResult, &root.action_cache)?, &root.functions, in_background);
        if let Some(failure) = scan.take_failure() {
            return Err(failure);
        }
        bound(&space, &root, options.size).map_err(look_failed)?;

        let cas = Cas::new(
            root.publisher(&root.blobs, "blob", BLOB_MODE)?,
            BlobDirectory {
                path: path.join("cas/blobs"),
                directories: FunctionDirectories::new(root.share(&root.blobs)?, &root.functions),
            },
            Arc::clone(&checkpoints),
            Quarantine::new(root.share(&root.quarantine)?)
                .map_err(|e| OpenError::io("list", path.join("quarantine"), e))?,
            blobs,
            Arc::clone(&clock),
            Arc::clone(&space),
        );
        space.add(cas.quarantine_state().bytes());
        let account = Arc::new(AccountFile::open(&root.directory, Arc::clone(&space)));
        if in_background {
            space.add_unlisted(account.read().unwrap_or(0));
        }
        let action_cache = ActionCache::new(
            root.publisher(&root.action_cache, "entry", ENTRY_MODE)?,
            FunctionDirectories::new(root.share(&root.action_cache)?, &root.functions),
            Arc::clone(&checkpoints),
            results,
            Arc::clone(&clock),
            Arc::clone(&space),
        );
        let evictor = Arc::new(Evictor {
            cas: cas.clone(),
            action_cache: action_cache.clone(),
            space,
            clock,
            lease: AtomicU32::new(ticks(options.lease)),
            others: Mutex::new(Others::new(Instant::now())),
            evictions: Evictions::default(),
            ages: Ages::default(),
        });
        let index_writer = |evictor: &Arc<Evictor>| -> Result<_, OpenError> {
            Ok(IndexWriter {
                root: root.share(&root.directory)?,
                temporary: root.share(&root.temporary)?,
                evictor: Arc::clone(evictor),
            })
        };
        let opening = Arc::new(Opening {
            evictor: Arc::clone(&evictor),
            checkpoints: Arc::clone(&checkpoints),
            recovery,
            scan: Arc::clone(&scan),
            index: index_writer(&evictor)?,
            path: path.clone(),
            is_open: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        });
        let opening_thread = if in_background {
            let spawned = opening.spawn();
            Some(spawned.map_err(|e| OpenError::io("start the thread that opens", &path, e))?)
        } else {
            opening.run()?;
            cas.set_compared();
            None
        };
        let verifier = cas.clone();
        let thread = checkpoints
            .spawn(options.checkpoint_interval, Box::new(move |since| verifier.verify_since(since)))
            .map_err(|e| OpenError::io("start the thread that syncs", &path, e))?;
        let recorder =
            Recorder { writer: index_writer(&evictor)?, last: Mutex::new(Instant::now()) };
        let noted = Arc::clone(&account);
        let upkeep = move || {
            recorder.record_now_and_then();
            noted.write();
        };
        let evictor_thread = evictor
            .spawn(upkeep)
            .map_err(|e| OpenError::io("start the thread that evicts", &path, e))?;
        let scrub = match options.scrub_period {
            Some(period) => {
                let (directory, temporary) =
                    (root.share(&root.directory)?, root.share(&root.temporary)?);
                Some(Arc::new(Scrub::new(cas.clone(), directory, temporary, period)))
            }
            None => None,
        };
        let scrub_thread = scrub.as_ref().map(Scrub::spawn).transpose();
        let scrub_thread =
            scrub_thread.map_err(|e| OpenError::io("start the thread that scrubs", &path, e))?;
        Ok(Arc::new(Self {
            cas,
            action_cache,
            checkpoints,
            checkpoint_thread: Mutex::new(Some(thread)),
            opening,
            opening_thread: Mutex::new(opening_thread),
            evictor,
            evictor_thread: Mutex::new(Some(evictor_thread)),
            scrub,
            scrub_thread: Mutex::new(scrub_thread),
            work_path: path.join("work"),
            scan,
            tier: OnceLock::new(),
            account,
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

    /// Puts a tier below the store, for those who ask it. A store has one tier for all of its life; a second
    /// one is ignored. The tier must not hold the store, which would keep the root locked.
    pub fn put_below(&self, tier: Arc<dyn Tier>) {
        let is_first = self.tier.set(tier).is_ok();
        debug_assert!(is_first, "a store has one tier");
    }

    /// The tier below the store, if it has one.
    pub fn tier(&self) -> Option<&dyn Tier> {
        self.tier.get().map(|tier| &**tier)
    }

    /// The evictor.
    pub(crate) fn evictor(&self) -> &Evictor {
        &self.evictor
    }

    /// A directory on the file system of the blobs, for the work of others. Empty at the start.
    pub fn work_dir(&self) -> &Path {
        &self.work_path
    }

    /// The directory of [`Store::work_dir`].
    pub fn work_dirfd(&self) -> BorrowedFd<'_> {
        self.root.work.as_fd()
    }

    /// An account of files that others keep below the root, which count to the limit of the store.
    pub fn charge_beside(&self) -> Beside {
        Beside::new(Arc::clone(&self.evictor.space), self.account.beside.clone())
    }

    /// Changes the bound on the store from now on. With a lower one, files are evicted within seconds, and
    /// until then new ones find no room. [`StoreSize::Unbounded`] changes nothing.
    ///
    /// # Errors
    /// When the file system can't be looked at.
    pub fn set_size(&self, size: StoreSize) -> rustix::io::Result<()> {
        let space = &self.evictor.space;
        if let Some(limit) = size.limit(&self.root.directory, &self.root.temporary, space.used())? {
            space.set_limit(limit);
        }
        Ok(())
    }

    /// Changes the time for which used files are evicted last; see [`StoreOptions::lease`].
    pub fn set_lease(&self, lease: Duration) {
        self.evictor.set_lease(lease);
    }

    /// The root directory.
    pub fn path(&self) -> &Path {
        &self.root.path
    }

    /// The state of the store. Takes no lock and makes no system call.
    pub fn stats(&self) -> Stats {
        let (blobs, bytes) = self.cas.count();
        let Evictor { evictions, ages, space, action_cache, .. } = &*self.evictor;
        let quarantine = self.cas.quarantine_state();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let scrubbed = |of: fn(&Scrubbed) -> &AtomicU64| {
            self.scrub.as_ref().map_or(0, |scrub| count(of(&scrub.scrubbed)))
        };
        let idle = |ticks: &AtomicU32| seconds(ticks.load(Ordering::Relaxed));
        Stats {
            blobs,
            bytes,
            listed_at_open: self.scan.listed.load(Ordering::Relaxed),
            verified_at_open: self.scan.verified.load(Ordering::Relaxed),
            removed_at_open: self.scan.removed.load(Ordering::Relaxed),
            results: action_cache.index().files(),
            used_bytes: space.used(),
            limit_bytes: space.limit(),
            leased_bytes: count(&ages.leased_bytes),
            oldest_idle_seconds: idle(&ages.oldest_idle),
            evicted_blobs: count(&evictions.blobs),
            evicted_bytes: count(&evictions.bytes),
            evicted_leased_blobs: count(&evictions.leased),
            evicted_results: count(&evictions.results),
            evicted_idle_seconds: idle(&evictions.last_idle),
            failed_writes: space.trouble().counts(),
            quarantined_blobs: quarantine.taken(),
            scrubbed_blobs: scrubbed(|it| &it.blobs),
            scrubbed_bytes: scrubbed(|it| &it.bytes),
            scrubbed_parts: scrubbed(|it| &it.parts),
            quarantine_files: quarantine.files(),
            quarantine_bytes: quarantine.bytes(),
        }
    }

    /// Waits until everything is on the disk that a client is told next, if [`StoreOptions::durability`]
    /// asks for it. All that call this at the same time share a sync.
    ///
    /// # Errors
    /// When the disk fails, or has failed and was not verified since.
    pub fn make_durable(&self) -> Result<(), StoreError> {
        self.checkpoints.make_durable()
    }

    /// Whether [`Store::make_durable`] would not wait.
    pub fn is_told_durably(&self) -> bool {
        self.checkpoints.is_told_durably()
    }

    /// Whether opening has come to its end: every directory is known and nothing is suspect any more.
    /// All answers are right before that as well, but some of them wait for a disk.
    pub fn is_open(&self) -> bool {
        self.opening.is_open.load(Ordering::Acquire)
    }

    /// The error that keeps opening from coming to its end, once.
    pub fn take_failure(&self) -> Option<OpenError> {
        self.opening.failure.lock().take()
    }

    /// Waits until the presence of every blob is known.
    pub(crate) fn settle(&self) {
        each_part(|part| {
            self.cas.index().settle(part);
            self.action_cache.index().settle(part);
            true
        });
    }

    /// Whether somebody removed the root directory, or what makes it a store. Two system calls.
    pub fn is_gone(&self) -> bool {
        let root = &self.root.directory;
        let is_removed = fstat(root).is_ok_and(|stat| stat.st_nlink == 0);
        is_removed || statat(root, "version", AtFlags::SYMLINK_NOFOLLOW).err() == Some(Errno::NOENT)
    }

    /// Whether what is stored now reaches the disk, as far as is known. False after a failed sync,
    /// until everything that may be lost was verified, and while checkpoints can't be recorded.
    pub fn is_durable(&self) -> bool {
        self.checkpoints.is_durable()
    }

    /// Brings everything to the disk and records that. Nothing can be stored or deleted from then
    /// on ([`StoreError::Closed`]); reading goes on. Dropping the store does it too, but can only
    /// log what fails.
    pub fn close(&self) -> Result<(), StoreError> {
        if let (Some(scrub), Some(thread)) = (&self.scrub, self.scrub_thread.lock().take()) {
            scrub.close(thread);
        }
        self.opening.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.opening_thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that opens the store panicked");
        }
        self.evictor.space.close();
        if let Some(thread) = self.evictor_thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that evicts panicked");
        }
        let thread = self.checkpoint_thread.lock().take();
        self.checkpoints.close(thread, || {
            self.opening.index.write(true);
            self.account.write();
        })
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

/// An index of what `filler` finds. In the background means that what the index file does not vouch for
/// is listed when it is asked for; else it is listed now.
fn index(filler: Arc<Filler>, functions: &[DigestFunction], in_background: bool) -> Index {
    let loader = Arc::clone(&filler);
    let fill = Box::new(move |part, table: &mut Table| filler.list(part, table));
    let index = Index::new(secret(), functions, fill);
    each_part(|part| {
        match in_background {
            true => index.load(part, |table| loader.load(part, table)),
            false => index.settle(part),
        }
        true
    });
    index
}

/// Bounds a store, whose files are charged already.
fn bound(space: &Space, root: &Root, size: StoreSize) -> rustix::io::Result<()> {
    if let Some(limit) = size.limit(&root.directory, &root.temporary, space.used())? {
        space.set_limit(limit);
        space.add_directories(2 * root.functions.len() as u64 * DIRECTORIES);
    }
    Ok(())
}

/// Writes the index file again and again.
struct Recorder {
    writer: IndexWriter,
    last: Mutex<Instant>,
}

impl Recorder {
    fn record_now_and_then(&self) {
        let mut last = self.last.lock();
        if last.elapsed() >= INDEX_INTERVAL {
            self.writer.write(false);
            *last = Instant::now();
        }
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
