//! A reader of protobuf's wire format that copies nothing.
//!
//! Input trees are parsed on the way of every action, with thousands of entries in a message;
//! generated code would allocate two strings for each. Here a field is a [`Span`] of the message,
//! and nothing is allocated at all.
//!
//! Format: <https://protobuf.dev/programming-guides/encoding/>. Groups, which REAPI never uses, are
//! refused, as is anything that does not fit in the message.

/// The position at which a message is not protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A variable-length integer of more than 64 bits, or cut off.
    #[error("a varint is too long or cut off")]
    Varint,
    /// A field's key has the number 0, or more than 32 bits.
    #[error("a field has an impossible number")]
    FieldNumber,
    /// Groups, or one of the two wire types that do not exist.
    #[error("a field has wire type {0}")]
    WireType(u8),
    /// A field reaches beyond the end of its message.
    #[error("a field is longer than its message")]
    Length,
}

/// A piece of a message, by its place from the message's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Span {
    /// The bytes of the piece; `message` is the one the span was read from.
    pub(crate) fn of(self, message: &[u8]) -> &[u8] {
        &message[self.start as usize..][..self.len as usize]
    }
}

/// The content of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    Varint(u64),
    /// Eight or four bytes; REAPI's stored messages have no such field, so they are only skipped.
    Fixed,
    Bytes(Span),
}

/// Reads the fields of a message, or of a message within one.
pub(crate) struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads all of `message`, which must be shorter than 4 GiB.
    pub(crate) fn new(message: &'a [u8]) -> Self {
        debug_assert!(u32::try_from(message.len()).is_ok());
        Self { message, at: 0 }
    }

    /// Reads the message at `span`; the spans of its fields count from the start of `message` too.
    pub(crate) fn within(message: &'a [u8], span: Span) -> Self {
        let end = span.start as usize + span.len as usize;
        Self { message: &message[..end], at: span.start as usize }
    }

    /// How far the reader is, in bytes from the start of the message.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The next field's number and content; `None` at the end.
    #[inline]
    pub(crate) fn next_field(&mut self) -> Result<Option<(u32, Value)>, WireError> {
        if self.at == self.message.len() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| WireError::FieldNumber)?;
        if key >> 3 == 0 {
            return Err(WireError::FieldNumber);
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            other => return Err(WireError::WireType(other as u8)),
        };
        Ok(Some((key >> 3, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        // Keys and lengths are nearly always one byte.
        match self.message.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for (index, &byte) in self.message[self.at..].iter().take(10).enumerate() {
            // Nine bytes carry 63 bits: the tenth has one left to give.
            if index == 9 && byte > 1 {
                return Err(WireError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<Span, WireError> {
        let rest = self.message.len() - self.at;
        let len = usize::try_from(len).ok().filter(|&len| len <= rest).ok_or(WireError::Length)?;
        let span = Span { start: self.at as u32, len: len as u32 };
        self.at += len;
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &[u8]) -> Result<Vec<(u32, Value)>, WireError> {
        let mut reader = Reader::new(message);
        std::iter::from_fn(|| reader.next_field().transpose()).collect()
    }

    fn bytes(start: u32, len: u32) -> Value {
        Value::Bytes(Span { start, len })
    }

    #[test]
    fn fields_of_every_type() {
        assert_eq!(fields(b""), Ok(vec![]));
        assert_eq!(fields(b"\x08\x96\x01"), Ok(vec![(1, Value::Varint(150))]));
        assert_eq!(fields(b"\x12\x02hi"), Ok(vec![(2, bytes(2, 2))]));
        assert_eq!(
            fields(b"\x0a\x00\x0d1234\x0912345678"),
            Ok(vec![(1, bytes(2, 0)), (1, Value::Fixed), (1, Value::Fixed)])
        );
        assert_eq!(
            fields(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            Ok(vec![(1, Value::Varint(u64::MAX))])
        );
    }

    #[test]
    fn spans_of_inner_messages_count_from_the_outer() {
        let message = b"\x0a\x04\x12\x02hi";
        let span = Span { start: 2, len: 4 };
        let field = Reader::within(message, span).next_field();
        assert_eq!(field, Ok(Some((2, bytes(4, 2)))));
    }

    #[test]
    fn what_is_not_protobuf() {
        let check = |message: &[u8], expected| assert_eq!(fields(message), Err(expected));
        check(b"\x80", WireError::Varint);
        check(b"\x08", WireError::Varint);
        check(b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", WireError::Varint);
        check(&[0xff; 20], WireError::Varint);
        check(b"\x00\x00", WireError::FieldNumber);
        check(b"\x80\x80\x80\x80\x10\x00", WireError::FieldNumber);
        check(b"\x0b\x0c", WireError::WireType(3));
        check(b"\x0c", WireError::WireType(4));
        check(b"\x0e", WireError::WireType(6));
        check(b"\x0f", WireError::WireType(7));
        check(b"\x0a\x01", WireError::Length);
        check(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", WireError::Length);
        check(b"\x0d123", WireError::Length);
        check(b"\x091234567", WireError::Length);
    }
}
