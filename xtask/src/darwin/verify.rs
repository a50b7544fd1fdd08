//! Reads a signature back and believes none of it: every hash is computed again.
//!
//! Written against the format, not against [`super::signature`], so that a mistake there is not
//! repeated here. It accepts what Apple's own tool makes as well, as far as that is ad-hoc and SHA-256.

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::macho::Layout;
use super::signature::{
    FLAG_AD_HOC, HASH_BYTES, MAGIC_CODE_DIRECTORY, MAGIC_ENTITLEMENTS, MAGIC_ENTITLEMENTS_DER,
    MAGIC_SUPER_BLOB, PAGE_BYTES, SLOT_CODE_DIRECTORY, SLOT_ENTITLEMENTS, SLOT_ENTITLEMENTS_DER,
    SLOT_WRAPPER,
};

/// The text of a good signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed {
    /// The program's identifier.
    pub(super) identifier: String,
    /// The code directory's flags.
    pub(super) flags: u32,
    /// The property list, if there is one.
    pub(super) entitlements: Option<Vec<u8>>,
    /// The same in DER.
    pub(super) entitlements_der: Option<Vec<u8>>,
    /// The hashes of all pages, which were computed and found to be those that are signed.
    pub(super) pages: Vec<[u8; HASH_BYTES]>,
}

/// Checks the signature of the executable `file`.
pub(super) fn verify(file: &[u8]) -> Result<Signed> {
    let layout = Layout::of(file)?;
    let (begin, size) = (layout.signature.0 as usize, layout.signature.1 as usize);
    ensure!(begin.checked_add(size) == Some(file.len()), "the signature is not the file's end");
    let (code, signature) = file.split_at(begin);
    let blobs = blobs(signature)?;
    let find = |slot| blobs.iter().find(|(it, _)| *it == slot).map(|(_, blob)| *blob);
    let directory = find(SLOT_CODE_DIRECTORY).context("there is no code directory")?;
    let directory = Directory::parse(directory)?;

    ensure!(directory.code_limit == code.len(), "not all of the code is signed");
    ensure!(directory.text == layout.text, "the code segment is another");
    let pages = directory.check_pages(code)?;
    for (slot, blob) in &blobs {
        if *slot != SLOT_CODE_DIRECTORY && *slot != SLOT_WRAPPER {
            directory.check_special(*slot, blob)?;
        }
    }
    directory.check_absent(|slot| find(slot).is_some())?;
    let content = |slot, magic| {
        let blob = find(slot).map(|blob| content(blob, magic));
        blob.transpose().map(|it| it.map(<[u8]>::to_vec))
    };
    Ok(Signed {
        identifier: directory.identifier.clone(),
        flags: directory.flags,
        entitlements: content(SLOT_ENTITLEMENTS, MAGIC_ENTITLEMENTS)?,
        entitlements_der: content(SLOT_ENTITLEMENTS_DER, MAGIC_ENTITLEMENTS_DER)?,
        pages,
    })
}

/// The blobs of a signature, with their slots.
fn blobs(signature: &[u8]) -> Result<Vec<(u32, &[u8])>> {
    ensure!(u32_at(signature, 0)? == MAGIC_SUPER_BLOB, "not a signature");
    let length = u32_at(signature, 4)? as usize;
    let signature = signature.get(..length).context("the signature is cut")?;
    let count = u32_at(signature, 8)? as usize;
    let mut blobs = Vec::new();
    let mut free_from = 12 + 8 * count;
    for index in 0..count {
        let slot = u32_at(signature, 12 + 8 * index)?;
        let offset = u32_at(signature, 16 + 8 * index)? as usize;
        ensure!(offset == free_from, "blobs overlap, or there is something between them");
        let length = u32_at(signature, offset + 4)? as usize;
        free_from = offset.checked_add(length).context("a blob is too long")?;
        blobs.push((slot, signature.get(offset..free_from).context("a blob is cut")?));
    }
    ensure!(free_from == length, "something follows the last blob");
    Ok(blobs)
}

/// The content of a blob of that kind.
fn content(blob: &[u8], magic: u32) -> Result<&[u8]> {
    ensure!(u32_at(blob, 0)? == magic, "a blob is not what its slot says");
    blob.get(8..).context("a blob is cut")
}

/// A parsed code directory.
struct Directory<'a> {
    flags: u32,
    identifier: String,
    code_limit: usize,
    text: (u64, u64),
    /// Hashes of the other blobs: that of slot 1 is the last.
    special: Vec<&'a [u8]>,
    pages: Vec<&'a [u8]>,
}

impl<'a> Directory<'a> {
    fn parse(blob: &'a [u8]) -> Result<Self> {
        ensure!(u32_at(blob, 0)? == MAGIC_CODE_DIRECTORY, "the first blob is no code directory");
        ensure!(u32_at(blob, 8)? >= 0x2_0400, "a code directory without an executable segment");
        let [hash_offset, identifier_offset, special, pages, code_limit] =
            [16, 20, 24, 28, 32].map(|at| u32_at(blob, at).map(|number| number as usize));
        let (hash_offset, special) = (hash_offset?, special?);
        let kinds = blob.get(36..40).context("the code directory is cut")?;
        ensure!(kinds == [32, 2, 0, 12], "not SHA-256 of pages of 4096 bytes: {kinds:?}");
        let flags = u32_at(blob, 12)?;
        ensure!(flags & FLAG_AD_HOC != 0, "not an ad-hoc signature");
        let name = blob.get(identifier_offset?..).context("the code directory is cut")?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let hashes_begin = hash_offset.checked_sub(special * HASH_BYTES);
        let hashes_begin = hashes_begin.context("hashes before the code directory")?;
        let hashes_end = hash_offset + pages? * HASH_BYTES;
        ensure!(hashes_end == blob.len(), "the code directory does not end with its hashes");
        let hashes = |range| -> Result<Vec<&[u8]>> {
            let bytes: &[u8] = blob.get(range).context("the code directory is cut")?;
            Ok(bytes.chunks(HASH_BYTES).collect())
        };
        Ok(Self {
            flags,
            identifier: String::from_utf8(name.to_vec())?,
            code_limit: code_limit?,
            text: (u64_at(blob, 64)?, u64_at(blob, 72)?),
            special: hashes(hashes_begin..hash_offset)?,
            pages: hashes(hash_offset..hashes_end)?,
        })
    }

    fn check_pages(&self, code: &[u8]) -> Result<Vec<[u8; HASH_BYTES]>> {
        let pages = code.chunks(PAGE_BYTES);
        ensure!(pages.len() == self.pages.len(), "{} pages are signed", self.pages.len());
        let check = |(number, (page, signed)): (usize, (&[u8], &&[u8]))| {
            let hash: [u8; HASH_BYTES] = Sha256::digest(page).into();
            ensure!(hash == **signed, "page {number} was changed");
            Ok(hash)
        };
        pages.zip(&self.pages).enumerate().map(check).collect()
    }

    fn check_special(&self, slot: u32, blob: &[u8]) -> Result<()> {
        let index = self.special.len().checked_sub(slot as usize);
        let Some(hash) = index.and_then(|index| self.special.get(index)) else {
            bail!("the blob in slot {slot} is not signed");
        };
        ensure!(Sha256::digest(blob).as_slice() == *hash, "the blob in slot {slot} was changed");
        Ok(())
    }

    /// A hash of something that is not there would be of a file beside the program.
    fn check_absent(&self, is_there: impl Fn(u32) -> bool) -> Result<()> {
        for (slot, hash) in (1..).zip(self.special.iter().rev()) {
            let is_zero = hash.iter().all(|byte| *byte == 0);
            ensure!(is_zero || is_there(slot), "the hash in slot {slot} is of nothing");
        }
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).context("the signature is cut")?;
    Ok(u32::from_be_bytes(bytes.try_into()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let bytes = bytes.get(at..at + 8).context("the signature is cut")?;
    Ok(u64::from_be_bytes(bytes.try_into()?))
}
