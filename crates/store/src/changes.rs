//! The handling of blobs that other processes changed; see [`crate::watch`].

use model::Digest;
use rustix::io::Errno;

use crate::cas::Cas;
use crate::error::StoreError;
use crate::index::PARTS;
use crate::watch::{Changed, Notice};

impl Cas {
    /// Handles changes to blobs that others made: what was deleted or damaged is missing from now on,
    /// and one of the [`Cas::losses`]. Where the answer is [`Notice::Unknown`], whoever depends on
    /// blobs asks [`Cas::damaged`] of them.
    ///
    /// One system call, as long as nobody changes anything.
    pub fn notice_changes(&self) -> Notice {
        let is_compared = self.is_compared();
        match self.watch().drain(|changed| self.handle(changed)) {
            Notice::Complete if is_compared => Notice::Complete,
            _ => Notice::Unknown,
        }
    }

    fn handle(&self, Changed { function, hash, is_gone }: Changed) {
        // The store removes a blob from the index before it deletes the file.
        let Some(size_bytes) = self.index().size(function, &hash) else { return };
        let digest = Digest::new(function, hash, size_bytes);
        if is_gone {
            return self.forget_if_gone(&digest);
        }
        if let Err(error) = self.verifier().verify(&digest) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(%digest, error, "a blob was changed behind the store's back");
        }
    }

    /// Those of the blobs whose file is gone or has another type or size. They are missing from now
    /// on. A system call for each.
    pub fn damaged(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut damaged = Vec::new();
        for digest in digests {
            match self.stat(digest) {
                Ok(size_bytes) if size_bytes == digest.size_bytes() => continue,
                Err(Errno::NOENT) => self.forget_if_gone(digest),
                _ => self.quarantine_damaged(digest)?,
            }
            damaged.push(*digest);
        }
        Ok(damaged)
    }

    /// Looks at all files if the kernel dropped events about some.
    pub(crate) fn look_at_all_if_needed(&self) -> Result<(), StoreError> {
        if !self.watch().is_incomplete() {
            return Ok(());
        }
        tracing::warn!("many blobs were changed at once behind the store's back; looking at all");
        for part in 0..PARTS {
            self.damaged(&self.index().files_of(part))?;
        }
        self.watch().looked_at_all();
        Ok(())
    }
}
