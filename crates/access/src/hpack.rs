//! As much of HPACK (RFC 7541) as it takes to find the value of `:authority` in a block of headers.
//!
//! Tables are not kept: the value of a field that the client refers to by an index was a literal before, in a
//! block that passed here.

use std::ops::Range;

/// The index of `:authority` in the static table.
const AUTHORITY_INDEX: usize = 1;
const AUTHORITY: &[u8] = b":authority";
/// The flag of a string that is compressed.
const HUFFMAN: u8 = 0x80;
/// The mask of the length in the first byte of a string.
const LENGTH_MASK: u8 = 0x7f;

/// The symbols with codes of 5 to 15 bits, in the order of their codes, by appendix B: all that ASCII can print.
/// The code is canonical, so the lengths determine the codes. Other symbols have longer codes.
const SYMBOLS: [(u32, &[u8]); 10] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
];

/// The place of the value of `:authority` in a block, with its length before it, and the value. `None` if the
/// block has no such field, or can't be read.
pub(crate) fn authority(block: &[u8]) -> Option<(Range<usize>, Vec<u8>)> {
    let mut at = Reader { block, position: 0 };
    loop {
        let first = *at.rest().first()?;
        let name_bits = match first {
            // A field from a table.
            0x80.. => {
                at.integer(7)?;
                continue;
            }
            // A literal that goes to the dynamic table.
            0x40.. => 6,
            // Another size of that table.
            0x20.. => {
                at.integer(5)?;
                continue;
            }
            // A literal that does not.
            _ => 4,
        };
        let is_authority = match at.integer(name_bits)? {
            0 => at.string()?.is(AUTHORITY),
            index => index == AUTHORITY_INDEX,
        };
        let start = at.position;
        let value = at.string()?;
        if is_authority {
            return Some((start..at.position, value.decoded()?));
        }
    }
}

/// Appends a string, which is not compressed.
pub(crate) fn put_string(block: &mut Vec<u8>, text: &[u8]) {
    let Some(mut rest) = text.len().checked_sub(usize::from(LENGTH_MASK)) else {
        block.push(text.len() as u8);
        block.extend_from_slice(text);
        return;
    };
    block.push(LENGTH_MASK);
    while rest >= 0x80 {
        block.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
    block.extend_from_slice(text);
}

struct Reader<'a> {
    block: &'a [u8],
    position: usize,
}

struct Text<'a> {
    bytes: &'a [u8],
    is_compressed: bool,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.block[self.position..]
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.rest().first()?;
        self.position += 1;
        Some(byte)
    }

    /// An integer whose first part is in the last `bits` of a byte. One that needs more than three more bytes is
    /// longer than any block.
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let mask = (1 << bits) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Some(value);
        }
        for shift in [0, 7, 14] {
            let byte = usize::from(self.byte()?);
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn string(&mut self) -> Option<Text<'a>> {
        let is_compressed = self.rest().first()? & HUFFMAN != 0;
        let length = self.integer(7)?;
        let bytes = self.rest().get(..length)?;
        self.position += length;
        Some(Text { bytes, is_compressed })
    }
}

impl Text<'_> {
    fn is(&self, text: &[u8]) -> bool {
        match self.is_compressed {
            false => self.bytes == text,
            // No code is shorter than five bits.
            true => {
                self.bytes.len() <= 2 * text.len()
                    && self.decoded().is_some_and(|decoded| decoded == text)
            }
        }
    }

    fn decoded(&self) -> Option<Vec<u8>> {
        if self.is_compressed { decompressed(self.bytes) } else { Some(self.bytes.to_vec()) }
    }
}

/// The text of a Huffman code; `None` if it has symbols with codes of more than 15 bits.
fn decompressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    // The bits that are not decoded yet, at the lower end.
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while let Some((symbol, length)) = symbol(bits, count) {
            text.push(symbol);
            count -= length;
            bits &= (1 << count) - 1;
        }
        if count >= 16 {
            return None;
        }
    }
    // The last byte is filled with ones.
    (count < 8 && bits == (1 << count) - 1).then_some(text)
}

/// The symbol whose code the first of `count` bits are, and the number of its bits.
fn symbol(bits: u32, count: u32) -> Option<(u8, u32)> {
    let (mut first_code, mut last_length) = (0, 0);
    for (length, symbols) in SYMBOLS {
        first_code <<= length - last_length;
        last_length = length;
        let code = bits >> count.checked_sub(length)?;
        if let Some(symbol) = symbols.get(code.checked_sub(first_code)? as usize) {
            return Some((*symbol, length));
        }
        first_code += symbols.len() as u32;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex.replace(' ', "")).unwrap()
    }

    #[track_caller]
    fn check(block: &str, expected: Option<&str>) {
        let found = authority(&bytes(block)).map(|(_, value)| String::from_utf8(value).unwrap());
        assert_eq!(found.as_deref(), expected, "{block}");
    }

    #[test]
    fn the_examples_of_the_specification() {
        // C.3.1, C.3.2 and C.4.1.
        check("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", Some("www.example.com"));
        check("8286 84be 5808 6e6f 2d63 6163 6865", None);
        check("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", Some("www.example.com"));
    }

    #[test]
    fn every_literal_form_is_found() {
        for first in ["41", "01", "11"] {
            check(&format!("{first} 02 2f61"), Some("/a"));
        }
        // The name as text, after a new size of the table and a literal of another name.
        let name = hex::encode(AUTHORITY);
        check(&format!("3f e1 1f 40 01 61 01 62 00 0a {name} 02 2f61"), Some("/a"));
    }

    #[test]
    fn compressed_texts_of_the_specification() {
        // C.6.1.
        for (code, text) in [
            ("6402", "302"),
            ("aec3 771a 4b", "private"),
            (
                "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            ("9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3", "https://www.example.com"),
        ] {
            assert_eq!(decompressed(&bytes(code)), Some(text.as_bytes().to_vec()), "{text}");
        }
        // A code that goes on, one that is filled with zeros, and a byte of ones too many.
        for code in ["ffff ff", "60", "64 02 ff"] {
            assert_eq!(decompressed(&bytes(code)), None, "{code}");
        }
    }

    #[test]
    fn every_printable_symbol_has_a_code() {
        let symbols: Vec<u8> =
            SYMBOLS.iter().flat_map(|(_, symbols)| symbols.iter().copied()).collect();
        for symbol in b' '..=b'~' {
            let times = symbols.iter().filter(|other| **other == symbol).count();
            // The backslash has a code of 19 bits.
            assert_eq!(times, usize::from(symbol != b'\\'), "{}", char::from(symbol));
        }
        // The codes of 15 bits end where the longer ones begin: 0x7fff.
        let used: u32 =
            SYMBOLS.iter().map(|(length, symbols)| (symbols.len() as u32) << (15 - length)).sum();
        assert_eq!(used, 0x7fff);
    }

    #[test]
    fn lengths_are_written_as_they_are_read() {
        for length in [0, 1, 126, 127, 128, 254, 255, 300, 16_000] {
            let mut block = vec![0x41];
            put_string(&mut block, &vec![b'a'; length]);
            assert_eq!(authority(&block).map(|(_, value)| value.len()), Some(length));
        }
    }

    #[test]
    fn what_is_cut_or_endless_is_nothing() {
        for block in
            ["", "41", "41 05 61", "41 ff", "41 7f ff ff ff 01", "00 0a 3a", "7f ff ff ff ff 7f"]
        {
            check(block, None);
        }
    }
}
