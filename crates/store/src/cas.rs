//! The content-addressed store: blobs that are whole, verified and never changed.
//!
//! # What happens at once
//!
//! A file and its entry in the index change under the lock of the name's stripe, so that a blob
//! that is stored and deleted at the same time ends as one or the other, in both places.
//!
//! A deletion holds the lock of the pins from before it asks them until the blob is out of the index
//! and the generation was counted up; the file goes after that, still under the stripe. Hence:
//!
//! - A thread that first pins and then finds a blob present keeps it: a deletion that began before has taken
//!   the blob out of the index by then, and one that begins later sees the pin.
//! - Who, after pinning, sees the generation that it had read **before** it last looked knows that
//!   nothing was deleted since, and need not look again. The generation is counted up after the
//!   index has changed: who reads the new one sees the index without the blob.

mod damage;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use model::{Digest, DigestFunction};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, statat};
use rustix::io::Errno;

use crate::blob_path::BlobPath;
use crate::checkpoint::Checkpoints;
use crate::disk::{openat, unlinkat};
use crate::error::StoreError;
use crate::function_directories::{DIRECTORIES, FunctionDirectories};
use crate::hash_file::{FileHash, hash_file};
use crate::index::Index;
use crate::index_file::{Snapshot, Witness};
use crate::losses::Losses;
use crate::pins::{Pin, PinSet, Pins};
use crate::publisher::Publisher;
use crate::quarantine::{Quarantine, is_of_file};
use crate::recency::{Clock, Tick, Usage};
use crate::resident;
use crate::root::write_all;
use crate::space::{Charge, Space};
use crate::stripes::Stripes;
use crate::stuck::Stuck;
use crate::table::Record;
use crate::watch::Watch;

/// The largest blob that [`Cas::read`] reads into memory: no message of REAPI that is a blob is
/// sensibly larger, and a caller that streams has [`Cas::open`].
pub const READ_BYTES_MAX: u64 = 64 << 20;

/// The flags with which blobs are opened. Without NOATIME a read would be a write now and then.
/// And opening a pipe that somebody put in the place of a blob must not hang.
pub(crate) const READ_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOATIME)
    .union(OFlags::CLOEXEC);

/// The mode of a blob: nobody changes it, everybody who can reach it may read it.
pub(crate) const BLOB_MODE: Mode = Mode::RUSR.union(Mode::RGRP).union(Mode::ROTH);

/// The outcome of a request to delete a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It was there, and is not any more.
    Gone,
    /// It was not there.
    Absent,
    /// It stays, because somebody needs it; so does the empty blob, always.
    Pinned,
}

/// A handle on the blobs; cloning it is cheap.
#[derive(Clone)]
pub struct Cas {
    inner: Arc<Inner>,
}

struct Inner {
    files: Publisher,
    directories: FunctionDirectories,
    path: PathBuf,
    checkpoints: Arc<Checkpoints>,
    quarantine: Quarantine,
    stuck: Stuck,
    index: Index,
    watch: Watch,
    /// The files were looked at since the store was opened.
    is_compared: AtomicBool,
    losses: Losses,
    clock: Arc<Clock>,
    space: Arc<Space>,
    pins: Arc<Pins>,
    generation: AtomicU64,
    names: Stripes,
}

/// The directory of the blobs.
pub(crate) struct BlobDirectory {
    pub(crate) path: PathBuf,
    pub(crate) directories: FunctionDirectories,
}

impl Cas {
    /// `files` makes blobs in `directories` below `path`, and `index` knows those that are there.
    pub(crate) fn new(
        files: Publisher,
        BlobDirectory { path, directories }: BlobDirectory,
        checkpoints: Arc<Checkpoints>,
        quarantine: Quarantine,
        index: Index,
        clock: Arc<Clock>,
        space: Arc<Space>,
    ) -> Self {
        let watch = Watch::start(files.directory(), directories.functions());
        Self {
            inner: Arc::new(Inner {
                files,
                directories,
                watch,
                is_compared: AtomicBool::new(false),
                losses: Losses::default(),
                path,
                checkpoints,
                quarantine,
                stuck: Stuck::default(),
                index,
                clock,
                space,
                pins: Arc::default(),
                generation: AtomicU64::new(0),
                names: Stripes::new(),
            }),
        }
    }

    /// Whether the presence of blobs is known without a look at the disk.
    pub(crate) fn is_settled(&self) -> bool {
        self.inner.index.is_settled()
    }

    /// Whether the type and size of every file were looked at since the store was opened.
    pub(crate) fn is_compared(&self) -> bool {
        self.inner.is_compared.load(Ordering::Acquire)
    }

    /// From now on [`Cas::is_compared`].
    pub(crate) fn set_compared(&self) {
        self.inner.is_compared.store(true, Ordering::Release);
    }

    /// Makes the empty blobs of all functions that have directories.
    pub(crate) fn ensure_empty_blobs(&self) -> Result<(), StoreError> {
        self.inner.directories.functions().try_for_each(|it| self.ensure_empty_blob(it))
    }

    fn ensure_empty_blob(&self, function: DigestFunction) -> Result<(), StoreError> {
        let digest = Digest::empty(function);
        if self.inner.index.contains(&digest) { Ok(()) } else { self.store(&digest, &[]) }
    }

    /// Makes a function's directories for its first blob, and its empty blob with them.
    fn make_directories(&self, function: DigestFunction) -> Result<(), StoreError> {
        let inner = &*self.inner;
        {
            let _change = inner.checkpoints.begin_change()?;
            let failed = |e| self.write_failed("make the directories of", function.name(), e);
            if !inner.directories.make(function).map_err(failed)? {
                return Ok(());
            }
            inner.watch.add(inner.files.directory(), function);
            inner.space.add_directories(DIRECTORIES);
        }
        self.ensure_empty_blob(function)
    }

    /// Whether the blob is in the store. No system call. To be told so is a use of the blob, which
    /// is therefore not evicted soon.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.inner.index.touch(digest, self.inner.clock.now()) || digest.is_empty_blob()
    }

    /// Those of the blobs that are not there, in the order given. No system call.
    pub fn missing(&self, digests: &[Digest]) -> Vec<Digest> {
        let absent = digests.iter().filter(|digest| !self.contains(digest));
        absent.copied().collect()
    }

    /// As [`Cas::contains`], but no use of the blob: for those who only look at the store.
    pub fn holds(&self, digest: &Digest) -> bool {
        self.inner.index.contains(digest) || digest.is_empty_blob()
    }

    /// The content of a blob of up to [`READ_BYTES_MAX`]; `None` if it is not there.
    pub fn read(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if self.contains(digest) { self.look(digest) } else { Ok(None) }
    }

    /// As [`Cas::read`], but no use of the blob: for those who only look at the store.
    pub fn look(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if !self.holds(digest) {
            return Ok(None);
        }
        if digest.size_bytes() == 0 {
            return Ok(Some(Bytes::new()));
        }
        if digest.size_bytes() > READ_BYTES_MAX {
            return Err(StoreError::TooLargeToRead { digest: *digest, max_bytes: READ_BYTES_MAX });
        }
        let Some(file) = self.open_file(digest)? else {
            return Ok(None);
        };
        let is_suspect = self.is_suspect(&file, digest)?;
        let content = match read_up_to(&file, digest.size_bytes() as usize) {
            Ok(content) => content,
            Err(e) if is_of_file(e) => return self.quarantine(digest, e).map(|()| None),
            Err(e) => return Err(StoreError::io("read blob", digest.to_string(), e)),
        };
        if content.len() as u64 != digest.size_bytes() {
            self.quarantine_damaged(digest)?;
            return Ok(None);
        }
        if is_suspect && Digest::of(digest.function(), &content) != *digest {
            return self.quarantine(digest, Errno::IO).map(|()| None);
        }
        Ok(Some(content.into()))
    }

    /// As [`Cas::read`], but never waits for a disk: reads only a small blob whose file the kernel
    /// has in memory, and answers [`StoreError::WouldWait`] for any other that is in the store.
    pub(crate) fn read_resident(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if !self.is_settled() {
            return Err(StoreError::WouldWait);
        }
        if !self.contains(digest) {
            return Ok(None);
        }
        if self.inner.checkpoints.suspect_since().is_some() {
            return Err(StoreError::WouldWait);
        }
        let path = BlobPath::new(digest);
        let content =
            resident::read(self.inner.files.directory().as_fd(), path.as_c_str(), READ_FLAGS)?;
        // A blob that is damaged, longer or gone is left to the view that may wait.
        let is_whole = |content: &Vec<u8>| content.len() as u64 == digest.size_bytes();
        content.filter(is_whole).map(|content| Some(content.into())).ok_or(StoreError::WouldWait)
    }

    /// A blob's file, opened for reading; `None` if it is not there.
    pub fn open(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        if !self.contains(digest) {
            return Ok(None);
        }
        let mut file = self.open_file(digest)?;
        if file.is_none() && digest.is_empty_blob() {
            self.ensure_empty_blob(digest.function())?;
            file = self.open_file(digest)?;
        }
        let Some(file) = file else { return Ok(None) };
        let stat = fstat(&file).map_err(|e| StoreError::io("stat blob", digest.to_string(), e))?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || stat.st_size as u64 != digest.size_bytes() {
            self.quarantine_damaged(digest)?;
            return Ok(None);
        }
        if self.is_suspect(&file, digest)? {
            let found = hash_file(file.as_fd(), digest.function(), digest.size_bytes());
            match found {
                Ok(FileHash::Whole(found)) if found == *digest => {}
                Ok(_) => return self.quarantine(digest, Errno::IO).map(|()| None),
                Err(e) if is_of_file(e) => return self.quarantine(digest, e).map(|()| None),
                Err(e) => return Err(StoreError::io("read blob", digest.to_string(), e)),
            }
        }
        Ok(Some(file.into()))
    }

    /// Stores a blob, and returns its digest. Costs no disk write when it is there already.
    pub fn put(&self, function: DigestFunction, content: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(function, content);
        self.store_if_absent(&digest, content)?;
        Ok(digest)
    }

    /// Stores a blob whose digest the caller was told, and refuses it when that is wrong.
    pub fn put_expected(&self, expected: &Digest, content: &[u8]) -> Result<(), StoreError> {
        let actual = Digest::of(expected.function(), content);
        if actual != *expected {
            return Err(StoreError::DigestMismatch { expected: *expected, actual });
        }
        self.store_if_absent(expected, content)
    }

    /// Keeps the blobs of a set from being deleted as long as the guard lives.
    ///
    /// Pin first, then check that the blobs are there: see the module.
    pub fn pin(&self, set: Arc<dyn PinSet>) -> Pin {
        self.inner.pins.register(set)
    }

    /// Deletes a blob that nobody has pinned.
    pub fn delete(&self, digest: &Digest) -> Result<Deleted, StoreError> {
        let inner = &*self.inner;
        let _change = inner.checkpoints.begin_change()?;
        let pins = inner.pins.lock();
        if digest.is_empty_blob() || pins.contain(digest) {
            return Ok(Deleted::Pinned);
        }
        let _name = inner.names.lock(digest.hash());
        // The index removes by hash: the blob of another size is another one.
        if !inner.index.contains(digest) {
            return Ok(Deleted::Absent);
        }
        let Some(size_bytes) = inner.index.remove(digest) else { return Ok(Deleted::Absent) };
        inner.generation.fetch_add(1, Ordering::AcqRel);
        // The file is still ours alone by its name; a large one takes long to unlink.
        drop(pins);
        self.unlink(digest, size_bytes)?;
        Ok(Deleted::Gone)
    }

    /// Evicts a blob that nobody has pinned and that was not used since then. Returns the bytes of
    /// the disk that are free now.
    pub(crate) fn evict(&self, digest: &Digest, last_use: Tick) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let _change = inner.checkpoints.begin_change()?;
        let pins = inner.pins.lock();
        if digest.is_empty_blob() || pins.contain(digest) {
            return Ok(0);
        }
        let _name = inner.names.lock(digest.hash());
        let Some(size_bytes) = inner.index.remove_unused_since(digest, last_use) else {
            return Ok(0);
        };
        inner.generation.fetch_add(1, Ordering::AcqRel);
        drop(pins);
        self.unlink(digest, size_bytes)
    }

    /// A position in the sequence of blobs that are lost by damage or to others.
    pub fn losses(&self) -> u64 {
        self.inner.losses.position()
    }

    /// The blobs that were lost since that position, whether they are here again or not; `None` if
    /// they are too many to tell.
    pub fn lost_since(&self, position: u64) -> Option<Vec<Digest>> {
        self.inner.losses.since(position)
    }

    /// The watch on the directories of blobs.
    pub(crate) fn watch(&self) -> &Watch {
        &self.inner.watch
    }

    /// Whether [`Cas::make_durable`] would not wait.
    pub(crate) fn is_told_durably(&self) -> bool {
        self.inner.checkpoints.is_told_durably()
    }

    /// With [`Durability::Group`](crate::Durability::Group), waits until what was stored is on the disk.
    pub(crate) fn make_durable(&self) -> Result<(), StoreError> {
        self.inner.checkpoints.make_durable()
    }

    /// Counts the blobs that went: unchanged, everything that was there still is.
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Acquire)
    }

    /// The directory that [`BlobPath`] is relative to.
    pub fn blobs_dirfd(&self) -> BorrowedFd<'_> {
        self.inner.files.directory().as_fd()
    }

    /// As [`Cas::blobs_dirfd`].
    pub(crate) fn directory(&self) -> &OwnedFd {
        self.inner.files.directory()
    }

    /// The path of the directory that [`BlobPath`] is relative to.
    pub fn blobs_path(&self) -> &Path {
        &self.inner.path
    }

    /// The number of blobs and the sum of their sizes in bytes.
    pub(crate) fn count(&self) -> (u64, u64) {
        (self.inner.index.files(), self.inner.index.bytes())
    }

    /// The index's records of the blobs.
    pub(crate) fn index(&self) -> &Index {
        &self.inner.index
    }

    /// Charges a file of that size, before it is written.
    pub(crate) fn charge_file(&self, size_bytes: u64) -> Result<Charge, StoreError> {
        self.inner.space.charge_file(size_bytes)
    }

    /// An unnamed file, which is gone if it is not published.
    pub(crate) fn create_unnamed(&self) -> Result<OwnedFd, StoreError> {
        let file = self.inner.files.create();
        file.map_err(|e| self.write_failed("create", "an unnamed file", e))
    }

    /// The error of a write, which is counted and logged.
    pub(crate) fn write_failed(
        &self,
        step: &'static str,
        what: impl Into<String>,
        errno: Errno,
    ) -> StoreError {
        self.inner.space.trouble().failed(step, what, errno)
    }

    /// Gives a file with verified content its name among the blobs, if nobody was quicker.
    pub(crate) fn publish_file(
        &self,
        file: BorrowedFd<'_>,
        digest: &Digest,
        charge: Charge,
    ) -> Result<(), StoreError> {
        let bytes = charge.bytes();
        if self.link_file(file, digest, charge)? {
            self.inner.checkpoints.stored(bytes);
        }
        Ok(())
    }

    /// False if somebody was quicker.
    fn link_file(
        &self,
        file: BorrowedFd<'_>,
        digest: &Digest,
        charge: Charge,
    ) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        if !inner.directories.contain(digest.function()) {
            self.make_directories(digest.function())?;
        }
        let _change = inner.checkpoints.begin_change()?;
        let _name = inner.names.lock(digest.hash());
        let now = inner.clock.now();
        if inner.index.touch(digest, now) {
            return Ok(false);
        }
        let path = BlobPath::new(digest);
        // A file that has the name but is not in the index is not what its name says, or was put
        // there by somebody else. Ours is known to be right, so it takes the place.
        inner.files.publish(file, path.as_c_str()).map_err(|e| match e {
            // The caller copies the file then.
            Errno::XDEV => StoreError::io("publish blob", path.as_str(), e),
            e => self.write_failed("publish blob", path.as_str(), e),
        })?;
        if let Some(size_bytes) = inner.index.insert(digest, Usage::first(now)) {
            inner.space.release(inner.space.cost(size_bytes));
        }
        inner.space.release(inner.stuck.remove(digest));
        charge.keep();
        Ok(true)
    }

    fn store_if_absent(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        if self.contains(digest) {
            return Ok(());
        }
        self.store(digest, content)
    }

    /// Writes a blob whose content was verified.
    pub(crate) fn store(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        let charge = self.charge_file(digest.size_bytes())?;
        let file = self.create_unnamed()?;
        write_all(file.as_fd(), content)
            .map_err(|e| self.write_failed("write blob", digest.to_string(), e))?;
        self.publish_file(file.as_fd(), digest, charge)
    }

    /// Opens a blob's file; one that is gone is taken out of the index.
    fn open_file(&self, digest: &Digest) -> Result<Option<OwnedFd>, StoreError> {
        let path = BlobPath::new(digest);
        match openat(self.inner.files.directory(), path.as_c_str(), READ_FLAGS, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) => {
                self.forget_if_gone(digest);
                Ok(None)
            }
            Err(e) if is_of_file(e) => self.quarantine(digest, e).map(|()| None),
            Err(e) => Err(StoreError::io("open blob", path.as_str(), e)),
        }
    }

    /// The size of a blob's file; an error if it is no file.
    pub(crate) fn stat(&self, digest: &Digest) -> Result<u64, Errno> {
        let path = BlobPath::new(digest);
        let directory = self.inner.files.directory();
        let stat = statat(directory, path.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(stat.st_size as u64),
            _ => Err(Errno::ISDIR),
        }
    }

    /// Takes a blob out of the index. The caller holds the lock of its name.
    fn forget(&self, digest: &Digest) {
        if let Some(size_bytes) = self.inner.index.remove(digest) {
            self.inner.space.release(self.inner.space.cost(size_bytes));
        }
        self.inner.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Unlinks the file of a blob that was taken out of the index. Returns the bytes of the disk that are free now.
    /// The caller holds the lock of its name.
    fn unlink(&self, digest: &Digest, size_bytes: u64) -> Result<u64, StoreError> {
        let inner = &*self.inner;
        let path = BlobPath::new(digest);
        match unlinkat(inner.files.directory(), path.as_c_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {
                let bytes = inner.space.cost(size_bytes);
                inner.space.release(bytes);
                Ok(bytes)
            }
            Err(e) => {
                // The file is there and takes its space, so the blob is there as well.
                inner.index.insert(digest, Usage::first(inner.clock.now()));
                Err(StoreError::io("unlink blob", path.as_str(), e))
            }
        }
    }
}

impl Snapshot for Cas {
    fn snapshot(&self, part: usize, slots: &mut Vec<Record>) -> Result<Option<Witness>, Errno> {
        let inner = &*self.inner;
        let (files, functions) = (inner.files.directory(), &inner.directories);
        snapshot(files, functions, &inner.names, &inner.index, part, slots)
    }
}

/// The files of a part and the state of its directory, of one moment.
pub(crate) fn snapshot(
    parent: &OwnedFd,
    functions: &FunctionDirectories,
    names: &Stripes,
    index: &Index,
    part: usize,
    slots: &mut Vec<Record>,
) -> Result<Option<Witness>, Errno> {
    let (function, first_byte) = Index::shard_of(part);
    if !functions.contain(function) {
        return Ok(None);
    }
    let path = format!("{}/{first_byte:02x}", function.name());
    let _names = names.lock_all_of(first_byte);
    let stat = match statat(parent, &path, AtFlags::SYMLINK_NOFOLLOW) {
        // Others may remove directories.
        Err(Errno::NOENT) => return Ok(None),
        stat => stat?,
    };
    Ok(index.records_of(part, slots).then(|| Witness::of(&stat)))
}

/// Reads until that many bytes are there or the file ends.
fn read_up_to(file: &OwnedFd, size_bytes: usize) -> Result<Vec<u8>, Errno> {
    let mut content = Vec::with_capacity(size_bytes);
    while content.len() < size_bytes {
        match rustix::io::read(file, spare_capacity(&mut content)) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(content)
}
