//! Sections that are added to executables, and what executables need of a system.
//!
//! Adding only appends: the file as it was, then the section's content, the names of all sections
//! and their table, which the header at the beginning is made to point to. Nothing that a loader
//! looks at moves, so it is right for every processor without knowing any.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use object::{Object as _, ObjectSection as _};

use crate::closure;

/// Content begins at a multiple of this, so that it could be mapped where it lies.
const ALIGNMENT: usize = 4096;

/// Offsets in the file header and in a section header of 64-bit ELF (elf(5)).
mod at {
    pub(super) const TABLE_OFFSET: usize = 0x28;
    pub(super) const ENTRY_BYTES: usize = 0x3a;
    pub(super) const ENTRIES: usize = 0x3c;
    pub(super) const NAMES_INDEX: usize = 0x3e;
    pub(super) const SECTION_OFFSET: usize = 0x18;
    pub(super) const SECTION_BYTES: usize = 0x20;
}

const SECTION_HEADER_BYTES: usize = 64;
/// `SHT_PROGBITS`: bytes that mean something to the program alone.
const PROGBITS: u32 = 1;

/// The executable with one more section, which is not loaded.
///
/// # Errors
/// When it is no 64-bit little-endian ELF file, is damaged, or has a section of that name.
pub fn add_section(executable: &[u8], name: &str, content: &[u8]) -> Result<Vec<u8>> {
    let file = object::File::parse(executable)?;
    ensure!(file.format() == object::BinaryFormat::Elf, "it is no ELF file");
    ensure!(file.is_64() && file.is_little_endian(), "it is not 64-bit, little-endian");
    ensure!(file.section_by_name(name).is_none(), "it has a section {name} already");
    let table = number(executable, at::TABLE_OFFSET, 8)?;
    let entries = number(executable, at::ENTRIES, 2)?;
    let names_index = number(executable, at::NAMES_INDEX, 2)?;
    ensure!(number(executable, at::ENTRY_BYTES, 2)? == SECTION_HEADER_BYTES, "a strange table");
    // More sections than the header can count are counted elsewhere, and ours have some thirty.
    ensure!(entries > names_index && entries < 0xff00, "a strange number of sections");
    let headers = slice(executable, table, entries * SECTION_HEADER_BYTES)?;
    let names_header = names_index * SECTION_HEADER_BYTES;
    let names = slice(
        executable,
        number(headers, names_header + at::SECTION_OFFSET, 8)?,
        number(headers, names_header + at::SECTION_BYTES, 8)?,
    )?;

    let mut bytes = executable.to_vec();
    let content_offset = append(&mut bytes, ALIGNMENT, content);
    let new_names = [names, name.as_bytes(), b"\0"].concat();
    let names_offset = append(&mut bytes, 1, &new_names);
    let mut new_headers = headers.to_vec();
    put(&mut new_headers, names_header + at::SECTION_OFFSET, names_offset as u64);
    put(&mut new_headers, names_header + at::SECTION_BYTES, new_names.len() as u64);
    new_headers.extend(section_header(names.len(), content_offset, content.len())?);
    let table = append(&mut bytes, 8, &new_headers);
    put(&mut bytes, at::TABLE_OFFSET, table as u64);
    let entries = u16::try_from(entries + 1)?;
    bytes[at::ENTRIES..at::ENTRIES + 2].copy_from_slice(&entries.to_le_bytes());
    Ok(bytes)
}

fn section_header(name: usize, offset: usize, size: usize) -> Result<[u8; SECTION_HEADER_BYTES]> {
    let mut header = [0; SECTION_HEADER_BYTES];
    header[..4].copy_from_slice(&u32::try_from(name)?.to_le_bytes());
    header[4..8].copy_from_slice(&PROGBITS.to_le_bytes());
    put(&mut header, at::SECTION_OFFSET, offset as u64);
    put(&mut header, at::SECTION_BYTES, size as u64);
    put(&mut header, 0x30, ALIGNMENT as u64);
    Ok(header)
}

/// Appends at the next multiple of `alignment`, and says where that was.
fn append(bytes: &mut Vec<u8>, alignment: usize, content: &[u8]) -> usize {
    let offset = bytes.len().next_multiple_of(alignment);
    bytes.resize(offset, 0);
    bytes.extend_from_slice(content);
    offset
}

/// A little-endian number of that many bytes.
fn number(bytes: &[u8], offset: usize, width: usize) -> Result<usize> {
    let mut number = [0; 8];
    number[..width].copy_from_slice(slice(bytes, offset, width)?);
    Ok(usize::try_from(u64::from_le_bytes(number))?)
}

fn put(bytes: &mut [u8], offset: usize, number: u64) {
    bytes[offset..offset + 8].copy_from_slice(&number.to_le_bytes());
}

fn slice(bytes: &[u8], offset: usize, length: usize) -> Result<&[u8]> {
    let end = offset.checked_add(length).context("a strange offset")?;
    bytes.get(offset..end).context("it is cut off")
}

/// The Debian packages that an executable needs, as in `Depends`.
///
/// # Errors
/// When it needs a library that none of the known packages has.
pub fn debian_dependencies(executable: &[u8]) -> Result<String> {
    let file = object::File::parse(executable)?;
    let mut packages = BTreeSet::new();
    let needs = closure::needs(executable).map_err(anyhow::Error::msg)?;
    for library in needs.libraries {
        packages.insert(match library.split_once(".so").map(|(name, _)| name) {
            Some(
                "libc" | "libm" | "libdl" | "libpthread" | "librt" | "ld-linux-x86-64"
                | "ld-linux-aarch64",
            ) => format!("libc6 (>= {})", glibc_version(&file)?),
            Some("libgcc_s") => "libgcc-s1".to_owned(),
            _ => bail!("no package is known for {library}, which the executable needs"),
        });
    }
    Ok(packages.into_iter().collect::<Vec<_>>().join(", "))
}

/// The newest version of glibc that a symbol of the executable asks for.
fn glibc_version(file: &object::File<'_>) -> Result<String> {
    let strings = file.section_by_name(".dynstr").context("no strings of dynamic symbols")?;
    let strings = strings.data()?;
    let versions = strings.split(|byte| *byte == 0).filter_map(|text| {
        let version = std::str::from_utf8(text).ok()?.strip_prefix("GLIBC_")?;
        let (major, minor) = version.split_once('.')?;
        let minor = minor.split('.').next()?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    let (major, minor) = versions.max().context("no version of glibc is asked for")?;
    Ok(format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    fn own() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn an_executable_with_a_section_still_runs() {
        let bytes = add_section(&own(), ".actiond.test", b"content").unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let section = file.section_by_name(".actiond.test").unwrap();
        assert_eq!(section.data().unwrap(), b"content");
        assert_eq!(section.file_range().unwrap().0 % ALIGNMENT as u64, 0);
        let names = |bytes: &[u8]| -> Vec<String> {
            let file = object::File::parse(bytes).unwrap();
            file.sections().map(|section| section.name().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&bytes), [names(&own()), vec![".actiond.test".to_owned()]].concat());

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, &bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new(&path).arg("--list").output().unwrap().status.success());
    }

    #[test]
    fn a_section_is_added_once() {
        let bytes = add_section(&own(), ".actiond.test", b"content").unwrap();
        assert!(add_section(&bytes, ".actiond.test", b"other").is_err());
        assert!(add_section(&bytes, ".actiond.more", b"other").is_ok());
    }

    #[test]
    fn what_is_no_executable_is_refused() {
        let whole = own();
        for bytes in [&b""[..], b"#!/bin/sh", &whole[..64], &whole[..whole.len() / 2]] {
            assert!(add_section(bytes, ".actiond.test", b"content").is_err());
        }
    }

    #[test]
    fn dependencies_are_read_from_the_executable() {
        let dependencies = debian_dependencies(&own()).unwrap();
        assert!(dependencies.contains("libc6 (>= 2."), "{dependencies}");
    }
}
