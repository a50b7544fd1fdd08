//! The thread that owns the database.
//!
//! ```text
//!  tell() ─┬─► inbox, bounded in records ───► batch of up to two seconds ─┬─► one transaction
//!          └─► hits of two seconds, made few ─────────────────────────────┘        │ error
//!                     │ full              broken: deleted and started anew ◄───────┤
//!                     └─► dropped, counted     else: the batch is dropped, counted ◄┘
//! ```

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use chain::Chain;
use events::{Event, Finished, Listener, LookedUp};
use rusqlite::Connection;

use crate::batch::{self, Names};
use crate::bounds;
use crate::hits::{self, Added, Hits, Written};
use crate::inbox::Inbox;
use crate::reader::Reader;
use crate::record::Record;
use crate::schema;

/// Messages that may wait for the thread, at 0.5 to 9 KiB each: a [`DRAIN_PERIOD`] of more misses than the server
/// can answer, and some seconds of the fastest builds.
const QUEUE_LIMIT: usize = 4096;

/// The time between two looks into the inbox while a batch waits for more.
const DRAIN_PERIOD: Duration = Duration::from_millis(20);

/// Records in one transaction.
const BATCH_MAX: usize = 2048;

/// The time for which a batch waits for more, unless a reader asks. A transaction costs about as much as 100 records,
/// and each writes the indexes' pages anew: eight times as many took 1.7 times the processor time.
const BATCH_PERIOD: Duration = Duration::from_secs(2);

/// The time between two tries to open a database that can't be opened, such as one on a full disk.
const RETRY_PERIOD: Duration = Duration::from_secs(30);

/// The time between two deletions of old records.
const AGE_PERIOD: Duration = Duration::from_secs(3600);

/// The least limit in bytes: the log, and some thousands of records.
pub const BYTES_MIN: u64 = 8 << 20;

/// The time for which [`History::flush`] waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the history is kept, and how much of it.
pub struct Options {
    /// The directory of the database, below the root directory.
    pub directory: PathBuf,
    /// Records of requests before that are deleted.
    pub age_max: Duration,
    /// The disk space of the database and the files beside it.
    pub room: Box<dyn Room>,
}

/// The disk space that the history may take.
pub trait Room: Send {
    /// The most that it may take, in bytes; less than [`BYTES_MIN`] counts as that. It is asked after each write.
    fn bytes_max(&self) -> u64;

    /// Takes note of what it takes now, in bytes.
    fn take(&self, bytes: u64);
}

/// A bound that does not change, on files whose space is not added to anything.
pub struct Fixed(pub u64);

impl Room for Fixed {
    fn bytes_max(&self) -> u64 {
        self.0
    }

    fn take(&self, _bytes: u64) {}
}

/// The disk space of the files in the directory of a history, in bytes; 0 where there is none.
pub fn bytes_in(directory: &Path) -> u64 {
    let files = schema::files(directory).into_iter();
    files.filter_map(|file| Some(file.symlink_metadata().ok()?.blocks() * 512)).sum()
}

/// Numbers about the history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryStats {
    /// Records that were written since the start.
    pub written: u64,
    /// Records that were lost: the queue was full, or the disk did not take them.
    pub dropped: u64,
    /// Records that were deleted because they were old or took too much space.
    pub deleted: u64,
    /// Databases that turned out to be broken.
    pub broken: u64,
    /// The space of the records, in bytes.
    pub used_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    dropped: AtomicU64,
    deleted: AtomicU64,
    broken: AtomicU64,
    used_bytes: AtomicU64,
}

enum Message {
    Finished(Arc<Finished>),
    /// A lookup without a result.
    Missed(Arc<LookedUp>),
    /// There are hits, to be written when their time is over.
    HitsCame,
    /// Everything before it is to be written at once; then the sender is dropped.
    Flush(SyncSender<()>),
    /// A reader found the database broken.
    Broken,
}

/// Writes records to the database on a thread of its own. Dropping it writes what is left.
pub struct History {
    inbox: Arc<Inbox<Message>>,
    hits: Arc<Hits>,
    counters: Arc<Counters>,
    /// The number of the database: another one after it was started anew.
    generation: Arc<AtomicI64>,
    directory: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl History {
    /// Starts the thread. A database that can't be opened is told in the log, and tried again later.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let inbox = Arc::new(Inbox::new(QUEUE_LIMIT));
        let hits = Arc::new(Hits::default());
        let counters = Arc::new(Counters::default());
        let generation = Arc::new(AtomicI64::new(0));
        let directory = options.directory.clone();
        let mut writer = Writer {
            options,
            inbox: Arc::clone(&inbox),
            hits: Arc::clone(&hits),
            hits_due: None,
            counters: Arc::clone(&counters),
            generation: Arc::clone(&generation),
            names: Names::default(),
            connection: None,
            next_try: Instant::now(),
            next_deletion: Instant::now(),
            is_failing: false,
        };
        // Here and not on the thread, so that readers find a database.
        writer.open();
        writer.tell_bytes();
        let thread =
            std::thread::Builder::new().name("history".into()).spawn(move || writer.run())?;
        Ok(Self { inbox, hits, counters, generation, directory, thread: Some(thread) })
    }

    /// A reader of the same database.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.directory, Arc::clone(&self.generation))
    }

    /// Numbers about the history.
    pub fn stats(&self) -> HistoryStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HistoryStats {
            written: read(&self.counters.written),
            dropped: read(&self.counters.dropped),
            deleted: read(&self.counters.deleted),
            broken: read(&self.counters.broken),
            used_bytes: read(&self.counters.used_bytes),
        }
    }

    /// Waits, for some seconds at most, until everything that was told is in the database.
    pub fn flush(&self) {
        let (done, over) = sync_channel(0);
        // Where the thread is slow or gone, a reader reads what is there.
        if self.inbox.push_urgent(Message::Flush(done)) {
            let _ = over.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    /// Tells that a reader found the database broken: it is started anew.
    pub fn report_broken(&self) {
        // With a full queue, the next reader tells again.
        self.inbox.push_urgent(Message::Broken);
    }

    fn send(&self, message: Message) {
        if !self.inbox.push(message) {
            self.drop_one();
        }
    }

    fn add_hit(&self, hit: &Arc<LookedUp>) {
        let Added { is_kept, is_first } = self.hits.add(hit);
        if !is_kept {
            self.drop_one();
        }
        if is_first {
            // With a full inbox the thread is awake, and looks for hits before it sleeps.
            self.inbox.push(Message::HitsCame);
        }
    }

    fn drop_one(&self) {
        self.counters.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Listener for History {
    fn tell(&self, event: &Event) {
        match event {
            Event::Finished(finished) => self.send(Message::Finished(Arc::clone(finished))),
            Event::LookedUp(lookup) if lookup.miss.is_none() => self.add_hit(lookup),
            Event::LookedUp(lookup) => self.send(Message::Missed(Arc::clone(lookup))),
            Event::Queued(_) | Event::Withdrawn { .. } | Event::Started { .. } => {}
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the history ended by a panic");
        }
    }
}

/// The next batch to write, and the callers that wait for it.
#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    waiting: Vec<SyncSender<()>>,
}

struct Writer {
    options: Options,
    inbox: Arc<Inbox<Message>>,
    hits: Arc<Hits>,
    /// When the hits are to be written; `None` while there are none.
    hits_due: Option<Instant>,
    counters: Arc<Counters>,
    generation: Arc<AtomicI64>,
    names: Names,
    connection: Option<Connection>,
    next_try: Instant,
    next_deletion: Instant,
    /// Whether the last batch was lost, so that an error is told once.
    is_failing: bool,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Batch::default();
        loop {
            self.inbox.wait(self.hits_due);
            self.collect(&mut batch);
            // Before the last look into the inbox: what is pushed later came after the end.
            let is_over = self.inbox.is_closed() && self.inbox.is_empty();
            self.look_for_hits();
            let are_hits_due = self.hits_due.is_some_and(|due| due <= Instant::now());
            let Batch { records, waiting } = &mut batch;
            let mut only_sums = Vec::new();
            if is_over || are_hits_due || !waiting.is_empty() {
                self.hits_due = None;
                let Written { rows, only_sums: sums } = self.hits.take();
                records.extend(rows);
                only_sums = sums;
            }
            if !records.is_empty() || !waiting.is_empty() {
                self.write(records, &only_sums);
                self.tell_bytes();
            }
            records.clear();
            // Dropping them tells those that wait.
            waiting.clear();
            if is_over {
                break;
            }
        }
        if let Some(connection) = self.connection.take()
            && let Err((_, error)) = connection.close()
        {
            tracing::warn!(error = %Chain(&error), "the history was not closed well");
        }
        self.tell_bytes();
    }

    /// Takes messages until the batch is full, its time is over, or somebody waits for it.
    fn collect(&mut self, batch: &mut Batch) {
        let end = Instant::now() + BATCH_PERIOD;
        loop {
            while let Some(message) = self.inbox.pop() {
                self.take(message, batch);
                if batch.records.len() >= BATCH_MAX {
                    return;
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            let is_over = left.is_zero() || self.inbox.is_closed();
            // Hits alone wait without a look into the inbox.
            if batch.records.is_empty() || is_over || !batch.waiting.is_empty() {
                return;
            }
            self.inbox.nap(left.min(DRAIN_PERIOD));
        }
    }

    fn look_for_hits(&mut self) {
        if self.hits_due.is_none() && self.hits.are_waiting() {
            self.hits_due = Some(Instant::now() + hits::PERIOD);
        }
    }

    fn take(&mut self, message: Message, batch: &mut Batch) {
        match message {
            Message::Finished(finished) => batch.records.extend(Record::of_finished(&finished)),
            Message::HitsCame => self.look_for_hits(),
            Message::Missed(lookup) => batch.records.push(Record::of_lookup(&lookup)),
            Message::Flush(done) => batch.waiting.push(done),
            Message::Broken => self.start_anew("a reader found it broken"),
        }
    }

    /// Writes a batch, to a new database if this one is broken.
    fn write(&mut self, records: &[Record], only_sums: &[Record]) {
        if self.connection.is_none() {
            self.open();
        }
        let mut written = self.try_write(records, only_sums);
        if let Err(error) = &written
            && schema::is_broken(error)
        {
            self.start_anew(&Chain(error).to_string());
            written = self.try_write(records, only_sums);
        }
        match written {
            Ok(true) => {
                self.counters.written.fetch_add(records.len() as u64, Ordering::Relaxed);
                self.is_failing = false;
            }
            Ok(false) => {
                self.counters.dropped.fetch_add(records.len() as u64, Ordering::Relaxed);
            }
            Err(error) => {
                self.counters.dropped.fetch_add(records.len() as u64, Ordering::Relaxed);
                self.names.forget();
                if !std::mem::replace(&mut self.is_failing, true) {
                    let error = Chain(&error);
                    tracing::warn!(%error, "the history can't be written; what comes now is lost to it");
                }
            }
        }
    }

    /// Writes a batch. Returns whether there is a database to write to.
    fn try_write(&mut self, records: &[Record], only_sums: &[Record]) -> rusqlite::Result<bool> {
        let Some(connection) = &mut self.connection else { return Ok(false) };
        if !records.is_empty() {
            let transaction = connection.transaction()?;
            batch::insert(&transaction, &mut self.names, records, only_sums)?;
            transaction.commit()?;
        }
        let mut deleted = 0;
        if Instant::now() >= self.next_deletion {
            self.next_deletion = Instant::now() + AGE_PERIOD;
            deleted += bounds::delete_older(connection, oldest_us(self.options.age_max))?;
            bounds::shrink(connection)?;
        }
        let bytes_max = self.options.room.bytes_max().max(BYTES_MIN) - u64::from(schema::LOG_BYTES);
        deleted += bounds::delete_over(connection, bytes_max)?;
        bounds::shrink_to(connection, bytes_max)?;
        if deleted > 0 {
            self.names.forget();
            self.counters.deleted.fetch_add(deleted, Ordering::Relaxed);
        }
        self.counters.used_bytes.store(bounds::used_bytes(connection)?, Ordering::Relaxed);
        Ok(true)
    }

    /// Opens the database if it is time to; deletes a broken one.
    fn open(&mut self) {
        if Instant::now() < self.next_try {
            return;
        }
        self.next_try = Instant::now() + RETRY_PERIOD;
        let directory = self.options.directory.clone();
        let mut opened = schema::open_to_write(&directory);
        if let Err(error) = &opened
            && error.is_broken()
        {
            self.tell_broken(&Chain(error).to_string());
            opened = schema::remove(&directory).and_then(|()| schema::open_to_write(&directory));
        }
        match opened {
            Ok(connection) => {
                self.connection = Some(connection);
                self.names.forget();
                self.next_deletion = Instant::now();
                self.generation.fetch_add(1, Ordering::Release);
            }
            Err(error) => tracing::warn!(
                error = %Chain(&error),
                "there is no history; it is tried again in {} s", RETRY_PERIOD.as_secs()
            ),
        }
    }

    /// Deletes the database and makes a new one.
    fn start_anew(&mut self, reason: &str) {
        self.tell_broken(reason);
        self.connection = None;
        match schema::remove(&self.options.directory) {
            Ok(()) => {
                self.next_try = Instant::now();
                self.open();
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "the history stays broken"),
        }
    }

    fn tell_bytes(&self) {
        self.options.room.take(bytes_in(&self.options.directory));
    }

    fn tell_broken(&self, reason: &str) {
        self.counters.broken.fetch_add(1, Ordering::Relaxed);
        let path = schema::file(&self.options.directory);
        let path = path.display();
        tracing::warn!(%path, reason, "the history is broken; it is deleted and a new one started");
    }
}

/// The time before which records are too old, in microseconds since 1970.
fn oldest_us(age_max: Duration) -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(now.saturating_sub(age_max).as_micros()).unwrap_or(i64::MAX)
}
