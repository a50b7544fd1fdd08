//! Uploads that broke off, kept so that their clients can go on where they were.
//!
//! ```text
//!  Write ── broken off ──► kept ── Write at the committed size ──► goes on
//!                           └──── an hour, more uploads, a start at 0 ──► forgotten
//! ```
//!
//! An upload is kept as the store's writer of its blob: a file without a name and the state of its hash. It
//! survives the connection, and not the server. Its bytes are charged to the store like any others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use store::{BlobWriter, Store};
use tokio::time::Instant;

/// The number of uploads that are kept: all streams of one connection of Bazel, that breaks. Each takes a
/// descriptor or 64 KiB of memory, and 4 KiB for its name.
const MAX_UPLOADS: usize = 128;

/// The time for which an upload is kept: longer than a laptop's nap or a network's maintenance.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The bytes of all kept uploads together on a store without a bound.
const MAX_BYTES: u64 = 16 << 30;

/// The part of a bounded store that they may take: blobs that nobody may ever finish must not evict those that
/// are used.
const PART_OF_STORE: u64 = 8;

/// The pause between two looks for uploads that are too old.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The name of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The caller: nobody goes on with an upload of another, or learns how far it is.
    pub(super) principal: String,
    /// The resource name with the UUID that the client chose.
    pub(super) name: String,
}

/// The answer to a client that wants to go on with an upload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resumed<W> {
    /// It may. The upload is not kept any more.
    Here(W),
    /// This much is here, and the client wants to go on somewhere else.
    Elsewhere(u64),
    /// No upload of that name is kept.
    Unknown,
}

/// See the module. Generic over the writer for its tests.
#[derive(Debug)]
pub(super) struct PartialUploads<W = BlobWriter> {
    max_bytes: u64,
    table: Mutex<Table<W>>,
}

#[derive(Debug)]
struct Table<W> {
    uploads: HashMap<Key, Upload<W>>,
    /// The sum of their sizes.
    bytes: u64,
    /// Whether a task looks for those that are too old.
    is_watched: bool,
}

#[derive(Debug)]
struct Upload<W> {
    writer: W,
    bytes: u64,
    since: Instant,
}

impl PartialUploads {
    /// Keeps uploads into that store.
    pub(super) fn of(store: &Store) -> Arc<Self> {
        let limit_bytes = store.stats().limit_bytes;
        Arc::new(Self::new(limit_bytes.map_or(MAX_BYTES, |limit| limit / PART_OF_STORE)))
    }
}

impl<W: Send + 'static> PartialUploads<W> {
    fn new(max_bytes: u64) -> Self {
        let table = Table { uploads: HashMap::new(), bytes: 0, is_watched: false };
        Self { max_bytes, table: Mutex::new(table) }
    }

    /// Keeps an upload of which that many bytes are here. The oldest ones go where there are too many. Must be
    /// called within a runtime, on a thread that may block: dropping a writer may delete a file.
    pub(super) fn keep(self: &Arc<Self>, key: Key, writer: W, bytes: u64) {
        let forgotten = self.lock().keep(key, writer, bytes, self.max_bytes, Instant::now());
        drop(forgotten);
        if !std::mem::replace(&mut self.lock().is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    /// The bytes that are here of an upload.
    pub(super) fn committed(&self, key: &Key) -> Option<u64> {
        self.lock().uploads.get(key).map(|upload| upload.bytes)
    }

    /// The upload, for a client that goes on with it at `offset`.
    pub(super) fn resume(&self, key: &Key, offset: u64) -> Resumed<W> {
        let mut table = self.lock();
        match table.uploads.get(key) {
            None => Resumed::Unknown,
            Some(upload) if upload.bytes != offset => Resumed::Elsewhere(upload.bytes),
            Some(_) => table.remove(key).map_or(Resumed::Unknown, Resumed::Here),
        }
    }

    /// The upload, which its client starts anew.
    pub(super) fn forget(&self, key: &Key) -> Option<W> {
        self.lock().remove(key)
    }

    /// No code of others runs while the table is locked, so it is whole even then.
    fn lock(&self) -> MutexGuard<'_, Table<W>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W> Table<W> {
    fn remove(&mut self, key: &Key) -> Option<W> {
        let upload = self.uploads.remove(key)?;
        self.bytes -= upload.bytes;
        Some(upload.writer)
    }

    /// Returns what is not kept.
    #[must_use]
    fn keep(&mut self, key: Key, writer: W, bytes: u64, max_bytes: u64, now: Instant) -> Vec<W> {
        if bytes > max_bytes {
            return vec![writer];
        }
        // Another stream of the same name: the later one counts.
        let mut forgotten: Vec<W> = self.remove(&key).into_iter().collect();
        while self.uploads.len() >= MAX_UPLOADS || self.bytes > max_bytes - bytes {
            let oldest = self.uploads.iter().min_by_key(|(_, upload)| upload.since);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            forgotten.extend(self.remove(&oldest));
        }
        self.bytes += bytes;
        self.uploads.insert(key, Upload { writer, bytes, since: now });
        forgotten
    }

    /// Returns those that are too old.
    #[must_use]
    fn expire(&mut self, now: Instant) -> Vec<W> {
        let is_old = |upload: &Upload<W>| now.duration_since(upload.since) >= MAX_AGE;
        let old = self.uploads.iter().filter(|(_, upload)| is_old(upload));
        let old: Vec<Key> = old.map(|(key, _)| key.clone()).collect();
        old.iter().filter_map(|key| self.remove(key)).collect()
    }
}

/// Forgets uploads that are too old, until none is left.
async fn watch<W: Send + 'static>(uploads: Weak<PartialUploads<W>>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(uploads) = uploads.upgrade() else { return };
        let old = {
            let mut table = uploads.lock();
            let old = table.expire(Instant::now());
            table.is_watched = !table.uploads.is_empty();
            (old, table.is_watched)
        };
        let (old, is_watched) = old;
        // A thread that fails to drop them leaves them to the end of the process.
        let _ = tokio::task::spawn_blocking(move || drop(old)).await;
        if !is_watched {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(principal: &str, name: &str) -> Key {
        Key { principal: principal.to_owned(), name: name.to_owned() }
    }

    #[tokio::test]
    async fn an_upload_goes_on_once_where_it_was_and_for_its_own_client() {
        let uploads = Arc::new(PartialUploads::new(1000));
        uploads.keep(key("a", "x"), "writer", 60);
        assert_eq!(uploads.committed(&key("a", "x")), Some(60));
        for other in [key("b", "x"), key("a", "y"), key("", "x")] {
            assert_eq!(uploads.committed(&other), None);
            assert_eq!(uploads.resume(&other, 60), Resumed::Unknown);
        }
        assert_eq!(uploads.resume(&key("a", "x"), 59), Resumed::Elsewhere(60));
        assert_eq!(uploads.resume(&key("a", "x"), 60), Resumed::Here("writer"));
        assert_eq!(uploads.resume(&key("a", "x"), 60), Resumed::Unknown);
        assert_eq!(uploads.lock().bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_and_number_have_a_bound() {
        let uploads = Arc::new(PartialUploads::new(1000));
        for (name, bytes) in [("a", 400), ("b", 400), ("c", 200), ("d", 1), ("large", 1001)] {
            uploads.keep(key("", name), (), bytes);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let committed = ["a", "b", "c", "d", "large"].map(|it| uploads.committed(&key("", it)));
        assert_eq!(committed, [None, Some(400), Some(200), Some(1), None]);
        // Kept again, the same upload takes the place of its older self.
        uploads.keep(key("", "b"), (), 799);
        assert_eq!(uploads.lock().bytes, 1000);
        // Of two of the same age, either may go.
        tokio::time::advance(Duration::from_secs(1)).await;
        for number in 0..2 * MAX_UPLOADS {
            uploads.keep(key("", &number.to_string()), (), 1);
        }
        assert_eq!(uploads.lock().uploads.len(), MAX_UPLOADS);
        assert_eq!(uploads.lock().bytes, MAX_UPLOADS as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_forgotten_after_an_hour() {
        let uploads = Arc::new(PartialUploads::new(1000));
        let alive = Arc::new(());
        uploads.keep(key("", "a"), Arc::clone(&alive), 10);
        tokio::time::sleep(MAX_AGE - Duration::from_secs(1)).await;
        assert_eq!(uploads.committed(&key("", "a")), Some(10));
        tokio::time::sleep(2 * LOOK_INTERVAL).await;
        assert_eq!(uploads.committed(&key("", "a")), None);
        while Arc::strong_count(&alive) > 1 {
            tokio::task::yield_now().await;
        }
        assert!(!uploads.lock().is_watched);
        // The next one is watched again.
        uploads.keep(key("", "b"), Arc::clone(&alive), 10);
        assert!(uploads.lock().is_watched);
    }
}
