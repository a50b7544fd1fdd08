//! The path of a blob below `cas/blobs`: `<function>/<first 2 hex>/<64 hex>`.
//!
//! Built on the stack: a path is made for every blob that is stored or read.

use std::ffi::CStr;
use std::fmt;

use model::{Digest, DigestFunction};

const FUNCTION_CHARS: usize = 6;
const SHARD_AT: usize = FUNCTION_CHARS + 1;
const HASH_AT: usize = SHARD_AT + 3;
const LENGTH: usize = HASH_AT + 64;

/// The path of a blob relative to [`Cas::blobs_path`](crate::Cas::blobs_path).
#[derive(Clone, Copy)]
pub struct BlobPath([u8; LENGTH + 1]);

impl BlobPath {
    /// The path of that blob, whether it is there or not.
    pub fn new(digest: &Digest) -> Self {
        const { assert!(DigestFunction::Sha256.name().len() == FUNCTION_CHARS) };
        const { assert!(DigestFunction::Blake3.name().len() == FUNCTION_CHARS) };
        let hex = digest.hex_bytes();
        let mut path = [0; LENGTH + 1];
        path[..FUNCTION_CHARS].copy_from_slice(digest.function().name().as_bytes());
        path[FUNCTION_CHARS] = b'/';
        path[SHARD_AT..SHARD_AT + 2].copy_from_slice(&hex[..2]);
        path[HASH_AT - 1] = b'/';
        path[HASH_AT..LENGTH].copy_from_slice(&hex);
        Self(path)
    }

    /// As a system call takes it.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).expect("made of letters and one NUL at the end")
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0[..LENGTH]).expect("made of ASCII letters")
    }
}

impl fmt::Display for BlobPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for BlobPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_format() {
        let path = BlobPath::new(&Digest::of(DigestFunction::Sha256, b"abc"));
        let expected = "sha256/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(path.as_str(), expected);
        assert_eq!(path.as_c_str().to_bytes(), expected.as_bytes());
        let path = BlobPath::new(&Digest::of(DigestFunction::Blake3, b"abc"));
        assert!(path.as_str().starts_with("blake3/64/6437b3ac"), "{path}");
    }
}
