//! Decoders that go on step by step.

use std::io;

/// A decoder that goes on step by step.
pub(super) trait Steps: Send {
    /// Reads some of `input` and writes some of `room`. It stops when the one is read, the other is full, or the
    /// stream is over.
    fn step(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Step>;
}

/// The outcome of a step.
pub(super) struct Step {
    pub(super) read_bytes: usize,
    pub(super) written_bytes: usize,
    /// Whether the stream is over.
    pub(super) is_last: bool,
}
