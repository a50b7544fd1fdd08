//! A blob that arrives in pieces: hashed while it is written, visible when it is whole.
//!
//! The first pieces stay in memory. So a small blob costs no file if it turns out to be there
//! already, or to be wrong, and a large one that is given up leaves nothing: its file has no name.

use std::os::fd::{AsFd, OwnedFd};

use model::{BlobHasher, Digest, DigestFunction};

use crate::cas::Cas;
use crate::error::StoreError;
use crate::root::write_all;

/// What is kept in memory before a file is made: most blobs, and little for each of the many
/// uploads that may be open at a time.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// Takes in a blob; dropped without [`BlobWriter::commit`], it leaves no trace.
pub struct BlobWriter {
    cas: Cas,
    hasher: BlobHasher,
    expected: Option<Digest>,
    destination: Destination,
}

enum Destination {
    Memory(Vec<u8>),
    File(OwnedFd),
}

impl BlobWriter {
    pub(crate) fn new(cas: Cas, function: DigestFunction, expected: Option<Digest>) -> Self {
        Self {
            cas,
            hasher: BlobHasher::new(function),
            expected,
            destination: Destination::Memory(Vec::new()),
        }
    }

    /// Takes in the next piece; refuses it when it is more than the expected digest has.
    pub fn write(&mut self, content: &[u8]) -> Result<(), StoreError> {
        if let Some(expected) = self.expected
            && content.len() as u64 > expected.size_bytes().saturating_sub(self.written())
        {
            return Err(StoreError::TooManyBytes { expected });
        }
        match &mut self.destination {
            Destination::Memory(held) if held.len() + content.len() <= HELD_BYTES_MAX => {
                held.extend_from_slice(content);
            }
            Destination::Memory(held) => {
                let file = self.cas.create_unnamed()?;
                append(&file, held)?;
                append(&file, content)?;
                self.destination = Destination::File(file);
            }
            Destination::File(file) => append(file, content)?,
        }
        self.hasher.update(content);
        Ok(())
    }

    /// The number of bytes that were taken in.
    pub fn written(&self) -> u64 {
        self.hasher.size_bytes()
    }

    /// Verifies the blob and makes it visible.
    pub fn commit(self) -> Result<Digest, StoreError> {
        let digest = self.hasher.finish();
        if let Some(expected) = self.expected
            && digest != expected
        {
            return Err(StoreError::DigestMismatch { expected, actual: digest });
        }
        if !self.cas.contains(&digest) {
            match self.destination {
                Destination::Memory(held) => self.cas.store(&digest, &held)?,
                Destination::File(file) => self.cas.publish_file(file.as_fd(), &digest)?,
            }
        }
        Ok(digest)
    }
}

fn append(file: &OwnedFd, content: &[u8]) -> Result<(), StoreError> {
    write_all(file.as_fd(), content).map_err(|e| StoreError::io("write", "an unnamed file", e))
}
