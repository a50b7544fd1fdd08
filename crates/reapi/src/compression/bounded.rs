//! The bound of what is unpacked.

use std::io;

/// Ends a decompression that goes beyond the size of a blob: a few bytes can stand for terabytes.
pub(crate) struct Bounded<W> {
    sink: W,
    remaining_bytes: u64,
}

impl<W> Bounded<W> {
    /// Passes on that many bytes at most.
    pub(crate) fn new(sink: W, limit_bytes: u64) -> Self {
        Self { sink, remaining_bytes: limit_bytes }
    }

    /// Returns the sink with what came so far.
    pub(crate) fn into_inner(self) -> W {
        self.sink
    }
}

impl<W: io::Write> io::Write for Bounded<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let left = self.remaining_bytes.checked_sub(data.len() as u64);
        self.remaining_bytes = left.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "more data than the digest says")
        })?;
        self.sink.write_all(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
