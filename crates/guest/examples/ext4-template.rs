//! Makes `src/disk/template.zst`, with `mkfs.ext4` of e2fsprogs 1.47:
//!
//! `cargo run -p guest --example ext4-template -- crates/guest/src/disk/template.zst`
//!
//! Its parameters: blocks of 4 KiB, since smaller ones stop its growth at 16 GiB; an inode for each
//! 8 KiB, because a store has many small files; a journal of 64 MiB, so that a thousand new blobs fit
//! into one transaction; no reserve for root, the only user; no times and no random identifiers, so
//! that the same program makes the same file.

use std::fs;
use std::io;
use std::process::Command;

const BLOCK_BYTES: usize = 4096;
const BYTES: u64 = 256 << 20;
const UUID: &str = "00000000-0000-4000-8000-00000000ac7d";

fn main() -> io::Result<()> {
    let output = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("no output file"))?;
    let image = tempfile::NamedTempFile::new()?;
    image.as_file().set_len(BYTES)?;
    let made = Command::new("mkfs.ext4")
        .env("E2FSPROGS_FAKE_TIME", "1")
        .args(["-q", "-F", "-b", "4096", "-I", "256", "-i", "8192", "-m", "0", "-J", "size=64"])
        .args(["-L", "actiond-cas", "-U", UUID, "-E"])
        .arg(format!("hash_seed={UUID},lazy_itable_init=1,lazy_journal_init=1,nodiscard"))
        .arg(image.path())
        .status()?;
    if !made.success() {
        return Err(io::Error::other(format!("mkfs.ext4: {made}")));
    }
    let image = fs::read(image.path())?;
    let mut packed = Vec::new();
    for (number, block) in image.chunks(BLOCK_BYTES).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            packed.extend_from_slice(&(number as u64).to_le_bytes());
            packed.extend_from_slice(block);
        }
    }
    fs::write(output, zstd::bulk::compress(&packed, 19)?)
}
