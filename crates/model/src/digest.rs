//! The name of a blob: a hash function, the hash and the size.
//!
//! REAPI counts the size as part of the digest, so two digests with one hash and two sizes are
//! different, and at most one of them names a blob.

use std::cmp::Ordering;
use std::fmt;

use sha2::Digest as _;

use crate::digest_error::DigestError;
use crate::digest_function::DigestFunction;
use crate::proto;

/// The bytes of a hash, the same for every supported function.
const HASH_BYTES: usize = 32;
/// The characters of a hash in hexadecimal.
const HEX_CHARS: usize = 2 * HASH_BYTES;

const EMPTY_SHA256: [u8; HASH_BYTES] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];
const EMPTY_BLAKE3: [u8; HASH_BYTES] = [
    0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49,
    0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
];

/// The name of a blob: function, hash and size.
///
/// Ordered by hash, then size, then function. Sizes fit in an `i64`, as REAPI demands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    function: DigestFunction,
    hash: [u8; HASH_BYTES],
    size_bytes: u64,
}

impl Digest {
    /// A digest from its parts; no blob is larger than `i64::MAX` bytes, and a size beyond is cut.
    pub const fn new(function: DigestFunction, hash: [u8; HASH_BYTES], size_bytes: u64) -> Self {
        let size_bytes = if size_bytes > i64::MAX as u64 { i64::MAX as u64 } else { size_bytes };
        Self { function, hash, size_bytes }
    }

    /// The digest of `content`.
    pub fn of(function: DigestFunction, content: &[u8]) -> Self {
        let hash = match function {
            DigestFunction::Sha256 => sha2::Sha256::digest(content).into(),
            DigestFunction::Blake3 => blake3::hash(content).into(),
        };
        Self::new(function, hash, content.len() as u64)
    }

    /// The digest of the empty blob.
    pub const fn empty(function: DigestFunction) -> Self {
        let hash = match function {
            DigestFunction::Sha256 => EMPTY_SHA256,
            DigestFunction::Blake3 => EMPTY_BLAKE3,
        };
        Self::new(function, hash, 0)
    }

    /// Whether this names the empty blob, which every store has.
    pub fn is_empty_blob(&self) -> bool {
        self.size_bytes == 0 && *self == Self::empty(self.function)
    }

    /// Reads a digest of a message; the function comes from the request around it.
    pub fn from_proto(
        digest: &proto::Digest,
        function: DigestFunction,
    ) -> Result<Self, DigestError> {
        let size_bytes = u64::try_from(digest.size_bytes)
            .map_err(|_| DigestError::Size(digest.size_bytes.into()))?;
        Self::parse_hex(function, &digest.hash, size_bytes)
    }

    /// Reads a digest that the message may lack, and refuses it when it does.
    pub fn from_proto_field(
        digest: Option<&proto::Digest>,
        function: DigestFunction,
    ) -> Result<Self, DigestError> {
        Self::from_proto(digest.ok_or(DigestError::Missing)?, function)
    }

    /// A digest from a hash in lower-case hexadecimal and a size in bytes.
    pub fn parse_hex(
        function: DigestFunction,
        hash: &str,
        size_bytes: u64,
    ) -> Result<Self, DigestError> {
        Self::parse_hex_bytes(function, hash.as_bytes(), size_bytes)
    }

    /// Like [`Digest::parse_hex`], for a hash that was not yet found to be text.
    pub fn parse_hex_bytes(
        function: DigestFunction,
        hash: &[u8],
        size_bytes: u64,
    ) -> Result<Self, DigestError> {
        if i64::try_from(size_bytes).is_err() {
            return Err(DigestError::Size(size_bytes.into()));
        }
        let hex: &[u8; HEX_CHARS] =
            hash.try_into().map_err(|_| DigestError::HashLength(hash.len()))?;
        let hash = decode_hex(hex).ok_or(DigestError::HashCharacter)?;
        Ok(Self::new(function, hash, size_bytes))
    }

    /// The message form; the function is not part of it.
    pub fn to_proto(&self) -> proto::Digest {
        proto::Digest { hash: self.hex(), size_bytes: self.size_bytes as i64 }
    }

    /// The hash function.
    pub const fn function(&self) -> DigestFunction {
        self.function
    }

    /// The hash as bytes.
    pub const fn hash(&self) -> &[u8; HASH_BYTES] {
        &self.hash
    }

    /// The size of the blob in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The hash in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        hex::encode(self.hash)
    }

    /// The hash in lower-case hexadecimal, without an allocation.
    pub fn hex_bytes(&self) -> [u8; HEX_CHARS] {
        let mut hex = [0; HEX_CHARS];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.hash) {
            pair[0] = byte >> 4;
            pair[1] = byte & 15;
        }
        // Arithmetic instead of a table: it becomes vector instructions.
        for digit in &mut hex {
            *digit += if *digit > 9 { b'a' - 10 } else { b'0' };
        }
        hex
    }
}

impl Ord for Digest {
    /// The first eight bytes nearly always decide, and comparing them as a number is twice as fast
    /// as comparing 32 bytes by a call; the blobs of every new input tree are sorted.
    fn cmp(&self, other: &Self) -> Ordering {
        let first =
            |digest: &Self| u64::from_be_bytes(*digest.hash.first_chunk().unwrap_or(&[0; 8]));
        first(self).cmp(&first(other)).then_with(|| {
            let rest = |digest: &Self| (digest.hash, digest.size_bytes, digest.function);
            rest(self).cmp(&rest(other))
        })
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `hash/size`, as in resource names.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.hash {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "/{}", self.size_bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.function)
    }
}

/// Decodes lower-case hexadecimal, or `None` for any other character.
///
/// Every file of every input tree passes here: both loops are without branches, so that the
/// compiler makes vector instructions of them.
fn decode_hex(hex: &[u8; HEX_CHARS]) -> Option<[u8; HASH_BYTES]> {
    let mut values = [0; HEX_CHARS];
    let mut is_bad = false;
    for (value, character) in values.iter_mut().zip(hex) {
        let digit = character.wrapping_sub(b'0');
        let letter = character.wrapping_sub(b'a');
        is_bad |= (digit > 9) & (letter > 5);
        *value = if digit <= 9 { digit } else { letter.wrapping_add(10) };
    }
    let mut hash = [0; HASH_BYTES];
    for (byte, pair) in hash.iter_mut().zip(values.as_chunks::<2>().0) {
        *byte = (pair[0] << 4) | (pair[1] & 15);
    }
    (!is_bad).then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        let sha = Digest::of(DigestFunction::Sha256, b"abc");
        assert_eq!(
            sha.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/3"
        );
        let blake = Digest::of(DigestFunction::Blake3, b"abc");
        assert_eq!(
            blake.to_string(),
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85/3"
        );
    }

    #[test]
    fn the_empty_blob_is_known_without_hashing() {
        for function in DigestFunction::ALL {
            assert_eq!(Digest::of(function, b""), Digest::empty(function));
            assert!(Digest::empty(function).is_empty_blob());
            assert!(!Digest::of(function, b"x").is_empty_blob());
            assert!(!Digest::new(function, [0; 32], 0).is_empty_blob());
        }
    }

    #[test]
    fn messages_round_trip() {
        for function in DigestFunction::ALL {
            let digest = Digest::of(function, b"content");
            assert_eq!(Digest::from_proto(&digest.to_proto(), function), Ok(digest));
            assert_eq!(digest.hex_bytes(), *digest.hex().as_bytes());
        }
    }

    #[test]
    fn every_character_that_is_no_lower_case_digit_is_refused_at_every_place() {
        let good = Digest::of(DigestFunction::Sha256, b"abc").hex_bytes();
        for place in 0..HEX_CHARS {
            for character in 0..=u8::MAX {
                let mut hash = good;
                hash[place] = character;
                let parsed = Digest::parse_hex_bytes(DigestFunction::Sha256, &hash, 1);
                if matches!(character, b'0'..=b'9' | b'a'..=b'f') {
                    assert_eq!(parsed.map(|digest| digest.hex_bytes()), Ok(hash));
                } else {
                    assert_eq!(parsed, Err(DigestError::HashCharacter));
                }
            }
        }
    }

    #[test]
    fn wrong_lengths_and_sizes_are_refused() {
        let hash = "0".repeat(64);
        let parse = |hash: &str, size_bytes| {
            let message = proto::Digest { hash: hash.to_owned(), size_bytes };
            Digest::from_proto(&message, DigestFunction::Sha256)
        };
        assert!(parse(&hash, i64::MAX).is_ok());
        assert_eq!(parse(&hash, -1), Err(DigestError::Size(-1)));
        assert_eq!(parse(&hash[1..], 1), Err(DigestError::HashLength(63)));
        assert_eq!(parse("", 0), Err(DigestError::HashLength(0)));
        assert_eq!(
            Digest::parse_hex(DigestFunction::Sha256, &hash, u64::MAX),
            Err(DigestError::Size(u64::MAX.into()))
        );
        assert_eq!(
            Digest::from_proto_field(None, DigestFunction::Sha256),
            Err(DigestError::Missing)
        );
    }
}
