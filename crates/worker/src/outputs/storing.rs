//! Files on their way to being blobs, by several threads when there are many.
//!
//! Storing a small file is a dozen system calls and hardly any bytes, and none of them waits for
//! another file's. A file that cannot be stored is recorded as a loss, and the others go on.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use inputroot::StagedFile;
use model::RelPath;
use rustix::io::Errno;
use store::{AdoptError, Adopted};

use crate::error::ActionError;
use crate::losses::{Losses, quoted};
use crate::outputs::Collection;

/// Files that wait to be stored together. Each may hold a directory of its own
/// open, and descriptors are few.
const BATCH_FILES: usize = 512;

/// One thread more for so many files: starting one costs as much as storing two.
const FILES_PER_THREAD: usize = 16;

/// Threads for one action's outputs. The directories that they write to are the
/// same few, so more would wait for each other.
const THREADS_MAX: usize = 4;

/// After so many files that the server was at fault for, the rest of them is not tried: a disk that
/// is full or broken stays so, and each file is hashed before the store refuses it, which no limit
/// on stored bytes would end.
const FAULTS_MAX: usize = 16;

/// Stands for a file that is to be stored: its place in what [`Storing::finish`] gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket(usize);

/// The outcome of each file, by its ticket; nothing of one that could not be stored.
#[derive(Debug, Default)]
pub(super) struct Stored(Vec<Option<Adopted>>);

impl Stored {
    /// The outcome of a file.
    pub(super) fn file(&self, ticket: Ticket) -> Option<&Adopted> {
        self.0.get(ticket.0)?.as_ref()
    }
}

/// The files of one action.
pub(super) struct Storing<'a> {
    collection: &'a Collection<'a>,
    waiting: Vec<(RelPath, StagedFile)>,
    stored: Stored,
    losses: Losses,
    /// Of all files that were stored, whether their content was new or not.
    bytes: AtomicU64,
    faults: AtomicUsize,
}

impl<'a> Storing<'a> {
    pub(super) fn new(collection: &'a Collection<'a>) -> Self {
        Self {
            collection,
            waiting: Vec::new(),
            stored: Stored::default(),
            losses: Losses::default(),
            bytes: AtomicU64::new(0),
            faults: AtomicUsize::new(0),
        }
    }

    /// One more file. It, or one before it, may be stored at once. Fails only when nobody wants the
    /// outputs any more.
    pub(super) fn add(&mut self, path: &RelPath, file: StagedFile) -> Result<Ticket, ActionError> {
        let ticket = Ticket(self.stored.0.len() + self.waiting.len());
        self.waiting.push((path.clone(), file));
        if self.waiting.len() == BATCH_FILES {
            self.store_waiting()?;
        }
        Ok(ticket)
    }

    /// The outcome of all files, and those that could not be stored.
    pub(super) fn finish(mut self) -> Result<(Stored, Losses), ActionError> {
        self.store_waiting()?;
        Ok((self.stored, self.losses))
    }

    fn store_waiting(&mut self) -> Result<(), ActionError> {
        let files = std::mem::take(&mut self.waiting);
        let threads = threads_for(files.len());
        let batch = Batch { storing: self, files: &files, next: AtomicUsize::new(0) };
        let parts = thread::scope(|scope| {
            let spawn = |_| thread::Builder::new().spawn_scoped(scope, || batch.store_some());
            // If no thread can be started, as beside a fork bomb, fewer threads do it.
            let others: Vec<_> = (1..threads).map_while(|index| spawn(index).ok()).collect();
            let own = batch.store_some();
            let joined = others.into_iter().map(|thread| {
                let panicked = |_| Err(ActionError::Internal("storing outputs panicked".into()));
                thread.join().unwrap_or_else(panicked)
            });
            std::iter::once(own).chain(joined).collect::<Result<Vec<_>, _>>()
        })?;
        let mut done: Vec<_> = parts.into_iter().flatten().collect();
        done.sort_unstable_by_key(|(index, _)| *index);
        for ((path, _), (_, adopted)) in files.iter().zip(done) {
            let adopted = adopted.map_err(|error| self.losses.push(path.as_str(), error));
            self.stored.0.push(adopted.ok());
        }
        Ok(())
    }

    fn store(&self, path: &RelPath, file: &StagedFile) -> Result<Adopted, ActionError> {
        let Collection { destination, function, limits, .. } = *self.collection;
        if self.faults.load(Ordering::Relaxed) >= FAULTS_MAX {
            let path = quoted(path.as_str());
            let text = format!("output {path} was not tried after {FAULTS_MAX} failures");
            return Err(ActionError::Internal(text));
        }
        let room = limits.total_bytes.saturating_sub(self.bytes.load(Ordering::Relaxed));
        let adopted = destination.adopt(function, file, limits.file_bytes.min(room));
        let adopted = adopted.map_err(|error| {
            let is_limit = matches!(error, AdoptError::TooLarge { .. });
            self.faults.fetch_add(usize::from(!is_limit), Ordering::Relaxed);
            not_stored(path, &error)
        })?;
        let size_bytes = adopted.digest.size_bytes();
        let before = self.bytes.fetch_add(size_bytes, Ordering::Relaxed);
        // Another thread may have taken the room meanwhile. It was hashed, so it counts all the same.
        if before.saturating_add(size_bytes) > limits.total_bytes {
            let (path, max_bytes) = (quoted(path.as_str()), limits.total_bytes);
            let text = format!("the outputs up to {path} have more than {max_bytes} bytes");
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
}

/// A file by its index, and what became of it.
type Outcome = (usize, Result<Adopted, ActionError>);

impl Batch<'_> {
    /// Stores files until there are none left, or nobody wants them any more.
    fn store_some(&self) -> Result<Vec<Outcome>, ActionError> {
        let mut done = Vec::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((path, file)) = self.files.get(index) else { return Ok(done) };
            if (self.storing.collection.cancelled)() {
                return Err(ActionError::Cancelled);
            }
            done.push((index, self.storing.store(path, file)));
        }
    }
}

fn not_stored(path: &RelPath, error: &AdoptError) -> ActionError {
    let path = quoted(path.as_str());
    match error {
        AdoptError::TooLarge { size_bytes, max_bytes, .. } => {
            let text = format!(
                "output {path} has {size_bytes} bytes, more than the {max_bytes} that it may have"
            );
            ActionError::ResourceExhausted(text)
        }
        AdoptError::Store(source) => {
            ActionError::of_store(&format!("storing output {path}"), source)
        }
        AdoptError::Io { source, .. } => {
            let errno = Errno::from_io_error(source);
            ActionError::of_errno(&format!("storing output {path}"), error, errno)
        }
        AdoptError::NotAFile { .. } | AdoptError::Changed { .. } => {
            ActionError::internal(&format!("storing output {path}"), error)
        }
    }
}
