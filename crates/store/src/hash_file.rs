//! Hashing what a file holds.

use std::os::fd::BorrowedFd;

use model::{BlobHasher, Digest, DigestFunction};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, Result, pread};

/// Reads are this large: the cost of a call vanishes, and the bytes are still in the cache of the
/// core when they are hashed.
const READ_BYTES: u64 = 256 * 1024;

/// The content that was found in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileHash {
    /// All of it, which may be less than was expected.
    Whole(Digest),
    /// More than was expected; the rest was not read.
    Longer,
}

/// Hashes a file from its beginning, of which `size_bytes` are expected.
///
/// A file up to one read's size costs one call: the buffer has room for a byte more than is
/// expected, so a short read is the end.
pub(crate) fn hash_file(
    file: BorrowedFd<'_>,
    function: DigestFunction,
    size_bytes: u64,
) -> Result<FileHash> {
    let mut buffer = Vec::with_capacity((size_bytes + 1).min(READ_BYTES) as usize);
    let mut hasher: Option<BlobHasher> = None;
    let mut seen = 0;
    loop {
        buffer.clear();
        let room = buffer.capacity();
        let read = match pread(file, spare_capacity(&mut buffer), seen) {
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e),
        };
        seen += read as u64;
        if seen > size_bytes {
            return Ok(FileHash::Longer);
        }
        let is_end = read == 0 || (read < room && seen == size_bytes);
        match hasher.take() {
            None if is_end => return Ok(FileHash::Whole(Digest::of(function, &buffer))),
            started => {
                let mut started = started.unwrap_or_else(|| BlobHasher::new(function));
                started.update(&buffer);
                if is_end {
                    return Ok(FileHash::Whole(started.finish()));
                }
                hasher = Some(started);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn check(size: usize, expected: u64) -> FileHash {
        let content: Vec<u8> = (0..size).map(|i| (i * 31) as u8).collect();
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&content).expect("room for it");
        let hash = hash_file(file.as_fd(), DigestFunction::Sha256, expected).expect("readable");
        if let FileHash::Whole(digest) = hash {
            assert_eq!(digest, Digest::of(DigestFunction::Sha256, &content));
        }
        hash
    }

    #[test]
    fn files_around_the_size_of_a_read() {
        let read = READ_BYTES as usize;
        for size in [0, 1, 4096, read - 1, read, read + 1, 2 * read, 3 * read + 7] {
            let hash = check(size, size as u64);
            assert!(matches!(hash, FileHash::Whole(_)), "{size} bytes");
        }
    }

    #[test]
    fn a_file_of_another_size_is_told_apart() {
        let read = READ_BYTES as usize;
        for size in [1, 4096, read, 2 * read] {
            assert_eq!(check(size, size as u64 - 1), FileHash::Longer);
            assert!(matches!(check(size, size as u64 + 1), FileHash::Whole(_)));
            assert!(matches!(check(size, 10 * size as u64), FileHash::Whole(_)));
        }
    }
}
