//! Brotli, step by step.
//!
//! A stream chooses its window, up to 16 MiB, and how many trees of prefix codes there are at a time, up to 768 of up
//! to 6 KiB each. A decoder allocates both when it needs them, and every allocation is reserved before.

use std::io;
use std::mem::size_of;
use std::sync::Arc;

use brotli::enc::StandardAlloc;
use brotli::{Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper};

use super::steps::{Step, Steps};
use crate::memory::{Exhausted, Reservation};

/// The code for a window that RFC 7932 does not have. The library has the codes of the format's authors, which are a
/// stable interface.
const WINDOW_BITS: i32 = -13;

/// The memory of a decoder in bytes beside what it allocates: its state, the room for what it unpacks, and some more.
pub(super) const STATE_BYTES: u64 = 128 << 10;

/// The cure for a stream with such a window.
const LARGE_WINDOW: &str = "the brotli stream has a window that RFC 7932 does not have; compress it with one of 16 \
                            MiB at most, without --large_window";

/// A decoder of Brotli streams with the windows of RFC 7932, and no others.
pub(super) struct Brotli {
    state: Box<BrotliState<Metered, Metered, Metered>>,
    memory: Metered,
}

impl Brotli {
    /// A decoder that reserves its memory there.
    pub(super) fn new(reservation: Arc<Reservation>) -> Self {
        let memory = Metered { reservation, refusal: Arc::default() };
        let state = BrotliState::new_strict(memory.clone(), memory.clone(), memory.clone());
        Self { state: Box::new(state), memory }
    }

    fn error(&self) -> io::Error {
        match self.memory.refusal.get() {
            Some(exhausted) => io::Error::other(*exhausted),
            None => {
                let code = self.state.error_code as i32;
                let text = match code {
                    WINDOW_BITS => LARGE_WINDOW.to_owned(),
                    code => format!("invalid Brotli data (code {code})"),
                };
                io::Error::new(io::ErrorKind::InvalidData, text)
            }
        }
    }
}

impl Steps for Brotli {
    fn step(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Step> {
        let (mut unread, mut read_bytes) = (input.len(), 0);
        let (mut free, mut written_bytes, mut total) = (room.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut unread,
            &mut read_bytes,
            input,
            &mut free,
            &mut written_bytes,
            room,
            &mut total,
            &mut self.state,
        );
        let is_last = match result {
            BrotliResult::ResultSuccess => true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => false,
            BrotliResult::ResultFailure => return Err(self.error()),
        };
        Ok(Step { is_last, read_bytes, written_bytes })
    }
}

/// Memory of the standard allocator, reserved before it is allocated. Without a reservation it is not allocated, which
/// ends the stream.
#[derive(Clone)]
struct Metered {
    reservation: Arc<Reservation>,
    /// The first refusal.
    refusal: Arc<std::sync::OnceLock<Exhausted>>,
}

impl<T: Clone + Default> Allocator<T> for Metered {
    type AllocatedMemory = <StandardAlloc as Allocator<T>>::AllocatedMemory;

    fn alloc_cell(&mut self, length: usize) -> Self::AllocatedMemory {
        match self.reservation.grow_by((length * size_of::<T>()) as u64) {
            Ok(()) => StandardAlloc::default().alloc_cell(length),
            Err(exhausted) => {
                // Only the first one matters, and what comes after it is a consequence.
                let _ = self.refusal.set(exhausted);
                Self::AllocatedMemory::default()
            }
        }
    }

    fn free_cell(&mut self, memory: Self::AllocatedMemory) {
        let bytes = size_of_val(memory.slice()) as u64;
        drop(memory);
        drop(self.reservation.split_off(bytes));
    }
}
