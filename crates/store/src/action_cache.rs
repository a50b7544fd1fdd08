//! The action cache: what an action's digest was answered with, by instance name.
//!
//! A value is bytes to this module: whether the blobs that a result names are still there is asked
//! by who can read it. An entry is seen whole or not at all; one that is damaged reads as absent.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use model::{Digest, DigestFunction, HASH_BYTES_MAX, HashBytes};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::cas::snapshot;
use crate::checkpoint::Checkpoints;
use crate::disk::{openat, unlinkat};
use crate::empty_directory::each_entry;
use crate::entry;
use crate::error::StoreError;
use crate::function_directories::{DIRECTORIES, FunctionDirectories};
use crate::index::Index;
use crate::index_file::{Snapshot, Witness};
use crate::publisher::Publisher;
use crate::quarantine::is_of_file;
use crate::recency::{Clock, Tick, Usage};
use crate::resident;
use crate::root::write_all;
use crate::space::Space;
use crate::stripes::Stripes;
use crate::table::Record;

/// The largest value: a result names its outputs, and has small ones in it.
pub const ENTRY_BYTES_MAX: u64 = 64 << 20;

/// The mode of an entry: for nobody but the server, and for it only to read.
pub(crate) const ENTRY_MODE: Mode = Mode::RUSR;

/// Enough for nearly every result, so that reading one is open, read, close.
const FIRST_READ_BYTES: usize = 4096;

/// Without NOATIME a read would be a write now and then.
/// And opening a pipe that somebody put in the place of an entry must not hang.
const READ_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOATIME)
    .union(OFlags::CLOEXEC);

/// A handle on the cached results; cloning it is cheap.
#[derive(Clone)]
pub struct ActionCache {
    inner: Arc<Inner>,
}

struct Inner {
    files: Publisher,
    directories: FunctionDirectories,
    checkpoints: Arc<Checkpoints>,
    /// The entries, by [`key`] and with the size of their files.
    index: Index,
    clock: Arc<Clock>,
    space: Arc<Space>,
    names: Stripes,
}

/// The path of an entry below `ac`.
struct EntryPath {
    path: CString,
    /// The start of the file's own name.
    name_at: usize,
    /// The entry's place in the index.
    key: Digest,
}

impl EntryPath {
    fn new(instance: &str, action: &Digest) -> Self {
        let hex = action.hex();
        let function = action.function().name();
        let mut path = format!("{function}/{}/", &hex[..2]);
        let name_at = path.len();
        path += &format!("{hex}-{}", action.size_bytes());
        let instance =
            (!instance.is_empty()).then(|| Digest::of(DigestFunction::Sha256, instance.as_bytes()));
        if let Some(instance) = &instance {
            path.push('-');
            path += &instance.hex();
        }
        let path = CString::new(path).expect("letters, digits, slashes and dashes");
        Self { path, name_at, key: key(action, instance.as_ref(), 0) }
    }

    /// The entry's place in the index, with the size of its file.
    fn key(&self, file_bytes: u64) -> Digest {
        Digest::new(self.key.function(), *self.key.hash(), file_bytes)
    }

    fn name(&self) -> &[u8] {
        &self.path.as_bytes()[self.name_at..]
    }

    fn failed(&self, step: &'static str, errno: Errno) -> StoreError {
        StoreError::io(step, self.path.to_string_lossy(), errno)
    }
}

/// The place of an entry in the index: the action's hash, mixed with what else is in the name of the
/// file. Its first byte is the hash's, so that a part of the index is a directory of entries.
fn key(action: &Digest, instance: Option<&Digest>, file_bytes: u64) -> Digest {
    let mut hash = [0; HASH_BYTES_MAX];
    let hash = &mut hash[..action.hash().len()];
    hash.copy_from_slice(action.hash());
    let mut mix = |bytes: &[u8]| {
        hash[8..].iter_mut().zip(bytes).for_each(|(byte, other)| *byte ^= other);
    };
    mix(&action.size_bytes().to_le_bytes());
    if let Some(instance) = instance {
        mix(&instance.hash()[8..]);
    }
    Digest::new(action.function(), HashBytes::of(hash), file_bytes)
}

/// The [`key`] of the entry whose file has that name; `None` if it is not the name of an entry.
pub(crate) fn key_of_name(
    function: DigestFunction,
    first_byte: u8,
    name: &[u8],
    file_bytes: u64,
) -> Option<Digest> {
    let mut parts = str::from_utf8(name).ok()?.split('-');
    let (hash, size) = (parts.next()?, parts.next()?);
    let size_bytes = size.parse().ok().filter(|bytes: &u64| bytes.to_string() == size)?;
    let action = Digest::parse_hex_bytes(function, hash.as_bytes(), size_bytes).ok()?;
    let instance = match parts.next() {
        Some(hex) => Some(Digest::parse_hex_bytes(DigestFunction::Sha256, hex.as_bytes(), 0).ok()?),
        None => None,
    };
    let is_entry = parts.next().is_none() && action.hash()[0] == first_byte;
    is_entry.then(|| key(&action, instance.as_ref(), file_bytes))
}

impl ActionCache {
    /// `files` makes entries in `directories`, and `index` knows those that are there.
    pub(crate) fn new(
        files: Publisher,
        directories: FunctionDirectories,
        checkpoints: Arc<Checkpoints>,
        index: Index,
        clock: Arc<Clock>,
        space: Arc<Space>,
    ) -> Self {
        let names = Stripes::new();
        let inner = Inner { files, directories, checkpoints, index, clock, space, names };
        Self { inner: Arc::new(inner) }
    }

    /// The entries' attributes.
    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }

    /// The value that was stored for an action; `None` if there is none, or a damaged one.
    pub fn get(&self, instance: &str, action: &Digest) -> Result<Option<Bytes>, StoreError> {
        let value = self.look(instance, action)?;
        if value.is_some() {
            self.touch(&EntryPath::new(instance, action));
        }
        Ok(value)
    }

    /// As [`ActionCache::get`], but no use of the entry: for those who only look at the store.
    pub fn look(&self, instance: &str, action: &Digest) -> Result<Option<Bytes>, StoreError> {
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
        let value = entry::decode(path.name(), &entry.into()).ok_or(StoreError::WouldWait)?;
        self.touch(&path);
        Ok(Some(value))
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
        let inner = &*self.inner;
        let charge = inner.space.charge_file(entry.len() as u64)?;
        let write = || {
            let file = self.inner.files.create()?;
            write_all(file.as_fd(), &entry)?;
            Ok(file)
        };
        let failed = |step, e| inner.space.trouble().failed(step, path.path.to_string_lossy(), e);
        let file = write().map_err(|e| failed("write cached result", e))?;
        {
            let _change = self.inner.checkpoints.begin_change()?;
            if !inner.directories.contain(action.function())
                && inner
                    .directories
                    .make(action.function())
                    .map_err(|e| failed("make the directories of", e))?
            {
                inner.space.add_directories(DIRECTORIES);
            }
            let _name = self.inner.names.lock(action.hash());
            inner
                .files
                .publish(file.as_fd(), &path.path)
                .map_err(|e| failed("publish cached result", e))?;
            let usage = Usage::first(inner.clock.now());
            if let Some(before) = inner.index.insert(&path.key(entry.len() as u64), usage) {
                inner.space.release(inner.space.cost(before));
            }
        }
        inner.checkpoints.stored(charge.bytes());
        charge.keep();
        Ok(())
    }

    /// Removes an action's value that names blobs which are gone, unless it was replaced meanwhile.
    pub fn remove_incomplete(
        &self,
        instance: &str,
        action: &Digest,
        value: &[u8],
    ) -> Result<(), StoreError> {
        let path = EntryPath::new(instance, action);
        let _change = self.inner.checkpoints.begin_change()?;
        let _name = self.inner.names.lock(action.hash());
        let entry = self.read(&path)?;
        let current = entry.and_then(|entry| entry::decode(path.name(), &entry));
        if current.is_some_and(|current| current == value) {
            self.unlink(&path)?;
        }
        Ok(())
    }

    /// Evicts entries of one directory that were not used since then. Returns their number, and the
    /// bytes of the disk that are free now.
    pub(crate) fn evict(
        &self,
        (function, first_byte): (DigestFunction, u8),
        idle: &[(Digest, Tick)],
    ) -> Result<(u64, u64), StoreError> {
        let inner = &*self.inner;
        let idle: HashMap<HashBytes, Tick> =
            idle.iter().map(|(key, last_use)| (*key.hash(), *last_use)).collect();
        let path = format!("{}/{first_byte:02x}", function.name());
        let failed = |step, e: Errno| StoreError::io(step, path.as_str(), e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(inner.files.directory(), &path, flags, Mode::empty())
            .map_err(|e| failed("open", e))?;
        let mut names = Vec::new();
        each_entry(&directory, |name, _| -> Result<(), Errno> {
            let key = key_of_name(function, first_byte, name.to_bytes(), 0);
            let last_use = key.and_then(|key| idle.get(key.hash()).map(|last| (key, *last)));
            names.extend(last_use.map(|(key, last_use)| (name.to_owned(), key, last_use)));
            Ok(())
        })
        .map_err(|e| failed("list", e))?;
        let (mut entries, mut bytes) = (0, 0);
        for (name, key, last_use) in names {
            let _change = inner.checkpoints.begin_change()?;
            let _name = inner.names.lock_all_of(first_byte);
            let Some(before) = inner.index.remove_unused_since(&key, last_use) else { continue };
            match unlinkat(&directory, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => {
                    self.restore(&key, before);
                    return Err(failed("evict a cached result of", e));
                }
            }
            let cost = inner.space.cost(before);
            inner.space.release(cost);
            entries += 1;
            bytes += cost;
        }
        Ok((entries, bytes))
    }

    fn touch(&self, path: &EntryPath) {
        self.inner.index.touch_any_size(&path.key, self.inner.clock.now());
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
            // An entry that can't be read is damaged and is removed.
            Err(e) if is_of_file(e) => return Ok(Some(Bytes::new())),
            Err(e) => return Err(path.failed("open cached result", e)),
        };
        let mut entry = Vec::with_capacity(FIRST_READ_BYTES);
        match read_once(&file, &mut entry).and_then(|()| read_rest(&file, &mut entry)) {
            Ok(()) => Ok(Some(entry.into())),
            Err(e) if is_of_file(e) => Ok(Some(Bytes::new())),
            Err(e) => Err(path.failed("read cached result", e)),
        }
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

    /// The caller holds the lock of the entry's name.
    fn unlink(&self, path: &EntryPath) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        let before = inner.index.remove(&path.key);
        let directory = inner.files.directory();
        let unlinked = match unlinkat(directory, &path.path, AtFlags::empty()) {
            Err(Errno::ISDIR) => unlinkat(directory, &path.path, AtFlags::REMOVEDIR),
            unlinked => unlinked,
        };
        match (unlinked, before) {
            (Ok(()) | Err(Errno::NOENT), Some(before)) => {
                inner.space.release(inner.space.cost(before));
            }
            (Err(_), Some(before)) => self.restore(&path.key, before),
            (_, None) => {}
        }
        match unlinked {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(path.failed("remove cached result", e)),
        }
    }

    /// Takes an entry into the index again whose file could not be unlinked: it still takes its space.
    fn restore(&self, key: &Digest, file_bytes: u64) {
        let key = Digest::new(key.function(), *key.hash(), file_bytes);
        self.inner.index.insert(&key, Usage::first(self.inner.clock.now()));
    }
}

impl Snapshot for ActionCache {
    fn snapshot(&self, part: usize, slots: &mut Vec<Record>) -> Result<Option<Witness>, Errno> {
        let inner = &*self.inner;
        let (files, functions) = (inner.files.directory(), &inner.directories);
        snapshot(files, functions, &inner.names, &inner.index, part, slots)
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
