//! DEFLATE, step by step.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use super::steps::{Step, Steps};

/// The memory of a decoder in bytes: its window of 32 KiB, its tables, and some more.
pub(super) const STATE_BYTES: u64 = 128 << 10;

/// A decoder of DEFLATE data without a header.
pub(super) struct Inflate(Decompress);

impl Inflate {
    pub(super) fn new() -> Self {
        let has_zlib_header = false;
        Self(Decompress::new(has_zlib_header))
    }
}

impl Steps for Inflate {
    fn step(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Step> {
        let (read_before, written_before) = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, room, FlushDecompress::None);
        Ok(Step {
            is_last: status? == Status::StreamEnd,
            read_bytes: (self.0.total_in() - read_before) as usize,
            written_bytes: (self.0.total_out() - written_before) as usize,
        })
    }
}
