//! The results that are to be copied upstream, which a restart does not forget.
//!
//! An entry is a key only: an instance name and an action. The result is in the store, and an entry
//! whose result was evicted meanwhile is dropped. The file is described in `docs/storage-format.md`. It is not
//! synced: a crash of the machine may lose its last lines, and then these results are not copied.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Digest, DigestFunction};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Results that may wait: 15 MB on the disk and in memory, and a day of building without the upstream. More
/// are not copied.
const ENTRIES_MAX: usize = 100_000;

/// Lines after which the file is written anew with what still waits.
const LINES_MAX: usize = 2 * ENTRIES_MAX;

/// The first line.
const HEADER: &str = "actiond upstream 1";

/// The largest file that is read: what was written before it would have been written anew, twice.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A result that is to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) instance: String,
    pub(crate) action: Digest,
}

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A system call failed.
    #[error("can't {step} {path}")]
    Io {
        /// The act.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file was written by another version, or is not a journal.
    #[error("{path} is not a journal of this version; move it away")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

/// The waiting entries. One lock protects them, held for a write to a file at most.
pub(crate) struct Journal {
    path: PathBuf,
    state: Mutex<State>,
    added: Notify,
    dropped: AtomicU64,
    entries_max: usize,
}

struct State {
    file: File,
    lines: usize,
    waiting: VecDeque<Entry>,
    known: HashSet<Entry>,
    /// Entries that were taken and are not done.
    taken: HashSet<Entry>,
}

impl Journal {
    /// Opens the journal of a store, or makes one.
    ///
    /// # Errors
    /// When the file can't be read or written, or is not a journal of this version.
    pub(crate) fn open(path: &Path) -> Result<Self, JournalError> {
        Self::with_limit(path, ENTRIES_MAX)
    }

    fn with_limit(path: &Path, entries_max: usize) -> Result<Self, JournalError> {
        let waiting = read(path)?;
        let known = waiting.iter().cloned().collect();
        let file = rewrite(path, waiting.iter()).map_err(failed("write", path))?;
        let lines = waiting.len();
        let state = State { file, lines, waiting, known, taken: HashSet::new() };
        let (added, dropped) = (Notify::new(), AtomicU64::new(0));
        Ok(Self { path: path.to_owned(), state: Mutex::new(state), added, dropped, entries_max })
    }

    /// The number of entries that are not done.
    pub(crate) fn len(&self) -> u64 {
        let state = self.state.lock();
        (state.waiting.len() + state.taken.len()) as u64
    }

    /// The number of entries that found no room, or could not be copied.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds an entry, unless it waits already or there is no room.
    pub(crate) fn add(&self, entry: Entry) {
        let mut state = self.state.lock();
        if state.known.contains(&entry) {
            return;
        }
        if state.waiting.len() + state.taken.len() >= self.entries_max {
            let is_first = self.dropped.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first {
                let limit = self.entries_max;
                tracing::warn!(
                    limit,
                    "so many results wait to be copied upstream that new ones are not"
                );
            }
            return;
        }
        self.write(&mut state, '+', &entry);
        state.known.insert(entry.clone());
        state.waiting.push_back(entry);
        drop(state);
        self.added.notify_one();
    }

    /// Waits for the next entry and takes it.
    pub(crate) async fn take(&self) -> Entry {
        loop {
            let added = self.added.notified();
            {
                let mut state = self.state.lock();
                if let Some(entry) = state.waiting.pop_front() {
                    state.known.remove(&entry);
                    state.taken.insert(entry.clone());
                    let has_more = !state.waiting.is_empty();
                    drop(state);
                    if has_more {
                        self.added.notify_one();
                    }
                    return entry;
                }
            }
            added.await;
        }
    }

    /// Strikes out an entry that was taken.
    pub(crate) fn done(&self, entry: &Entry) {
        let mut state = self.state.lock();
        state.taken.remove(entry);
        self.write(&mut state, '-', entry);
    }

    /// As [`Journal::done`], for one that could not be copied.
    pub(crate) fn give_up(&self, entry: &Entry) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.done(entry);
    }

    /// Puts an entry that was taken back to the others.
    pub(crate) fn put_back(&self, entry: Entry) {
        let mut state = self.state.lock();
        state.taken.remove(&entry);
        if state.known.insert(entry.clone()) {
            state.waiting.push_back(entry);
        }
        drop(state);
        self.added.notify_one();
    }

    fn write(&self, state: &mut State, sign: char, entry: &Entry) {
        let written = match state.lines < LINES_MAX {
            true => writeln!(state.file, "{sign} {}", line(entry)),
            false => rewrite(&self.path, state.waiting.iter().chain(&state.taken)).map(|file| {
                state.file = file;
                state.lines = 0;
            }),
        };
        state.lines += 1;
        if let Err(error) = written {
            // The entry still waits in memory.
            tracing::warn!(%error, path = ?self.path, "the journal of the upstream was not written");
        }
    }
}

fn failed(step: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |source| JournalError::Io { step, path: path.to_owned(), source }
}

/// The entries of a file that are not struck out, in their order.
fn read(path: &Path) -> Result<VecDeque<Entry>, JournalError> {
    let foreign = || JournalError::Foreign { path: path.to_owned() };
    match std::fs::metadata(path) {
        Ok(status) if status.len() > FILE_BYTES_MAX => return Err(foreign()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(error) => return Err(failed("read", path)(error)),
    }
    let content = std::fs::read(path).map_err(failed("read", path))?;
    // A crash of the machine may have left anything in the last lines.
    let content = String::from_utf8_lossy(&content);
    let mut lines = content.split_inclusive('\n');
    match lines.next() {
        None => return Ok(VecDeque::new()),
        Some(first) if first.strip_suffix('\n') == Some(HEADER) => {}
        Some(_) => return Err(foreign()),
    }
    let mut order = VecDeque::new();
    let mut live = HashSet::new();
    for line in lines.filter_map(|line| line.strip_suffix('\n')) {
        match line.split_at_checked(2) {
            Some(("+ ", entry)) => {
                if let Some(entry) = parse(entry).filter(|entry| live.insert(entry.clone())) {
                    order.push_back(entry);
                }
            }
            Some(("- ", entry)) => {
                if let Some(entry) = parse(entry) {
                    live.remove(&entry);
                }
            }
            _ => {}
        }
    }
    // One that was struck out and added again is twice in the order.
    order.retain(|entry| live.remove(entry));
    Ok(order)
}

/// Writes the file anew and opens it for more.
fn rewrite<'a>(path: &Path, entries: impl Iterator<Item = &'a Entry>) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut text = format!("{HEADER}\n");
    entries.for_each(|entry| text += &format!("+ {}\n", line(entry)));
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&new, path)?;
    Ok(file)
}

/// An entry as text: function, hash, size, and the instance name in hexadecimal.
fn line(entry: &Entry) -> String {
    let Entry { instance, action } = entry;
    let instance = hex::encode(instance);
    format!("{} {} {} {instance}", action.function().name(), action.hex(), action.size_bytes())
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let function = DigestFunction::from_name(words.next()?)?;
    let (hash, size_bytes) = (words.next()?, words.next()?.parse().ok()?);
    let action = Digest::parse_hex(function, hash, size_bytes).ok()?;
    let instance = String::from_utf8(hex::decode(words.next()?).ok()?).ok()?;
    words.next().is_none().then_some(Entry { instance, action })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn entry(number: u8) -> Entry {
        let instance =
            if number.is_multiple_of(2) { String::new() } else { "team/ä b\n".to_owned() };
        Entry { instance, action: Digest::of(DigestFunction::Sha256, &[number]) }
    }

    fn open(directory: &tempfile::TempDir) -> Journal {
        Journal::open(&directory.path().join("journal")).unwrap()
    }

    fn waiting(journal: &Journal) -> Vec<Entry> {
        std::iter::from_fn(|| journal.take().now_or_never()).collect()
    }

    #[test]
    fn what_is_not_done_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let journal = open(&directory);
        (0..4).for_each(|number| journal.add(entry(number)));
        journal.add(entry(3));
        assert_eq!(journal.len(), 4);
        let first = journal.take().now_or_never().unwrap();
        let second = journal.take().now_or_never().unwrap();
        journal.done(&first);
        journal.put_back(second);
        drop(journal);
        // 1 was taken and put back, which does not change the file.
        assert_eq!(waiting(&open(&directory)), [entry(1), entry(2), entry(3)]);
        // Taken and not done, they still wait.
        assert_eq!(waiting(&open(&directory)).len(), 3);
    }

    #[test]
    fn an_entry_can_come_again_when_it_was_done() {
        let directory = tempfile::tempdir().unwrap();
        let journal = open(&directory);
        journal.add(entry(1));
        journal.add(entry(2));
        let first = journal.take().now_or_never().unwrap();
        journal.done(&first);
        journal.add(first);
        drop(journal);
        let mut found = waiting(&open(&directory));
        found.sort_by_key(|it| it.action);
        let mut expected = [entry(1), entry(2)];
        expected.sort_by_key(|it| it.action);
        assert_eq!(found, expected);
    }

    #[test]
    fn there_is_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::with_limit(&directory.path().join("journal"), 2).unwrap();
        (0..5).for_each(|number| journal.add(entry(number)));
        assert_eq!((journal.len(), journal.dropped()), (2, 3));
        let taken = journal.take().now_or_never().unwrap();
        journal.add(entry(4));
        assert_eq!(journal.len(), 2, "what is being copied counts");
        journal.give_up(&taken);
        journal.add(entry(4));
        assert_eq!((journal.len(), journal.dropped()), (2, 5));
    }

    #[test]
    fn a_torn_file_is_read_as_far_as_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let whole = format!("{HEADER}\n+ {}\n", line(&entry(1)));
        for tail in ["+ sha256 00", "\0\0\0\n", "+ sha256 nonsense 1 \n", "? x\n", "\u{fffd}"] {
            std::fs::write(&path, format!("{whole}{tail}")).unwrap();
            assert_eq!(waiting(&open(&directory)), [entry(1)], "{tail:?}");
        }
        std::fs::write(&path, "").unwrap();
        assert!(waiting(&open(&directory)).is_empty());
    }

    #[test]
    fn a_foreign_file_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        std::fs::write(&path, "actiond upstream 2\nx\n").unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Foreign { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "actiond upstream 2\nx\n");
    }

    #[tokio::test]
    async fn several_wait_for_entries() {
        let directory = tempfile::tempdir().unwrap();
        let journal = std::sync::Arc::new(open(&directory));
        let take = || {
            let journal = std::sync::Arc::clone(&journal);
            tokio::spawn(async move { journal.take().await })
        };
        let (one, other) = (take(), take());
        tokio::task::yield_now().await;
        journal.add(entry(1));
        journal.add(entry(2));
        let taken = [one.await.unwrap(), other.await.unwrap()];
        assert!(taken.contains(&entry(1)) && taken.contains(&entry(2)));
    }
}
