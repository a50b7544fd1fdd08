//! The name of a blob: a hash function, the hash and the size.
//!
//! REAPI counts the size as part of the digest, so two digests with one hash and two sizes are
//! different, and at most one of them names a blob.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::digest_error::DigestError;
use crate::digest_function::DigestFunction;
use crate::hash_bytes::{HashBytes, HexHash};
use crate::proto;

const EMPTY_SHA256: HashBytes =
    HashBytes::literal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
const EMPTY_BLAKE3: HashBytes =
    HashBytes::literal("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
const EMPTY_SHA384: HashBytes = HashBytes::literal(
    "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b",
);
const EMPTY_SHA512: HashBytes = HashBytes::literal(
    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
     47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
);
const EMPTY_SHA1: HashBytes = HashBytes::literal("da39a3ee5e6b4b0d3255bfef95601890afd80709");
const EMPTY_MD5: HashBytes = HashBytes::literal("d41d8cd98f00b204e9800998ecf8427e");

/// The name of a blob: function, hash and size.
///
/// Ordered by hash, then size, then function. Sizes fit in an `i64`, as REAPI demands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    function: DigestFunction,
    hash: HashBytes,
    size_bytes: u64,
}

impl Digest {
    /// A digest from its parts. No blob is larger than `i64::MAX` bytes, and a size beyond is cut. A
    /// hash of another length than the function's is cut, or filled up with zeros.
    pub fn new(function: DigestFunction, hash: impl Into<HashBytes>, size_bytes: u64) -> Self {
        let hash = hash.into().resized(function.hash_bytes());
        Self { function, hash, size_bytes: size_bytes.min(i64::MAX as u64) }
    }

    /// The digest of `content`.
    pub fn of(function: DigestFunction, content: &[u8]) -> Self {
        Self::new(function, function.hash(content), content.len() as u64)
    }

    /// The digest of the empty blob.
    pub const fn empty(function: DigestFunction) -> Self {
        let hash = match function {
            DigestFunction::Sha256 => EMPTY_SHA256,
            DigestFunction::Blake3 => EMPTY_BLAKE3,
            DigestFunction::Sha384 => EMPTY_SHA384,
            DigestFunction::Sha512 => EMPTY_SHA512,
            DigestFunction::Sha1 => EMPTY_SHA1,
            DigestFunction::Md5 => EMPTY_MD5,
        };
        Self { function, hash, size_bytes: 0 }
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
        if hash.len() != 2 * function.hash_bytes() {
            return Err(DigestError::HashLength(hash.len()));
        }
        let hash = HashBytes::parse_hex(hash).ok_or(DigestError::HashCharacter)?;
        Ok(Self { function, hash, size_bytes })
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
    pub const fn hash(&self) -> &HashBytes {
        &self.hash
    }

    /// The size of the blob in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The hash in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        self.hash.to_hex().as_str().to_owned()
    }

    /// The hash in lower-case hexadecimal, without an allocation.
    pub fn hex_bytes(&self) -> HexHash {
        self.hash.to_hex()
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The bytes of the hash alone: behind them are zeros.
        state.write(&self.hash);
        state.write_u64(self.size_bytes);
        state.write_u8(self.function as u8);
    }
}

impl Ord for Digest {
    /// The first eight bytes nearly always decide, and comparing them as a number is twice as fast
    /// as comparing all bytes by a call; the blobs of every new input tree are sorted.
    fn cmp(&self, other: &Self) -> Ordering {
        let first =
            |digest: &Self| u64::from_be_bytes(*digest.hash.first_chunk().unwrap_or(&[0; 8]));
        first(self).cmp(&first(other)).then_with(|| {
            let rest = self.hash.cmp(&other.hash);
            let rest = rest.then(self.size_bytes.cmp(&other.size_bytes));
            rest.then(self.function.cmp(&other.function))
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
        write!(f, "{}/{}", self.hash.to_hex(), self.size_bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of `abc` in the documents that define the functions.
    #[test]
    fn known_digests() {
        let check = |function, expected: &str| {
            assert_eq!(Digest::of(function, b"abc").to_string(), format!("{expected}/3"));
        };
        check(
            DigestFunction::Sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        );
        check(
            DigestFunction::Blake3,
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        );
        check(
            DigestFunction::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7",
        );
        check(
            DigestFunction::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        );
        check(DigestFunction::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
        check(DigestFunction::Md5, "900150983cd24fb0d6963f7d28e17f72");
    }

    /// Trees, indexes and lists of blobs are made of digests.
    #[test]
    fn a_digest_stays_small() {
        assert!(size_of::<Digest>() <= 80, "{} bytes", size_of::<Digest>());
    }

    #[test]
    fn a_hash_of_another_length_is_made_to_fit() {
        let sha256 = Digest::of(DigestFunction::Sha256, b"abc");
        for function in DigestFunction::ALL {
            let digest = Digest::new(function, *sha256.hash(), 3);
            assert_eq!(digest.hash().len(), function.hash_bytes());
            let common = digest.hash().len().min(32);
            assert_eq!(digest.hash()[..common], sha256.hash()[..common]);
        }
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
            assert_eq!(&digest.hex_bytes()[..], digest.hex().as_bytes());
        }
    }

    #[test]
    fn every_character_that_is_no_lower_case_digit_is_refused_at_every_place() {
        for function in DigestFunction::ALL {
            let good = Digest::of(function, b"abc").hex().into_bytes();
            for place in 0..good.len() {
                for character in 0..=u8::MAX {
                    let mut hash = good.clone();
                    hash[place] = character;
                    let parsed = Digest::parse_hex_bytes(function, &hash, 1);
                    if matches!(character, b'0'..=b'9' | b'a'..=b'f') {
                        assert_eq!(parsed.map(|digest| digest.hex().into_bytes()), Ok(hash));
                    } else {
                        assert_eq!(parsed, Err(DigestError::HashCharacter));
                    }
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
