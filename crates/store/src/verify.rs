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

/// The identity of a file and of its content: inode, and change time in seconds and nanoseconds. It is another one after
/// the file was replaced or changed.
type FileState = (u64, i64, i64);

impl Cas {
    /// The state of a blob's file; `None` when it can't be told.
    fn file_state(&self, digest: &Digest) -> Option<FileState> {
        let path = BlobPath::new(digest);
        let stat = statat(self.directory(), path.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_ino, stat.st_ctime as i64, stat.st_ctime_nsec as i64))
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
        let before = self.cas.file_state(digest);
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
            Ok(_) => self.take_away(digest, Errno::IO, before),
            Err(Errno::NOENT) => {
                self.cas.forget_if_gone(digest);
                Ok(Verdict::Absent)
            }
            Err(e) if is_of_file(e) => self.take_away(digest, e, before),
            Err(e) => Err(StoreError::io("verify blob", path.as_str(), e)),
        }
    }

    /// Takes away the file that was hashed. If another one is in its place by now, because somebody found the damage
    /// first and a client has stored the blob again, that one is verified.
    fn take_away(
        &mut self,
        digest: &Digest,
        error: Errno,
        before: Option<FileState>,
    ) -> Result<Verdict, StoreError> {
        let is_same = || self.cas.file_state(digest) == before;
        match self.cas.quarantine_if(digest, error, is_same)? {
            true => Ok(Verdict::Damaged),
            false => self.verify(digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::DigestFunction;

    use super::*;
    use crate::store::{Store, StoreOptions};

    #[test]
    fn a_blob_that_was_stored_again_since_it_was_hashed_stays() {
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::open(root.path(), StoreOptions::default()).expect("the store opens");
        let cas = store.cas();
        let digest = cas.put(DigestFunction::Sha256, b"content").expect("stored");
        // One verifier has hashed the damaged file. Another one takes it away, and a client stores the blob again.
        let before = cas.file_state(&digest);
        cas.quarantine(&digest, Errno::IO).expect("taken away");
        cas.put(DigestFunction::Sha256, b"content").expect("stored again");
        let verdict = cas.verifier().take_away(&digest, Errno::IO, before).expect("verified");
        assert_eq!(verdict, Verdict::Good);
        assert!(cas.index().contains(&digest));
        // The file that was hashed is taken away.
        let before = cas.file_state(&digest);
        let verdict = cas.verifier().take_away(&digest, Errno::IO, before).expect("verified");
        assert_eq!(verdict, Verdict::Damaged);
        assert!(!cas.index().contains(&digest));
    }
}
