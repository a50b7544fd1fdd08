//! The place where the blobs of an image go: a store of this process, or a server's.

use std::io::{self, Read};

use bytes::Bytes;
use model::Digest;

/// Takes the blobs of an image. The digests are those of [`crate::FUNCTION`].
pub trait Destination {
    /// Takes the content of a file and gives its digest.
    ///
    /// # Errors
    /// When the content can't be read or stored.
    fn put_file(&mut self, content: &mut dyn Read) -> io::Result<Digest>;

    /// Takes a directory, encoded.
    ///
    /// # Errors
    /// When it can't be stored.
    fn put_directory(&mut self, digest: &Digest, message: Bytes) -> io::Result<()>;

    /// Stores all that it has taken and not stored yet.
    ///
    /// # Errors
    /// When that fails.
    fn finish(&mut self) -> io::Result<()>;
}
