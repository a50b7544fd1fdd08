//! Hashes a file as it is on the disk, past the page cache.
//!
//! The page cache may hold what was written while the disk holds something else: that is the case
//! after a failed sync. Reads with `O_DIRECT` see the disk, and they neither displace hot pages nor
//! fill the cache with cold ones. File systems without `O_DIRECT`, such as tmpfs, are read normally.

use std::os::fd::{AsFd, OwnedFd};

use model::{BlobHasher, Digest, DigestFunction};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result, pread};
use rustix::path::Arg;

use crate::disk::openat;
use crate::hash_file::{FileHash, hash_file};

/// The size of a read. It is a multiple of every block size.
const READ_BYTES: usize = 256 * 1024;

/// The alignment that `O_DIRECT` may ask of a buffer: the largest logical block of a disk.
const ALIGNMENT: usize = 4096;

/// A buffer for `O_DIRECT`, reused from file to file.
pub(crate) struct DirectBuffer {
    memory: Vec<u8>,
    start: usize,
}

impl DirectBuffer {
    pub(crate) fn new() -> Self {
        let memory = vec![0; READ_BYTES + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..READ_BYTES]
    }
}

/// Hashes the file at `path`, of which `size_bytes` are expected. `flags` are those of a blob; the
/// caller sees `ENOENT` and the like as they are.
pub(crate) fn hash_on_disk(
    directory: &OwnedFd,
    path: impl Arg + Copy,
    flags: OFlags,
    function: DigestFunction,
    size_bytes: u64,
    buffer: &mut DirectBuffer,
) -> Result<FileHash> {
    match openat(directory, path, flags | OFlags::DIRECT, Mode::empty()) {
        Ok(file) => match hash_direct(&file, function, size_bytes, buffer) {
            // The file system wants another alignment.
            Err(Errno::INVAL) => hash_cached(directory, path, flags, function, size_bytes),
            hashed => hashed,
        },
        Err(Errno::INVAL) => hash_cached(directory, path, flags, function, size_bytes),
        Err(e) => Err(e),
    }
}

fn hash_cached(
    directory: &OwnedFd,
    path: impl Arg,
    flags: OFlags,
    function: DigestFunction,
    size_bytes: u64,
) -> Result<FileHash> {
    let file = openat(directory, path, flags, Mode::empty())?;
    hash_file(file.as_fd(), function, size_bytes)
}

fn hash_direct(
    file: &OwnedFd,
    function: DigestFunction,
    size_bytes: u64,
    buffer: &mut DirectBuffer,
) -> Result<FileHash> {
    let mut hasher = BlobHasher::new(function);
    let mut seen = 0;
    let mut is_told = false;
    loop {
        let read = match pread(file, buffer.bytes(), seen) {
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            // The first read past the page cache also tells of an earlier write to the file that failed,
            // once. The content shows what that has lost; an error of the read itself comes again.
            Err(Errno::IO | Errno::NOSPC | Errno::DQUOT) if !is_told => {
                is_told = true;
                continue;
            }
            Err(e) => return Err(e),
        };
        seen += read as u64;
        if seen > size_bytes {
            return Ok(FileHash::Longer);
        }
        hasher.update(&buffer.bytes()[..read]);
        // A short read is the end; a read at another offset would not be aligned.
        if read < READ_BYTES {
            return Ok(FileHash::Whole(hasher.finish()));
        }
    }
}

/// Whether the hash is the one that the name promises.
pub(crate) fn is_whole(hash: FileHash, digest: &Digest) -> bool {
    matches!(hash, FileHash::Whole(found) if found == *digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_around_the_size_of_a_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let opened = OwnedFd::from(std::fs::File::open(directory.path()).expect("a directory"));
        let mut buffer = DirectBuffer::new();
        for size in [0, 1, 4095, 4096, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES] {
            let content: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
            std::fs::write(directory.path().join("file"), &content).expect("written");
            for function in DigestFunction::ALL {
                let mut hash = |size_bytes| {
                    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                    hash_on_disk(&opened, "file", flags, function, size_bytes, &mut buffer)
                };
                let digest = Digest::of(function, &content);
                assert!(is_whole(hash(size as u64).expect("read"), &digest), "{size}");
                if size > 0 {
                    assert_eq!(hash(size as u64 - 1), Ok(FileHash::Longer), "{size}");
                }
            }
        }
    }
}
