//! Making a file system on a disk that has nothing on it.
//!
//! The template's blocks are written with the first one last: it holds the superblock, so that a disk
//! is either blank but for blocks of the template, which the next attempt writes again, or done.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::template::{self, BLOCK_BYTES, BLOCKS, Block};

/// How much of both ends of a disk is looked at: file systems, volume managers and partition tables
/// all leave their mark in there (the farthest, btrfs's first superblock and ZFS's labels, within the
/// first MiB; a GPT's second copy and md's metadata at the end).
const LOOKED_AT_BLOCKS: u64 = (4 << 20) / BLOCK_BYTES as u64;

/// Errors of formatting a disk.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something is on it.
    #[error("it is not blank: there is something in block {block} of 4096 bytes")]
    NotBlank {
        /// The first such block.
        block: u64,
    },
    /// The template does not fit.
    #[error("it has {bytes} bytes, at least {} are needed", BLOCKS * BLOCK_BYTES as u64)]
    TooSmall {
        /// Its size.
        bytes: u64,
    },
}

/// Makes an ext4 file system of 256 MiB at the beginning of `disk`.
///
/// # Errors
/// See [`FormatError`]; a disk that is not blank is not touched.
pub(super) fn format(disk: &mut File) -> Result<(), FormatError> {
    let template = template::blocks()?;
    let bytes = disk.seek(SeekFrom::End(0))?;
    if bytes < BLOCKS * BLOCK_BYTES as u64 {
        return Err(FormatError::TooSmall { bytes });
    }
    check_blank(disk, bytes / BLOCK_BYTES as u64, &template)?;
    let (first, others): (Vec<_>, Vec<_>) = template.iter().partition(|block| block.number == 0);
    write(disk, &others)?;
    write(disk, &first)?;
    Ok(())
}

/// Writes blocks and waits until they are on the disk.
fn write(disk: &File, blocks: &[&Block]) -> io::Result<()> {
    for block in blocks {
        disk.write_all_at(&block.bytes, block.number * BLOCK_BYTES as u64)?;
    }
    disk.sync_all()
}

/// Checks that both ends of the disk, and the places of the template's blocks, have nothing but zeros
/// or what an interrupted formatting has written there.
fn check_blank(disk: &mut File, blocks: u64, template: &[Block]) -> Result<(), FormatError> {
    let ends = (0..LOOKED_AT_BLOCKS).chain(blocks - LOOKED_AT_BLOCKS..blocks);
    for number in ends.chain(template.iter().map(|block| block.number)) {
        let mut found = [0; BLOCK_BYTES];
        disk.seek(SeekFrom::Start(number * BLOCK_BYTES as u64))?;
        disk.read_exact(&mut found)?;
        let ours = template.iter().any(|block| block.number == number && block.bytes == found);
        if !ours && found.iter().any(|byte| *byte != 0) {
            return Err(FormatError::NotBlank { block: number });
        }
    }
    Ok(())
}
