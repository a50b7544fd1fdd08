//! The path of a blob below `cas/blobs`: `<function>/<first 2 hex>/<all hex>`.
//!
//! Built on the stack: a path is made for every blob that is stored or read.

use std::ffi::CStr;
use std::fmt;

use model::{Digest, HASH_BYTES_MAX};

/// The characters of the longest name of a function.
const FUNCTION_CHARS_MAX: usize = 6;
/// The two slashes, and the two characters of a shard.
const BETWEEN_CHARS: usize = 4;
const LENGTH_MAX: usize = FUNCTION_CHARS_MAX + BETWEEN_CHARS + 2 * HASH_BYTES_MAX;

/// The path of a blob relative to [`Cas::blobs_path`](crate::Cas::blobs_path).
#[derive(Clone, Copy)]
pub struct BlobPath {
    /// NUL from `length` on.
    characters: [u8; LENGTH_MAX + 1],
    length: u8,
}

impl BlobPath {
    /// The path of that blob, whether it is there or not.
    pub fn new(digest: &Digest) -> Self {
        const { assert!(LENGTH_MAX <= u8::MAX as usize) };
        let hex = digest.hex_bytes();
        let mut path = Self { characters: [0; LENGTH_MAX + 1], length: 0 };
        for part in [digest.function().name().as_bytes(), b"/", &hex[..2], b"/", &hex] {
            path.push(part);
        }
        path
    }

    fn push(&mut self, part: &[u8]) {
        let start = usize::from(self.length);
        self.characters[start..start + part.len()].copy_from_slice(part);
        self.length += part.len() as u8;
    }

    /// As a system call takes it.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.characters).expect("there is a NUL at the end")
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.characters[..usize::from(self.length)]).expect("made of ASCII letters")
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
    use model::DigestFunction;

    use super::*;

    #[test]
    fn the_path_is_that_of_the_format() {
        let path = BlobPath::new(&Digest::of(DigestFunction::Sha256, b"abc"));
        let expected = "sha256/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(path.as_str(), expected);
        assert_eq!(path.as_c_str().to_bytes(), expected.as_bytes());
        for function in DigestFunction::ALL {
            let digest = Digest::of(function, b"abc");
            let hex = digest.hex();
            let path = BlobPath::new(&digest);
            assert_eq!(path.as_str(), format!("{function}/{}/{hex}", &hex[..2]));
            assert_eq!(path.as_c_str().to_bytes(), path.as_str().as_bytes());
        }
    }
}
