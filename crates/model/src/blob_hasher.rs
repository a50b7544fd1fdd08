//! Hashing of a blob while it streams by.

use sha2::Digest as _;

use crate::digest::Digest;
use crate::digest_function::DigestFunction;
use crate::hash_bytes::HashBytes;

/// Hashes a blob that arrives in pieces.
#[derive(Debug, Clone)]
pub struct BlobHasher {
    function: DigestFunction,
    state: HasherState,
    size_bytes: u64,
}

#[derive(Debug, Clone)]
enum HasherState {
    Sha256(sha2::Sha256),
    /// Boxed: the state is 2 KiB, and hashers are moved about.
    Blake3(Box<blake3::Hasher>),
    /// Boxed, as are the next ones: few clients use them, and their states are larger than SHA-256's.
    Sha384(Box<sha2::Sha384>),
    Sha512(Box<sha2::Sha512>),
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
}

impl BlobHasher {
    /// A hasher that has seen nothing.
    pub fn new(function: DigestFunction) -> Self {
        let state = match function {
            DigestFunction::Sha256 => HasherState::Sha256(sha2::Sha256::new()),
            DigestFunction::Blake3 => HasherState::Blake3(Box::default()),
            DigestFunction::Sha384 => HasherState::Sha384(Box::default()),
            DigestFunction::Sha512 => HasherState::Sha512(Box::default()),
            DigestFunction::Sha1 => HasherState::Sha1(sha1::Sha1::new()),
            DigestFunction::Md5 => HasherState::Md5(md5::Md5::new()),
        };
        Self { function, state, size_bytes: 0 }
    }

    /// Takes in the next piece.
    pub fn update(&mut self, content: &[u8]) {
        match &mut self.state {
            HasherState::Sha256(hasher) => hasher.update(content),
            HasherState::Blake3(hasher) => {
                hasher.update(content);
            }
            HasherState::Sha384(hasher) => hasher.update(content),
            HasherState::Sha512(hasher) => hasher.update(content),
            HasherState::Sha1(hasher) => hasher.update(content),
            HasherState::Md5(hasher) => hasher.update(content),
        }
        self.size_bytes += content.len() as u64;
    }

    /// The bytes taken in so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The digest of all pieces together.
    pub fn finish(self) -> Digest {
        let hash = match self.state {
            HasherState::Sha256(hasher) => HashBytes::of(&hasher.finalize()),
            HasherState::Blake3(hasher) => HashBytes::of(hasher.finalize().as_bytes()),
            HasherState::Sha384(hasher) => HashBytes::of(&hasher.finalize()),
            HasherState::Sha512(hasher) => HashBytes::of(&hasher.finalize()),
            HasherState::Sha1(hasher) => HashBytes::of(&hasher.finalize()),
            HasherState::Md5(hasher) => HashBytes::of(&hasher.finalize()),
        };
        Digest::new(self.function, hash, self.size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashing_in_pieces_is_hashing_at_once() {
        let content: Vec<u8> = (0..100_000_u32).map(|i| (i * 7) as u8).collect();
        for function in DigestFunction::ALL {
            let mut hasher = BlobHasher::new(function);
            for piece in content.chunks(1013) {
                hasher.update(piece);
            }
            assert_eq!(hasher.size_bytes(), 100_000);
            assert_eq!(hasher.finish(), Digest::of(function, &content));
        }
    }
}
