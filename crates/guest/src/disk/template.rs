//! An empty ext4 file system of 256 MiB, as the few blocks of it that are not zero.
//!
//! `examples/ext4-template.rs` makes `template.zst`: the blocks one after the other, each as its
//! number (`u64`, little endian) and its 4096 bytes, in one zstd frame. So the guest carries 1 KiB
//! instead of a copy of `mkfs.ext4`, and making a file system of any size is 200 KiB of writing and
//! one request to grow it.

use std::io::{self, Read};

use ruzstd::decoding::StreamingDecoder;

const COMPRESSED: &[u8] = include_bytes!("template.zst");

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 4096;

/// Blocks of the file system, most of which are zero.
pub(super) const BLOCKS: u64 = (256 << 20) / BLOCK_BYTES as u64;

/// A block that is not zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
}

/// The blocks, by number.
///
/// # Errors
/// When what was built into the program is damaged.
pub(super) fn blocks() -> io::Result<Vec<Block>> {
    let mut packed = Vec::new();
    StreamingDecoder::new(COMPRESSED).map_err(io::Error::other)?.read_to_end(&mut packed)?;
    let entries = packed.chunks_exact(8 + BLOCK_BYTES).map(|entry| {
        let (number, bytes) = entry.split_at(8);
        let number = number.try_into().map(u64::from_le_bytes).map_err(io::Error::other)?;
        Ok(Block { number, bytes: bytes.to_vec() })
    });
    entries.collect()
}
