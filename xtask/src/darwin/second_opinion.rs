//! Another's reader of Mach-O files and signatures: the crate `macho-codesign`.
//!
//! It computes no hashes; that [`verify`](super::verify) does, and on demand [`rcodesign`](super::rcodesign).

use anyhow::{Context, Result, ensure};
use macho_codesign::{CodeDirectory, HashType, parse_code_signature};
use macho_core::format::macho::parse_macho_file;

use super::entitlements::Entitlements;
use super::payloads::{Payloads, SEGMENT};
use super::signature::{FLAG_AD_HOC, HASH_BYTES, PAGE_BYTES};
use super::verify::Signed;

/// Has it find the payloads in the executable `file`, the entitlements in both of their forms, and
/// what we say of the signature.
pub(super) fn check(
    file: &[u8],
    payloads: &Payloads,
    signed: &Signed,
    entitlements: &Entitlements,
) -> Result<()> {
    let executable = parse_macho_file(file)?;
    for (section, content) in payloads.sections() {
        let found = executable.section_bytes(SEGMENT, &section);
        let found = found.with_context(|| format!("it finds no {SEGMENT},{section}"))?;
        ensure!(found == content, "it finds something else in {SEGMENT},{section}");
    }
    let signature = parse_code_signature(&executable)?;
    let [directory] = signature.code_directories() else {
        anyhow::bail!("it finds {} code directories", signature.code_directories().len());
    };
    check_directory(directory, signed)?;
    ensure!(!signature.cms_signature_present(), "it finds a certificate");
    let list = signature.entitlements_xml().map(str::as_bytes);
    ensure!(list == Some(entitlements.property_list()), "it reads other entitlements");
    // With the eight bytes before it, or without.
    let der = signature.entitlements_der().context("it reads no entitlements in DER")?;
    ensure!(der.ends_with(&entitlements.der()?), "it reads other entitlements in DER");
    Ok(())
}

fn check_directory(directory: &CodeDirectory<'_>, signed: &Signed) -> Result<()> {
    ensure!(directory.identifier == Some(&signed.identifier), "it reads another identifier");
    ensure!(directory.flags == signed.flags, "it reads other flags");
    ensure!(directory.flags & FLAG_AD_HOC != 0, "it sees no ad-hoc signature");
    ensure!(directory.hash_type == HashType::Sha256, "it sees no SHA-256");
    let sizes = (usize::from(directory.hash_size), 1_usize << directory.page_size);
    ensure!(sizes == (HASH_BYTES, PAGE_BYTES), "it sees hashes and pages of {sizes:?} bytes");
    let pages = usize::try_from(directory.n_code_slots)?;
    ensure!(pages == signed.pages.len(), "it sees {pages} pages");
    Ok(())
}
