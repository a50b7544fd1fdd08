//! A blob that arrives in pieces: hashed while it is written, visible when it is whole.
//!
//! The first pieces stay in memory. So a small blob costs no file if it turns out to be there
//! already, or to be wrong, and a large one that is given up leaves nothing: its file has no name.
//!
//! Hashing and writing a piece cost about the same. They are independent, so that pieces that are
//! large enough are hashed by a thread of their own meanwhile.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;
use std::thread;

use model::{BlobHasher, Digest, DigestFunction};

use crate::cas::Cas;
use crate::error::StoreError;
use crate::root::write_all;
use crate::space::Charge;

/// The bytes of a blob that are kept in memory before a file is made: enough for most blobs, and little for
/// each of the many uploads that may be open at a time.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// The size from which a blob is hashed and written at the same time: the thread costs some 20 µs, hashing this much five
/// times that.
const PARALLEL_BYTES: usize = 128 * 1024;

/// Whether a second thread can be of use.
static HAS_SEVERAL_CPUS: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1));

/// Takes in a blob; dropped without [`BlobWriter::commit`], it leaves no trace.
pub struct BlobWriter {
    cas: Cas,
    hasher: BlobHasher,
    expected: Option<Digest>,
    destination: Destination,
}

enum Destination {
    Memory(Vec<u8>),
    File(OwnedFd, Charge),
}

impl Cas {
    /// Takes in a blob that comes in pieces.
    ///
    /// With an expected digest, whose function must be the one given, the writer refuses more bytes
    /// than it has and another content than it says. Ask [`Cas::contains`] first: a client need not
    /// send a blob that is in the store.
    pub fn writer(&self, function: DigestFunction, expected: Option<Digest>) -> BlobWriter {
        BlobWriter {
            cas: self.clone(),
            hasher: BlobHasher::new(function),
            expected,
            destination: Destination::Memory(Vec::new()),
        }
    }
}

impl BlobWriter {
    /// Takes in the next piece; refuses it when it is more than the expected digest has.
    pub fn write(&mut self, content: &[u8]) -> Result<(), StoreError> {
        self.write_pieces(&[content])
    }

    /// Takes in the next pieces, as if they were one; refuses them when they are more than the
    /// expected digest has.
    pub fn write_pieces<P>(&mut self, pieces: &[P]) -> Result<(), StoreError>
    where
        P: AsRef<[u8]> + Sync,
    {
        let size_bytes = pieces.iter().map(|piece| piece.as_ref().len()).sum::<usize>();
        if let Some(expected) = self.expected
            && size_bytes as u64 > expected.size_bytes().saturating_sub(self.written())
        {
            return Err(StoreError::TooManyBytes { expected });
        }
        let size_after = self.written() + size_bytes as u64;
        let Self { cas, hasher, destination, .. } = self;
        if size_bytes < PARALLEL_BYTES || !*HAS_SEVERAL_CPUS {
            hash(hasher, pieces);
            return destination.append(cas, pieces, size_after);
        }
        let (is_hashed, written) = thread::scope(|scope| {
            let builder = thread::Builder::new().name("hash".into());
            let is_started = builder.spawn_scoped(scope, || hash(hasher, pieces)).is_ok();
            (is_started, destination.append(cas, pieces, size_after))
        });
        if !is_hashed {
            // The thread could not be started. A server at its limits still stores the blob.
            hash(hasher, pieces);
        }
        written
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
                Destination::File(file, charge) => {
                    self.cas.publish_file(file.as_fd(), &digest, charge)?;
                }
            }
        }
        Ok(digest)
    }
}

impl Destination {
    fn append<P: AsRef<[u8]>>(
        &mut self,
        cas: &Cas,
        pieces: &[P],
        size_after: u64,
    ) -> Result<(), StoreError> {
        match self {
            Self::Memory(held) if size_after <= HELD_BYTES_MAX as u64 => {
                pieces.iter().for_each(|piece| held.extend_from_slice(piece.as_ref()));
                return Ok(());
            }
            Self::Memory(held) => {
                let charge = cas.charge_file(size_after)?;
                let file = cas.create_unnamed()?;
                append(cas, &file, held)?;
                *self = Self::File(file, charge);
            }
            Self::File(_, charge) => charge.grow_to(size_after)?,
        }
        match self {
            Self::File(file, _) => {
                pieces.iter().try_for_each(|piece| append(cas, file, piece.as_ref()))
            }
            Self::Memory(_) => Ok(()),
        }
    }
}

fn hash<P: AsRef<[u8]>>(hasher: &mut BlobHasher, pieces: &[P]) {
    pieces.iter().for_each(|piece| hasher.update(piece.as_ref()));
}

fn append(cas: &Cas, file: &OwnedFd, content: &[u8]) -> Result<(), StoreError> {
    write_all(file.as_fd(), content).map_err(|e| cas.write_failed("write", "an unnamed file", e))
}
