//! A disk with a volatile cache that loses power and fails, as a file of a FUSE file system.
//!
//! A write goes to the cache; a flush, which is an fsync of the file, brings the cache to the medium.
//! When the power is cut, each sector in the cache reaches the medium or does not, whatever was written
//! before or after it. From then on every call fails, for ever: the disk that comes back is another file,
//! so that nothing of the kernel that was cut off can reach it.
//!
//! ```text
//!   ext4 ── loop device ── disk-N, a file of FUSE ── cache ──(fsync)──► medium
//! ```

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    Session, TimeOrNow, WriteFlags,
};

/// The size of the disk. It takes memory for what was written.
const DISK_BYTES: u64 = 512 << 20;
const PAGE_BYTES: usize = 4096;
/// The number of bytes that a disk writes completely or not at all. ext4 refuses to mount after half of its
/// superblock, which has 1 KiB and a checksum, was written.
const SECTOR_BYTES: usize = 4096;
/// The inode number of the first disk.
const FIRST_DISK: u64 = 2;

type Page = Box<[u8; PAGE_BYTES]>;

/// A generator of numbers, the same on every run.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The disk, as its operator sees it.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

struct State {
    /// The inode number of the disk that there is now.
    inode: u64,
    is_on: bool,
    medium: HashMap<u64, Page>,
    cache: HashMap<u64, Page>,
    /// How many of a hundred calls fail.
    failing_reads: u64,
    failing_writes: u64,
    numbers: Numbers,
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            inode: FIRST_DISK,
            is_on: true,
            medium: HashMap::new(),
            cache: HashMap::new(),
            failing_reads: 0,
            failing_writes: 0,
            numbers: Numbers::new(seed),
        })))
    }

    /// Serves the disk at a directory until it is unmounted.
    pub(crate) fn serve(&self, mount_point: &Path) -> std::io::Result<Session<Self>> {
        Session::new(self.clone(), mount_point, &fuser::Config::default())
    }

    /// The name of the disk's file.
    pub(crate) fn name(&self) -> String {
        format!("disk-{}", self.state().inode)
    }

    /// Cuts the power. Returns how many sectors were in the cache, and how many of them are lost.
    pub(crate) fn cut_power(&self) -> (u64, u64) {
        let mut state = self.state();
        state.is_on = false;
        // Sometimes nothing of the cache is lost, sometimes all of it.
        let kept = [0, 30, 70, 100][state.numbers.below(4) as usize];
        let (mut sectors, mut lost) = (0, 0);
        let mut cache: Vec<_> = state.cache.drain().collect();
        cache.sort_by_key(|(number, _)| *number);
        for (number, page) in cache {
            for at in (0..PAGE_BYTES).step_by(SECTOR_BYTES) {
                let sector = at..at + SECTOR_BYTES;
                sectors += 1;
                if state.numbers.below(100) < kept {
                    let old = state.medium.entry(number).or_insert_with(empty_page);
                    old[sector.clone()].copy_from_slice(&page[sector]);
                } else {
                    lost += 1;
                }
            }
        }
        (sectors, lost)
    }

    /// A disk with what is on the medium.
    pub(crate) fn power_on(&self) {
        let mut state = self.state();
        state.inode += 1;
        state.is_on = true;
    }

    /// Fails that many of a hundred reads and writes.
    pub(crate) fn fail(&self, reads: u64, writes: u64) {
        let mut state = self.state();
        (state.failing_reads, state.failing_writes) = (reads, writes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no thread panics with it")
    }
}

fn empty_page() -> Page {
    Box::new([0; PAGE_BYTES])
}

/// The pages that a range of bytes touches, with the part of each and of the range.
fn pages(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < length).then(|| {
            let at = offset + done as u64;
            let start = (at % PAGE_BYTES as u64) as usize;
            let end = PAGE_BYTES.min(start + length - done);
            let page = (at / PAGE_BYTES as u64, start..end, done);
            done += end - start;
            page
        })
    })
}

impl State {
    fn check(&mut self, inode: INodeNo, failing: u64) -> Result<(), Errno> {
        let is_there = self.is_on && u64::from(inode) == self.inode;
        if is_there && self.numbers.below(100) >= failing { Ok(()) } else { Err(Errno::EIO) }
    }

    fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let length = length.min(DISK_BYTES.saturating_sub(offset) as usize);
        let mut data = vec![0; length];
        for (number, part, at) in pages(offset, length) {
            if let Some(page) = self.cache.get(&number).or_else(|| self.medium.get(&number)) {
                data[at..at + part.len()].copy_from_slice(&page[part]);
            }
        }
        data
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (number, part, at) in pages(offset, data.len()) {
            let medium = &self.medium;
            let page = self
                .cache
                .entry(number)
                .or_insert_with(|| medium.get(&number).cloned().unwrap_or_else(empty_page));
            let length = part.len();
            page[part].copy_from_slice(&data[at..at + length]);
        }
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let number = u64::from(inode);
        let is_root = inode == INodeNo::ROOT;
        // Older disks have attributes too: the kernel that was cut off still holds them.
        (is_root || (FIRST_DISK..=self.inode).contains(&number)).then_some(FileAttr {
            ino: inode,
            size: if is_root { 0 } else { DISK_BYTES },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_root { FileType::Directory } else { FileType::RegularFile },
            perm: if is_root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: PAGE_BYTES as u32,
        })
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state();
        let is_disk = name == OsStr::new(&format!("disk-{}", state.inode));
        match state.attributes(INodeNo(state.inode)).filter(|_| is_disk) {
            Some(attributes) => reply.entry(&Duration::ZERO, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attributes(inode) {
            Some(attributes) => reply.attr(&Duration::ZERO, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Times and the like, which a disk does not have.
    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        handle: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.getattr(request, inode, handle, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The kernel has no cache of its own before this one.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.state();
        let failing = state.failing_reads;
        match state.check(inode, failing) {
            Ok(()) => reply.data(&state.read(offset, size as usize)),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.state();
        let failing = state.failing_writes;
        match state.check(inode, failing) {
            Ok(()) => {
                state.write(offset, data);
                reply.written(data.len() as u32);
            }
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.state();
        match state.check(inode, 0) {
            Ok(()) => {
                let cache = std::mem::take(&mut state.cache);
                state.medium.extend(cache);
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
