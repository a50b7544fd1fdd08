//! Hashes blobs as they are on the disk, and moves those that are damaged into quarantine.

use model::Digest;
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use crate::blob_path::BlobPath;
use crate::cas::{Cas, READ_FLAGS};
use crate::error::StoreError;
use crate::hash_disk::{DirectBuffer, hash_on_disk, is_whole};
use crate::index::PARTS;
use crate::quarantine::is_of_file;

/// The state of a blob on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has the content that its name promises.
    Good,
    /// It did not have it, and is in quarantine now. The next upload stores the blob again.
    Damaged,
    /// It is not in the store, or not any more.
    Absent,
}

/// Verifies blobs one after the other.
pub struct Verifier {
    cas: Cas,
    buffer: DirectBuffer,
}

impl Cas {
    /// A verifier of blobs, which holds the memory for one read.
    pub fn verifier(&self) -> Verifier {
        Verifier { cas: self.clone(), buffer: DirectBuffer::new() }
    }

    /// Verifies the blobs whose inode changed at `since` or later, in seconds since the epoch.
    /// Returns how many were verified, and how many of them were damaged.
    pub(crate) fn verify_since(&self, since: i64) -> Result<(u64, u64), StoreError> {
        let mut verifier = self.verifier();
        let (mut verified, mut damaged) = (0, 0);
        for part in 0..PARTS {
            for digest in self.index().files_of(part) {
                let path = BlobPath::new(&digest);
                let stat = statat(self.blobs_dirfd(), path.as_c_str(), AtFlags::SYMLINK_NOFOLLOW);
                // A file that cannot be looked at is verified, which tells the reason.
                if stat.is_ok_and(|stat| stat.st_ctime < since) {
                    continue;
                }
                verified += 1;
                damaged += u64::from(verifier.verify(&digest)? == Verdict::Damaged);
            }
        }
        Ok((verified, damaged))
    }
}

impl Verifier {
    /// Hashes one blob on the disk.
    ///
    /// # Errors
    /// When the blob could not be read for a reason that is not the blob's own, such as a lack of
    /// descriptors, or a damaged one could not be taken away.
    pub fn verify(&mut self, digest: &Digest) -> Result<Verdict, StoreError> {
        if !self.cas.index().contains(digest) {
            return Ok(Verdict::Absent);
        }
        let path = BlobPath::new(digest);
        let hashed = hash_on_disk(
            self.cas.directory(),
            path.as_c_str(),
            READ_FLAGS,
            digest.function(),
            digest.size_bytes(),
            &mut self.buffer,
        );
        match hashed {
            Ok(hash) if is_whole(hash, digest) => Ok(Verdict::Good),
            Ok(_) => self.cas.quarantine(digest, Errno::IO).map(|()| Verdict::Damaged),
            Err(Errno::NOENT) => {
                self.cas.forget_if_gone(digest);
                Ok(Verdict::Absent)
            }
            Err(e) if is_of_file(e) => self.cas.quarantine(digest, e).map(|()| Verdict::Damaged),
            Err(e) => Err(StoreError::io("verify blob", path.as_str(), e)),
        }
    }
}
