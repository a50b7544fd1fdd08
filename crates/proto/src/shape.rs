//! The memory that a message takes when decoded, computed from its bytes.
//!
//! An empty submessage is two bytes on the wire and up to several hundred in memory, so the size of
//! a request says little about what its decoding costs. [`decoded_bytes`] reads the keys and lengths
//! of a message once, allocates nothing, and adds up what the decoder would allocate. The tables that
//! it needs are generated from the `.proto` files.

use prost::encoding::{WireType, decode_key, decode_varint};

/// A message that the generated tables describe.
pub trait Shaped {
    /// Its table.
    const SHAPE: &'static Shape;
}

/// The part of a message's shape that matters for its size in memory.
#[derive(Debug)]
pub struct Shape {
    /// The size of the Rust type, without what it points to.
    pub size_bytes: usize,
    /// The fields that can hold memory of their own.
    pub fields: &'static [Field],
}

/// A field that can hold memory of its own.
#[derive(Debug)]
pub struct Field {
    /// The number on the wire.
    pub number: u32,
    /// Whether there can be several.
    pub repeated: bool,
    /// Its content.
    pub kind: Kind,
}

/// The content of a field.
#[derive(Debug)]
pub enum Kind {
    /// A number, `bool` or `enum`.
    Number,
    /// A string, which is copied.
    Text,
    /// Bytes, which share the memory of the encoded message.
    Bytes,
    /// Another message.
    Message(&'static Shape),
}

/// A growing list may have room for twice its items, and with its first item gets room for four.
const GROWTH: u64 = 2;
const FIRST_ITEMS: u64 = 4;

/// A number of any type.
const NUMBER_BYTES: u64 = 8;

impl Shaped for () {
    const SHAPE: &'static Shape = &Shape { size_bytes: 0, fields: &[] };
}

/// A message without a table, such as `google.protobuf.Any`: strings and numbers, or an entry of
/// a map.
pub(crate) const OTHER: Shape = Shape {
    size_bytes: 128,
    fields: &[
        Field { number: 1, repeated: false, kind: Kind::Text },
        Field { number: 2, repeated: false, kind: Kind::Text },
    ],
};

/// The memory that decoding `message` as an `M` takes at most, beside the bytes themselves.
///
/// Stops at the first malformed field, where the decoder fails, and once it is more than `limit`:
/// then the message is not decoded at all.
pub fn decoded_bytes<M: Shaped>(message: &[u8], limit: u64) -> u64 {
    let mut count = Count { total: M::SHAPE.size_bytes as u64, limit };
    // The decoder fails at the same place.
    let _ = count.add(M::SHAPE, message);
    count.total
}

struct Count {
    total: u64,
    limit: u64,
}

impl Count {
    fn add(&mut self, shape: &Shape, mut rest: &[u8]) -> Option<()> {
        // A bit for each of the shape's fields.
        let mut seen: u64 = 0;
        while !rest.is_empty() && self.total <= self.limit {
            let (number, wire_type) = decode_key(&mut rest).ok()?;
            let content = match wire_type {
                WireType::Varint => decode_varint(&mut rest).ok().map(|_| &[][..])?,
                WireType::SixtyFourBit => take(&mut rest, 8)?,
                WireType::ThirtyTwoBit => take(&mut rest, 4)?,
                WireType::LengthDelimited => {
                    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                    take(&mut rest, length)?
                }
                // No message has groups; the decoder skips them, and nothing of them is kept.
                WireType::StartGroup | WireType::EndGroup => continue,
            };
            let mut fields = shape.fields.iter().enumerate();
            let Some((index, field)) = fields.find(|(_, field)| field.number == number) else {
                continue;
            };
            // No message has more than 64 fields; lists beyond would count as begun each time.
            let bit = 1_u64.checked_shl(index as u32).unwrap_or_default();
            let items = match (field.repeated, seen & bit == 0) {
                (false, _) => 0,
                (true, true) => FIRST_ITEMS,
                (true, false) => GROWTH,
            };
            seen |= bit;
            self.total += match &field.kind {
                // Packed ones take a byte each on the wire at least.
                Kind::Number => items * NUMBER_BYTES * content.len().max(1) as u64,
                Kind::Text => items * size_of::<String>() as u64 + allocation_bytes(content.len()),
                Kind::Bytes => items * size_of::<prost::bytes::Bytes>() as u64,
                Kind::Message(inner) => items * inner.size_bytes as u64,
            };
            if let Kind::Message(inner) = field.kind {
                self.add(inner, content)?;
            }
        }
        Some(())
    }
}

/// The memory that the C library's allocator takes for that many bytes.
fn allocation_bytes(size_bytes: usize) -> u64 {
    const OVERHEAD_BYTES: u64 = 16;
    const MIN_BYTES: u64 = 32;
    match size_bytes as u64 {
        0 => 0,
        size_bytes => (size_bytes + OVERHEAD_BYTES).max(MIN_BYTES),
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (content, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::bazel::remote::execution::v2::{ActionResult, Command, OutputFile};
    use crate::encoded::reapi::BatchUpdateBlobsRequest;
    use prost::Message as _;

    #[test]
    fn empty_submessages_count_as_what_they_become() {
        let result =
            ActionResult { output_files: vec![OutputFile::default(); 1000], ..Default::default() };
        let bytes = result.encode_to_vec();
        let size = 1000 * size_of::<OutputFile>() as u64;
        assert_eq!(bytes.len(), 2000);
        let counted = decoded_bytes::<ActionResult>(&bytes, u64::MAX);
        assert!((size..3 * size).contains(&counted), "{counted}");
        let counted = decoded_bytes::<ActionResult>(&bytes, size / 2);
        assert!((size / 2..size).contains(&counted), "counting ends early: {counted}");
    }

    #[test]
    fn a_list_of_one_has_room_for_four() {
        let one = |count| ActionResult {
            output_files: vec![OutputFile::default(); count],
            ..Default::default()
        };
        let counted = |count| decoded_bytes::<ActionResult>(&one(count).encode_to_vec(), u64::MAX);
        let decoded = |count| ActionResult::decode(&*one(count).encode_to_vec()).unwrap();
        for count in 1..20 {
            let room = decoded(count).output_files.capacity() * size_of::<OutputFile>();
            let counted = counted(count) - counted(0);
            assert!(counted >= room as u64, "{count} items: {counted} counted for {room}");
        }
    }

    #[test]
    fn nested_and_repeated_strings_count() {
        let command = Command { arguments: vec!["a".into(); 100], ..Default::default() };
        let counted = decoded_bytes::<Command>(&command.encode_to_vec(), u64::MAX);
        assert!(counted >= 100 * size_of::<String>() as u64, "{counted}");
    }

    #[test]
    fn data_that_is_shared_does_not_count() {
        use crate::encoded::reapi::batch_update_blobs_request::Request;
        let request = Request { data: vec![0x0a; 1 << 20].into(), ..Default::default() };
        let message = BatchUpdateBlobsRequest { requests: vec![request], ..Default::default() };
        assert!(
            decoded_bytes::<BatchUpdateBlobsRequest>(&message.encode_to_vec(), u64::MAX) < 1000
        );
    }

    #[test]
    fn malformed_bytes_are_counted_up_to_the_fault() {
        for bytes in [&[0xff; 20][..], &[0x0a, 200, 1], &[0x0a], &[0x12, 0, 0x0b, 0x0c]] {
            assert!(decoded_bytes::<ActionResult>(bytes, u64::MAX) < 10_000, "{bytes:?}");
        }
    }
}
