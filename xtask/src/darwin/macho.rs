//! As much of Mach-O as signing needs: where the signature is, and what says how long it is.
//!
//! A 64-bit file begins with a header of 32 bytes, of which the fifth number is how many load
//! commands follow. Each of these begins with its kind and its length. All numbers are little
//! endian (`mach-o/loader.h`).

use anyhow::{Context, Result, ensure};

const MAGIC_64: u32 = 0xfeed_facf;
const HEADER_BYTES: usize = 32;
const LC_SEGMENT_64: u32 = 0x19;
const LC_CODE_SIGNATURE: u32 = 0x1d;

/// Pages of arm64 macOS, to which the size of a segment in memory is rounded.
const PAGE_BYTES: u64 = 16 << 10;

/// The offsets in an executable that has room for a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The code: offset and size in the file.
    pub(super) text: (u64, u64),
    /// The signature: offset and size in the file. It is the last thing there.
    pub(super) signature: (u32, u32),
    /// The offset of the signature's load command.
    signature_command: usize,
    /// The offset of the load command of the segment that holds the signature.
    linkedit_command: usize,
}

impl Layout {
    /// Reads the load commands.
    pub(super) fn of(file: &[u8]) -> Result<Self> {
        ensure!(u32_at(file, 0)? == MAGIC_64, "not a 64-bit Mach-O file");
        let commands = u32_at(file, 16)?;
        let (mut text, mut signature, mut linkedit) = (None, None, None);
        let mut at = HEADER_BYTES;
        for _ in 0..commands {
            match u32_at(file, at)? {
                LC_CODE_SIGNATURE => signature = Some(at),
                LC_SEGMENT_64 if name_at(file, at)? == b"__TEXT" => text = Some(at),
                LC_SEGMENT_64 if name_at(file, at)? == b"__LINKEDIT" => linkedit = Some(at),
                _ => {}
            }
            let length = u32_at(file, at + 4)? as usize;
            ensure!(length >= 8, "a load command of {length} bytes");
            at += length;
        }
        let text = text.context("there is no segment __TEXT")?;
        let signature = signature.context("there is no LC_CODE_SIGNATURE")?;
        Ok(Self {
            text: (u64_at(file, text + 40)?, u64_at(file, text + 48)?),
            signature: (u32_at(file, signature + 8)?, u32_at(file, signature + 12)?),
            signature_command: signature,
            linkedit_command: linkedit.context("there is no segment __LINKEDIT")?,
        })
    }

    /// Tells the load commands of a signature of `bytes` bytes, at the old one's place.
    pub(super) fn set_signature_size(&self, file: &mut [u8], bytes: u32) -> Result<()> {
        let begin = u64_at(file, self.linkedit_command + 40)?;
        let end = u64::from(self.signature.0) + u64::from(bytes);
        let in_file = end.checked_sub(begin).context("the signature is not in __LINKEDIT")?;
        put(file, self.signature_command + 12, &bytes.to_le_bytes())?;
        put(file, self.linkedit_command + 48, &in_file.to_le_bytes())?;
        let in_memory = in_file.next_multiple_of(PAGE_BYTES);
        put(file, self.linkedit_command + 32, &in_memory.to_le_bytes())
    }
}

/// The name of the segment whose load command is at `at`, without its padding.
fn name_at(file: &[u8], at: usize) -> Result<&[u8]> {
    let name = file.get(at + 8..at + 24).context("a load command ends early")?;
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(&name[..length])
}

fn u32_at(file: &[u8], at: usize) -> Result<u32> {
    let bytes = file.get(at..at + 4).context("the file ends early")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

fn u64_at(file: &[u8], at: usize) -> Result<u64> {
    let bytes = file.get(at..at + 8).context("the file ends early")?;
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) -> Result<()> {
    let place = file.get_mut(at..at + bytes.len()).context("the file ends early")?;
    place.copy_from_slice(bytes);
    Ok(())
}

/// A file of nothing but what signing looks at: for tests of this and of signing.
#[cfg(test)]
pub(super) fn example() -> Vec<u8> {
    let segment = |name: &[u8], offset: u64, size: u64| {
        let mut command = vec![0; 72];
        command[..8].copy_from_slice(&[0x19, 0, 0, 0, 72, 0, 0, 0]);
        command[8..8 + name.len()].copy_from_slice(name);
        command[40..48].copy_from_slice(&offset.to_le_bytes());
        command[48..56].copy_from_slice(&size.to_le_bytes());
        command
    };
    let signature_offset = 9000_u32.next_multiple_of(16);
    let mut file = vec![0; HEADER_BYTES];
    file[..4].copy_from_slice(&MAGIC_64.to_le_bytes());
    file[16..20].copy_from_slice(&3_u32.to_le_bytes());
    file.extend(segment(b"__TEXT", 0, 8192));
    file.extend(segment(b"__LINKEDIT", 8192, u64::from(signature_offset) - 8192 + 64));
    for number in [LC_CODE_SIGNATURE, 16, signature_offset, 64] {
        file.extend(number.to_le_bytes());
    }
    let filler = (0..=u8::MAX).cycle().take(signature_offset as usize + 64 - file.len());
    file.extend(filler.collect::<Vec<_>>());
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_read_and_changed() {
        let mut file = example();
        let layout = Layout::of(&file).unwrap();
        assert_eq!(layout.text, (0, 8192));
        assert_eq!(layout.signature, (9008, 64));
        layout.set_signature_size(&mut file, 1000).unwrap();
        assert_eq!(Layout::of(&file).unwrap().signature, (9008, 1000));
        assert_eq!(u64_at(&file, layout.linkedit_command + 48).unwrap(), 9008 - 8192 + 1000);
        assert_eq!(u64_at(&file, layout.linkedit_command + 32).unwrap(), PAGE_BYTES);
    }

    #[test]
    fn what_is_cut_or_none_is_an_error() {
        let file = example();
        for end in [0, 3, 31, 40, 100, 150] {
            assert!(Layout::of(&file[..end]).is_err(), "{end}");
        }
        assert!(Layout::of(b"\x7fELF and more of that, until there is enough").is_err());
        let mut endless = example();
        endless[HEADER_BYTES + 4..HEADER_BYTES + 8].fill(0);
        assert!(Layout::of(&endless).is_err());
    }
}
