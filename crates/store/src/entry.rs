//! The bytes of an entry of the action cache; see `docs/storage-format.md`, "Cached results".

use bytes::Bytes;
use model::{BlobHasher, DigestFunction, HashBytes};

const MAGIC: &[u8; 8] = b"ACTD-AC\0";
const VERSION: u32 = 1;
const LENGTH_AT: usize = 16;
const CHECKSUM_AT: usize = 24;
pub(crate) const HEADER_BYTES: usize = 56;

/// An entry that stands under that name and has that value.
pub(crate) fn encode(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(HEADER_BYTES + value.len());
    entry.extend_from_slice(MAGIC);
    entry.extend_from_slice(&VERSION.to_le_bytes());
    entry.extend_from_slice(&[0; 4]);
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(&checksum(name, value));
    entry.extend_from_slice(value);
    entry
}

/// The length of the whole entry that begins with these bytes; `None` if it is no entry.
pub(crate) fn total_bytes(beginning: &[u8]) -> Option<u64> {
    let header = beginning.get(..HEADER_BYTES)?;
    let known = header.starts_with(MAGIC)
        && header[8..12] == VERSION.to_le_bytes()
        && header[12..LENGTH_AT] == [0; 4];
    let length = header[LENGTH_AT..CHECKSUM_AT].first_chunk::<8>()?;
    known.then_some((HEADER_BYTES as u64).checked_add(u64::from_le_bytes(*length))?)
}

/// The value of the entry under that name; `None` if it is torn, or was written under another name.
pub(crate) fn decode(name: &[u8], entry: &Bytes) -> Option<Bytes> {
    if total_bytes(entry)? != entry.len() as u64 {
        return None;
    }
    let value = entry.slice(HEADER_BYTES..);
    (entry[CHECKSUM_AT..HEADER_BYTES] == *checksum(name, &value)).then_some(value)
}

fn checksum(name: &[u8], value: &[u8]) -> HashBytes {
    let mut hasher = BlobHasher::new(DigestFunction::Blake3);
    hasher.update(name);
    hasher.update(&[0]);
    hasher.update(value);
    *hasher.finish().hash()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_round_trip() {
        for value in [&b""[..], b"value", &[7; 100_000]] {
            let entry = Bytes::from(encode(b"name", value));
            assert_eq!(total_bytes(&entry), Some(entry.len() as u64));
            assert_eq!(decode(b"name", &entry).as_deref(), Some(value));
            assert_eq!(decode(b"other", &entry), None);
        }
    }

    #[test]
    fn an_entry_with_any_byte_changed_or_missing_is_none() {
        let entry = encode(b"name", b"some value");
        for at in 0..entry.len() {
            let mut changed = entry.clone();
            changed[at] ^= 1;
            assert_eq!(decode(b"name", &changed.into()), None, "byte {at} changed");
            let cut = Bytes::copy_from_slice(&entry[..at]);
            assert_eq!(decode(b"name", &cut), None, "cut at {at}");
        }
        let mut longer = entry;
        longer.push(0);
        assert_eq!(decode(b"name", &longer.into()), None);
    }

    #[test]
    fn a_length_beyond_all_bounds_is_no_entry() {
        let mut entry = encode(b"name", b"");
        entry[LENGTH_AT..CHECKSUM_AT].fill(0xff);
        assert_eq!(total_bytes(&entry), None);
    }
}
