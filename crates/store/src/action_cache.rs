//! The action cache: what an action's digest was answered with, by instance name.
//!
//! A value is bytes to this module: whether the blobs that a result names are still there is asked
//! by who can read it. An entry is seen whole or not at all; one that is damaged reads as absent.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use model::{Digest, DigestFunction};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::checkpoint::Checkpoints;
use crate::entry;
use crate::error::StoreError;
use crate::publisher::Publisher;
use crate::resident;
use crate::root::write_all;
use crate::stripes::Stripes;

/// The largest value: a result names its outputs, and has small ones in it.
pub const ENTRY_BYTES_MAX: u64 = 64 << 20;

/// The mode of an entry: for nobody but the server, and for it only to read.
pub(crate) const ENTRY_MODE: Mode = Mode::RUSR;

/// Enough for nearly every result, so that reading one is open, read, close.
const FIRST_READ_BYTES: usize = 4096;

/// Without NOATIME a read would be a write now and then.
const READ_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NOATIME).union(OFlags::CLOEXEC);

/// A handle on the cached results; cloning it is cheap.
#[derive(Clone)]
pub struct ActionCache {
    inner: Arc<Inner>,
}

struct Inner {
    files: Publisher,
    checkpoints: Arc<Checkpoints>,
    names: Stripes,
}

/// Where an entry lies below `ac`.
struct EntryPath {
    path: CString,
    /// Where the file's own name begins.
    name_at: usize,
}

impl EntryPath {
    fn new(instance: &str, action: &Digest) -> Self {
        let hex = action.hex();
        let function = action.function().name();
        let mut path = format!("{function}/{}/", &hex[..2]);
        let name_at = path.len();
        path += &format!("{hex}-{}", action.size_bytes());
        if !instance.is_empty() {
            let instance = Digest::of(DigestFunction::Sha256, instance.as_bytes());
            path.push('-');
            path += &instance.hex();
        }
        Self { path: CString::new(path).expect("letters, digits, slashes and dashes"), name_at }
    }

    fn name(&self) -> &[u8] {
        &self.path.as_bytes()[self.name_at..]
    }

    fn failed(&self, step: &'static str, errno: Errno) -> StoreError {
        StoreError::io(step, self.path.to_string_lossy(), errno)
    }
}

impl ActionCache {
    pub(crate) fn new(files: Publisher, checkpoints: Arc<Checkpoints>) -> Self {
        Self { inner: Arc::new(Inner { files, checkpoints, names: Stripes::new() }) }
    }

    /// The value that was stored for an action; `None` if there is none, or a damaged one.
    pub fn get(&self, instance: &str, action: &Digest) -> Result<Option<Bytes>, StoreError> {
        let path = EntryPath::new(instance, action);
        let Some(entry) = self.read(&path)? else {
            return Ok(None);
        };
        match entry::decode(path.name(), &entry) {
            Some(value) => Ok(Some(value)),
            None => self.remove_damaged(&path, action),
        }
    }

    /// As [`ActionCache::get`], but never waits for a disk: finds only a small value whose file the
    /// kernel has in memory, and answers `None` only when the kernel remembers that there is none.
    /// Any other answer is [`StoreError::WouldWait`].
    pub(crate) fn get_resident(
        &self,
        instance: &str,
        action: &Digest,
    ) -> Result<Option<Bytes>, StoreError> {
        let path = EntryPath::new(instance, action);
        let directory = self.inner.files.directory();
        let Some(entry) = resident::read(directory.as_fd(), &path.path, READ_FLAGS)? else {
            return Ok(None);
        };
        // An entry that is damaged or longer is left to the view that may wait.
        entry::decode(path.name(), &entry.into()).map(Some).ok_or(StoreError::WouldWait)
    }

    /// Stores a value of up to [`ENTRY_BYTES_MAX`] for an action, in place of any that was there.
    pub fn put(&self, instance: &str, action: &Digest, value: &[u8]) -> Result<(), StoreError> {
        if value.len() as u64 > ENTRY_BYTES_MAX {
            return Err(StoreError::EntryTooLarge {
                size_bytes: value.len() as u64,
                max_bytes: ENTRY_BYTES_MAX,
            });
        }
        let path = EntryPath::new(instance, action);
        let entry = entry::encode(path.name(), value);
        let write = || {
            let file = self.inner.files.create()?;
            write_all(file.as_fd(), &entry)?;
            Ok(file)
        };
        let file = write().map_err(|e| path.failed("write cached result", e))?;
        let _change = self.inner.checkpoints.begin_change()?;
        let _name = self.inner.names.lock(action.hash());
        self.inner
            .files
            .publish(file.as_fd(), &path.path)
            .map_err(|e| path.failed("publish cached result", e))
    }

    /// Removes an action's value, and returns whether there was one.
    pub fn delete(&self, instance: &str, action: &Digest) -> Result<bool, StoreError> {
        let path = EntryPath::new(instance, action);
        let _change = self.inner.checkpoints.begin_change()?;
        let _name = self.inner.names.lock(action.hash());
        self.unlink(&path)
    }

    /// All bytes of an entry's file, or as many as show that it is none.
    fn read(&self, path: &EntryPath) -> Result<Option<Bytes>, StoreError> {
        let directory = self.inner.files.directory();
        let file = match openat(directory, &path.path, READ_FLAGS, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(path.failed("open cached result", e)),
        };
        let mut entry = Vec::with_capacity(FIRST_READ_BYTES);
        read_once(&file, &mut entry)
            .and_then(|()| read_rest(&file, &mut entry))
            .map_err(|e| path.failed("read cached result", e))?;
        Ok(Some(entry.into()))
    }

    /// Removes an entry that is damaged, unless it was replaced meanwhile: then its new value.
    fn remove_damaged(
        &self,
        path: &EntryPath,
        action: &Digest,
    ) -> Result<Option<Bytes>, StoreError> {
        let _change = self.inner.checkpoints.begin_change()?;
        let _name = self.inner.names.lock(action.hash());
        let entry = self.read(path)?;
        let value = entry.and_then(|entry| entry::decode(path.name(), &entry));
        if value.is_none() {
            tracing::warn!(entry = ?path.path, "removed a cached result that is damaged");
            self.unlink(path)?;
        }
        Ok(value)
    }

    fn unlink(&self, path: &EntryPath) -> Result<bool, StoreError> {
        match unlinkat(self.inner.files.directory(), &path.path, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(path.failed("remove cached result", e)),
        }
    }
}

fn read_once(file: &OwnedFd, entry: &mut Vec<u8>) -> Result<(), Errno> {
    loop {
        match rustix::io::read(file, spare_capacity(entry)) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Reads what is left of an entry whose beginning was read, if its header makes sense.
fn read_rest(file: &OwnedFd, entry: &mut Vec<u8>) -> Result<(), Errno> {
    if entry.len() < entry.capacity() {
        return Ok(()); // a short read of a regular file is its end
    }
    let limit = entry::HEADER_BYTES as u64 + ENTRY_BYTES_MAX;
    let Some(total) = entry::total_bytes(entry).filter(|total| *total <= limit) else {
        return Ok(());
    };
    // One byte more than there should be, to see that there are no more.
    entry.reserve_exact(total as usize + 1 - entry.len().min(total as usize));
    loop {
        let before = entry.len();
        if before > total as usize {
            return Ok(());
        }
        read_once(file, entry)?;
        if entry.len() == before {
            return Ok(());
        }
    }
}
