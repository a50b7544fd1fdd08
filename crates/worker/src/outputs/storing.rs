//! Files on their way to being blobs, by several threads when there are many.
//!
//! Storing a small file is a dozen system calls and hardly any bytes, and none of
//! them waits for another file's.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use inputroot::StagedFile;
use model::RelPath;
use store::{AdoptError, Adopted};

use crate::error::ActionError;
use crate::outputs::Collection;

/// Files that wait to be stored together. Each may hold a directory of its own
/// open, and descriptors are few.
const BATCH_FILES: usize = 512;

/// One thread more for so many files: starting one costs as much as storing two.
const FILES_PER_THREAD: usize = 16;

/// Threads for one action's outputs. The directories that they write to are the
/// same few, so more would wait for each other.
const THREADS_MAX: usize = 4;

/// Stands for a file that is to be stored: its place in what [`Storing::finish`]
/// gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket(usize);

impl Ticket {
    /// What became of the file.
    pub(super) fn of<'a>(&self, stored: &'a [Adopted]) -> Option<&'a Adopted> {
        stored.get(self.0)
    }
}

/// The files of one action.
pub(super) struct Storing<'a> {
    collection: &'a Collection<'a>,
    waiting: Vec<(RelPath, StagedFile)>,
    stored: Vec<Adopted>,
    /// Of all files that were stored, whether their content was new or not.
    bytes: AtomicU64,
}

impl<'a> Storing<'a> {
    pub(super) fn new(collection: &'a Collection<'a>) -> Self {
        Self { collection, waiting: Vec::new(), stored: Vec::new(), bytes: AtomicU64::new(0) }
    }

    /// One more file. It, or one before it, may be stored at once.
    pub(super) fn add(&mut self, path: &RelPath, file: StagedFile) -> Result<Ticket, ActionError> {
        let ticket = Ticket(self.stored.len() + self.waiting.len());
        self.waiting.push((path.clone(), file));
        if self.waiting.len() == BATCH_FILES {
            self.store_waiting()?;
        }
        Ok(ticket)
    }

    /// What became of all files, in the order in which they were added.
    pub(super) fn finish(mut self) -> Result<Vec<Adopted>, ActionError> {
        self.store_waiting()?;
        Ok(self.stored)
    }

    fn store_waiting(&mut self) -> Result<(), ActionError> {
        let files = std::mem::take(&mut self.waiting);
        let threads = threads_for(files.len());
        let batch = Batch {
            storing: self,
            files: &files,
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        };
        let parts = thread::scope(|scope| {
            let spawn = |_| thread::Builder::new().spawn_scoped(scope, || batch.store_some());
            // Where no thread is to be had, as beside a fork bomb, there are fewer to do it.
            let others: Vec<_> = (1..threads).map_while(|index| spawn(index).ok()).collect();
            let own = batch.store_some();
            let joined = others.into_iter().map(|thread| {
                let panicked = |_| Err(ActionError::Internal("storing outputs panicked".into()));
                thread.join().unwrap_or_else(panicked)
            });
            std::iter::once(own).chain(joined).collect::<Result<Vec<_>, _>>()
        })?;
        let mut stored: Vec<_> = parts.into_iter().flatten().collect();
        stored.sort_unstable_by_key(|(index, _)| *index);
        self.stored.extend(stored.into_iter().map(|(_, adopted)| adopted));
        Ok(())
    }

    fn store(&self, path: &RelPath, file: &StagedFile) -> Result<Adopted, ActionError> {
        let Collection { cas, function, limits, .. } = *self.collection;
        let room = limits.total_bytes.saturating_sub(self.bytes.load(Ordering::Relaxed));
        let adopted = file.adopt(cas, function, limits.file_bytes.min(room));
        let adopted = adopted.map_err(|error| not_stored(path, &error))?;
        let size_bytes = adopted.digest.size_bytes();
        let before = self.bytes.fetch_add(size_bytes, Ordering::Relaxed);
        // Another thread may have taken the room meanwhile.
        if before.saturating_add(size_bytes) > limits.total_bytes {
            let max_bytes = limits.total_bytes;
            let text = format!("the outputs up to `{path}` have more than {max_bytes} bytes");
            return Err(ActionError::ResourceExhausted(text));
        }
        Ok(adopted)
    }
}

fn threads_for(files: usize) -> usize {
    let threads = (files / FILES_PER_THREAD).clamp(1, THREADS_MAX);
    // Asking for the number of cores costs as much as storing two files.
    if threads == 1 {
        return 1;
    }
    thread::available_parallelism().map_or(1, NonZeroUsize::get).min(threads)
}

/// Files that are being stored by several threads.
struct Batch<'a> {
    storing: &'a Storing<'a>,
    files: &'a [(RelPath, StagedFile)],
    next: AtomicUsize,
    /// One thread met an error: the others need not go on.
    failed: AtomicBool,
}

impl Batch<'_> {
    /// Stores files until there are none left, and gives each with its index.
    fn store_some(&self) -> Result<Vec<(usize, Adopted)>, ActionError> {
        let mut stored = Vec::new();
        while !self.failed.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((path, file)) = self.files.get(index) else { break };
            if (self.storing.collection.cancelled)() {
                return Err(ActionError::Cancelled);
            }
            let adopted = self.storing.store(path, file);
            let adopted = adopted.inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
            stored.push((index, adopted));
        }
        Ok(stored)
    }
}

fn not_stored(path: &RelPath, error: &AdoptError) -> ActionError {
    match error {
        AdoptError::TooLarge { size_bytes, max_bytes, .. } => {
            let text = format!(
                "output `{path}` has {size_bytes} bytes, more than the {max_bytes} that it may have"
            );
            ActionError::ResourceExhausted(text)
        }
        AdoptError::Store(source) if source.is_out_of_space() => {
            ActionError::ResourceExhausted(format!("no space to store output `{path}`: {source}"))
        }
        _ => ActionError::internal(&format!("storing output `{path}`"), error),
    }
}
