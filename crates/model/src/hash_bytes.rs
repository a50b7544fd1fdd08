//! The bytes of a hash of any supported function, and their hexadecimal form.
//!
//! Digests are copied, compared and sorted by the hundred thousand, so a hash lies in place: bytes of
//! the longest hash, of which a shorter one leaves the rest zero. Hexadecimal is read and written by
//! loops of a fixed length without branches, which the compiler makes vector instructions of: every
//! file of every input tree passes here.

use std::fmt;
use std::ops::Deref;

/// The bytes of the longest hash, that of SHA-512.
pub const HASH_BYTES_MAX: usize = 64;
/// The characters of the longest hash in hexadecimal.
const HEX_CHARS_MAX: usize = 2 * HASH_BYTES_MAX;

/// The bytes of a hash. It dereferences to a slice of its own length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashBytes {
    /// Zero from `length` on.
    bytes: [u8; HASH_BYTES_MAX],
    length: u8,
}

impl HashBytes {
    /// The bytes of a slice, of which those beyond the longest hash are cut.
    pub fn of(slice: &[u8]) -> Self {
        let length = slice.len().min(HASH_BYTES_MAX);
        let mut bytes = [0; HASH_BYTES_MAX];
        bytes[..length].copy_from_slice(&slice[..length]);
        Self { bytes, length: length as u8 }
    }

    /// A hash of `length` bytes, which are the first ones of `start`; the rest of it is zero. Copying a number of
    /// bytes that the compiler knows takes a few instructions.
    pub(crate) fn of_start<const BYTES: usize>(start: &[u8; BYTES], length: usize) -> Self {
        let mut bytes = [0; HASH_BYTES_MAX];
        bytes[..BYTES].copy_from_slice(start);
        Self { bytes, length: length.min(BYTES) as u8 }
    }

    /// The first bytes, and zeros where there are no more.
    pub fn first<const BYTES: usize>(&self) -> [u8; BYTES] {
        let mut first = [0; BYTES];
        first.iter_mut().zip(self.bytes).for_each(|(byte, of_hash)| *byte = of_hash);
        first
    }

    /// The same hash with that many bytes: the rest is cut, or zero.
    pub(crate) fn resized(mut self, length: usize) -> Self {
        if length < self.len() {
            self.bytes[length..].fill(0);
        }
        self.length = length.min(HASH_BYTES_MAX) as u8;
        self
    }

    /// A hash in the source code. Fails to compile for anything else than hexadecimal.
    pub(crate) const fn literal(hex: &str) -> Self {
        const fn digit(character: u8) -> u8 {
            match character {
                b'0'..=b'9' => character - b'0',
                b'a'..=b'f' => character - b'a' + 10,
                _ => panic!("not a hexadecimal digit"),
            }
        }
        let (hex, mut bytes, mut at) = (hex.as_bytes(), [0; HASH_BYTES_MAX], 0);
        while at < hex.len() / 2 {
            bytes[at] = digit(hex[2 * at]) << 4 | digit(hex[2 * at + 1]);
            at += 1;
        }
        Self { bytes, length: at as u8 }
    }

    /// Decodes lower-case hexadecimal of the length of any function; `None` for anything else.
    pub(crate) fn parse_hex(hex: &[u8]) -> Option<Self> {
        match hex.len() {
            32 => Self::decode::<32>(hex),
            40 => Self::decode::<40>(hex),
            64 => Self::decode::<64>(hex),
            96 => Self::decode::<96>(hex),
            128 => Self::decode::<128>(hex),
            _ => None,
        }
    }

    fn decode<const CHARS: usize>(hex: &[u8]) -> Option<Self> {
        let hex: &[u8; CHARS] = hex.try_into().ok()?;
        let mut values = [0; CHARS];
        let mut is_bad = false;
        for (value, character) in values.iter_mut().zip(hex) {
            let digit = character.wrapping_sub(b'0');
            let letter = character.wrapping_sub(b'a');
            is_bad |= (digit > 9) & (letter > 5);
            *value = if digit <= 9 { digit } else { letter.wrapping_add(10) };
        }
        let mut bytes = [0; HASH_BYTES_MAX];
        for (byte, pair) in bytes.iter_mut().zip(values.as_chunks::<2>().0) {
            *byte = (pair[0] << 4) | (pair[1] & 15);
        }
        (!is_bad).then_some(Self { bytes, length: (CHARS / 2) as u8 })
    }

    /// The hash in lower-case hexadecimal.
    pub fn to_hex(&self) -> HexHash {
        let mut hex = HexHash { characters: [0; HEX_CHARS_MAX], length: 2 * self.length };
        match self.len() {
            32 => self.encode::<64>(&mut hex),
            _ => self.encode::<HEX_CHARS_MAX>(&mut hex),
        }
        hex
    }

    fn encode<const CHARS: usize>(&self, hex: &mut HexHash) {
        let Some(characters) = hex.characters.first_chunk_mut::<CHARS>() else { return };
        for (pair, byte) in characters.as_chunks_mut::<2>().0.iter_mut().zip(self.bytes) {
            pair[0] = byte >> 4;
            pair[1] = byte & 15;
        }
        // Arithmetic instead of a table: it becomes vector instructions.
        for digit in characters {
            *digit += if *digit > 9 { b'a' - 10 } else { b'0' };
        }
    }
}

impl<const BYTES: usize> From<[u8; BYTES]> for HashBytes {
    fn from(bytes: [u8; BYTES]) -> Self {
        Self::of(&bytes)
    }
}

impl Deref for HashBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for HashBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_hex())
    }
}

/// A hash in lower-case hexadecimal. It dereferences to its characters.
#[derive(Clone, Copy)]
pub struct HexHash {
    characters: [u8; HEX_CHARS_MAX],
    length: u8,
}

impl HexHash {
    /// As text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self).unwrap_or_default()
    }
}

impl Deref for HexHash {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.characters[..usize::from(self.length)]
    }
}

impl fmt::Display for HexHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for HexHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_round_trips_and_others_are_refused() {
        for length in [16, 20, 32, 48, 64] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 37 + 5) as u8).collect();
            let hash = HashBytes::of(&bytes);
            assert_eq!(&hash[..], bytes);
            assert_eq!(hash.to_hex().to_string(), hex::encode(&bytes));
            assert_eq!(HashBytes::parse_hex(&hash.to_hex()), Some(hash));
            assert_eq!(HashBytes::literal(&hash.to_hex().to_string()), hash);
        }
        for length in [0, 2, 31, 42, 63, 65, 126, 130] {
            assert_eq!(HashBytes::parse_hex(&vec![b'0'; length]), None, "{length}");
        }
    }

    #[test]
    fn what_is_cut_leaves_nothing_behind() {
        let long = HashBytes::of(&[7; 64]);
        assert_eq!(long.resized(20), HashBytes::of(&[7; 20]));
        assert_eq!(long.resized(20).resized(32)[20..], [0; 12]);
        assert_eq!(HashBytes::of(&[7; 100]), long);
        assert_eq!(long.resized(3).first(), [7, 7, 7, 0]);
        assert_eq!(long.first(), [7, 7]);
    }
}
