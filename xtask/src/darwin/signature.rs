//! An ad-hoc signature: what macOS on Apple silicon wants of every program, with entitlements.
//!
//! It names nobody; it says which bytes belong to the program and what that asks the system for. A
//! signature is a list of blobs, each with a magic number and its length in front, all numbers big
//! endian (`osfmk/kern/cs_blobs.h` in Apple's XNU):
//!
//! ```text
//! SuperBlob ─┬─ CodeDirectory: a hash of each page of the file up to the signature, and of
//!            │                 the other blobs
//!            ├─ Requirements: none
//!            ├─ Entitlements: a property list      ┐ the same
//!            ├─ Entitlements: DER                  ┘ in two forms
//!            └─ CMS wrapper: empty, which makes the signature ad-hoc
//! ```

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

use super::entitlements::Entitlements;
use super::macho::Layout;

pub(super) const MAGIC_SUPER_BLOB: u32 = 0xfade_0cc0;
pub(super) const MAGIC_CODE_DIRECTORY: u32 = 0xfade_0c02;
pub(super) const MAGIC_REQUIREMENTS: u32 = 0xfade_0c01;
pub(super) const MAGIC_ENTITLEMENTS: u32 = 0xfade_7171;
pub(super) const MAGIC_ENTITLEMENTS_DER: u32 = 0xfade_7172;
pub(super) const MAGIC_WRAPPER: u32 = 0xfade_0b01;

/// The place of a blob; the code directory's hashes of blobs are in this order, backwards.
pub(super) const SLOT_CODE_DIRECTORY: u32 = 0;
pub(super) const SLOT_REQUIREMENTS: u32 = 2;
pub(super) const SLOT_ENTITLEMENTS: u32 = 5;
pub(super) const SLOT_ENTITLEMENTS_DER: u32 = 7;
pub(super) const SLOT_WRAPPER: u32 = 0x1_0000;

pub(super) const HASH_BYTES: usize = 32;
pub(super) const PAGE_BYTES: usize = 4096;
const PAGE_BITS: u8 = 12;
const HASH_TYPE_SHA256: u8 = 2;
pub(super) const FLAG_AD_HOC: u32 = 0x2;
/// The version that has the extent of the code segment, which arm64 wants.
const VERSION: u32 = 0x2_0400;
const HEADER_BYTES: u32 = 88;
const EXECUTABLE_SEGMENT_MAIN_BINARY: u64 = 1;

/// Signatures begin and end at multiples of this.
const ALIGNMENT: usize = 16;

/// Signs the file for `identifier`, in the place of the signature that the linker has left.
pub(super) fn sign(
    file: &mut Vec<u8>,
    identifier: &str,
    entitlements: &Entitlements,
) -> Result<()> {
    let layout = Layout::of(file)?;
    let begin = layout.signature.0 as usize;
    ensure!(begin.is_multiple_of(ALIGNMENT), "the signature's place is not aligned");
    ensure!(begin <= file.len(), "the signature's place is outside of the file");
    file.truncate(begin);
    // The load commands are hashed too, so they must have the size before it is known exactly; it
    // depends on nothing but lengths.
    let blobs = blobs(entitlements)?;
    let size = signature(file, &layout, identifier, &blobs)?.len();
    layout.set_signature_size(file, u32::try_from(size)?)?;
    let signature = signature(file, &layout, identifier, &blobs)?;
    ensure!(signature.len() == size, "the signature changed its size");
    file.extend(signature);
    Ok(())
}

/// A blob and its place.
struct Slot {
    slot: u32,
    blob: Vec<u8>,
}

/// The blobs that the code directory has hashes of.
fn blobs(entitlements: &Entitlements) -> Result<Vec<Slot>> {
    let slot = |slot, magic, content: &[u8]| -> Result<Slot> {
        Ok(Slot { slot, blob: blob(magic, content)? })
    };
    let no_requirements = 0_u32.to_be_bytes();
    Ok(vec![
        slot(SLOT_REQUIREMENTS, MAGIC_REQUIREMENTS, &no_requirements)?,
        slot(SLOT_ENTITLEMENTS, MAGIC_ENTITLEMENTS, entitlements.property_list())?,
        slot(SLOT_ENTITLEMENTS_DER, MAGIC_ENTITLEMENTS_DER, &entitlements.der()?)?,
    ])
}

/// Magic number, length, content.
fn blob(magic: u32, content: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(content.len() + 8).context("a blob is too long")?;
    Ok([&magic.to_be_bytes(), &length.to_be_bytes(), content].concat())
}

/// The whole signature of `code`, the file up to there.
fn signature(code: &[u8], layout: &Layout, identifier: &str, blobs: &[Slot]) -> Result<Vec<u8>> {
    let directory = code_directory(code, layout, identifier, blobs)?;
    let wrapper = blob(MAGIC_WRAPPER, &[])?;
    let first = (SLOT_CODE_DIRECTORY, directory.as_slice());
    let last = (SLOT_WRAPPER, wrapper.as_slice());
    let middle = blobs.iter().map(|slot| (slot.slot, slot.blob.as_slice()));
    let all: Vec<_> = std::iter::once(first).chain(middle).chain([last]).collect();

    let mut index = Vec::new();
    index.extend(u32::try_from(all.len())?.to_be_bytes());
    // From the beginning of the super blob: its magic, its length, the count, the index.
    let mut offset = 12 + 8 * all.len();
    for (slot, blob) in &all {
        index.extend(slot.to_be_bytes());
        index.extend(u32::try_from(offset)?.to_be_bytes());
        offset += blob.len();
    }
    let content = all.iter().fold(index, |content, (_, blob)| [&content, *blob].concat());
    let mut signature = blob(MAGIC_SUPER_BLOB, &content)?;
    signature.resize(signature.len().next_multiple_of(ALIGNMENT), 0);
    Ok(signature)
}

fn code_directory(
    code: &[u8],
    layout: &Layout,
    identifier: &str,
    blobs: &[Slot],
) -> Result<Vec<u8>> {
    let special_slots = blobs.iter().map(|slot| slot.slot).max().unwrap_or(0);
    let pages = code.chunks(PAGE_BYTES);
    let identifier_offset = HEADER_BYTES;
    let hashes_begin = identifier_offset + u32::try_from(identifier.len() + 1)?;
    let hash_offset = hashes_begin + special_slots * u32::try_from(HASH_BYTES)?;

    // Everything after magic and length, which `blob` puts in front.
    let mut content = Vec::new();
    for number in [
        VERSION,
        FLAG_AD_HOC,
        hash_offset,
        identifier_offset,
        special_slots,
        u32::try_from(pages.len())?,
        u32::try_from(code.len()).context("code beyond 4 GiB")?,
    ] {
        content.extend(number.to_be_bytes());
    }
    content.extend([u8::try_from(HASH_BYTES)?, HASH_TYPE_SHA256, 0, PAGE_BITS]);
    // Nothing of: reserved, scatter list, team, reserved.
    content.extend([0; 16]);
    // The code's length again, for lengths that need 64 bits.
    content.extend(0_u64.to_be_bytes());
    for number in [layout.text.0, layout.text.1, EXECUTABLE_SEGMENT_MAIN_BINARY] {
        content.extend(number.to_be_bytes());
    }
    content.extend(identifier.as_bytes());
    content.push(0);
    for slot in (1..=special_slots).rev() {
        let found = blobs.iter().find(|it| it.slot == slot);
        content.extend(found.map_or([0; HASH_BYTES], |it| Sha256::digest(&it.blob).into()));
    }
    pages.for_each(|page| content.extend(Sha256::digest(page)));
    blob(MAGIC_CODE_DIRECTORY, &content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::darwin::macho;
    use crate::darwin::verify::{Signed, verify};

    fn entitlements() -> Entitlements {
        Entitlements::parse("<dict><key>com.example.a</key><true/></dict>").unwrap()
    }

    fn signed() -> Vec<u8> {
        let mut file = macho::example();
        sign(&mut file, "com.example.program", &entitlements()).unwrap();
        file
    }

    #[test]
    fn what_is_signed_verifies() {
        let file = signed();
        let code = &file[..Layout::of(&file).unwrap().signature.0 as usize];
        let expected = Signed {
            identifier: "com.example.program".to_owned(),
            flags: FLAG_AD_HOC,
            entitlements: Some(entitlements().property_list().to_vec()),
            entitlements_der: Some(entitlements().der().unwrap()),
            pages: code.chunks(PAGE_BYTES).map(|page| Sha256::digest(page).into()).collect(),
        };
        assert_eq!(verify(&file).unwrap(), expected);
    }

    #[test]
    fn signing_twice_is_signing_once() {
        let mut again = signed();
        sign(&mut again, "com.example.program", &entitlements()).unwrap();
        assert_eq!(again, signed());
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let good = signed();
        for at in (0..good.len()).step_by(61) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            // The padding after the last blob belongs to none of them.
            let padding = good.len() - at <= ALIGNMENT;
            assert!(padding || verify(&bad).is_err() || is_loose(&good, at), "byte {at}");
        }
        assert!(verify(&good[..good.len() - ALIGNMENT]).is_err());
    }

    /// Bytes inside of the code directory that no hash is about: an ad-hoc signature has nobody who
    /// vouches for the directory itself.
    fn is_loose(file: &[u8], at: usize) -> bool {
        let (begin, _) = Layout::of(file).unwrap().signature;
        let directory = begin as usize + 12 + 8 * 5;
        (directory..directory + HEADER_BYTES as usize + 20).contains(&at)
    }
}
