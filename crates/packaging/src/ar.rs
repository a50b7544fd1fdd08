//! The container of a `.deb`: the common `ar` format (deb(5), ar(5)).
//!
//! Only what `.deb` files use of it: short names, no symbol table.

use anyhow::{Context, Result, ensure};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;
/// Ends every header.
const HEADER_END: &[u8] = b"`\n";

/// A file in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name, without the padding or the slash that some writers end it with.
    pub name: &'a str,
    /// Its content.
    pub content: &'a [u8],
}

/// Every member, in order.
///
/// # Errors
/// When the bytes are no archive, or end inside one.
pub fn read(archive: &[u8]) -> Result<Vec<Member<'_>>> {
    let mut rest = archive.strip_prefix(MAGIC).context("it is no ar archive")?;
    let mut members = Vec::new();
    while !rest.is_empty() {
        let (member, after) = read_member(rest)?;
        members.push(member);
        rest = after;
    }
    Ok(members)
}

fn read_member(bytes: &[u8]) -> Result<(Member<'_>, &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES).context("a header is cut off")?;
    ensure!(header.ends_with(HEADER_END), "a header has no end mark");
    let field = |range| std::str::from_utf8(&header[range]).context("a header is not ASCII");
    let name = field(0..16)?.trim_end().trim_end_matches('/');
    let size: usize = field(48..58)?.trim_end().parse().context("a member's size is no number")?;
    let (content, rest) =
        rest.split_at_checked(size).with_context(|| format!("the member {name} is cut off"))?;
    // Members begin at even offsets; the last one may lack its padding.
    let rest = if size % 2 == 1 { rest.get(1..).unwrap_or_default() } else { rest };
    Ok((Member { name, content }, rest))
}

/// An archive of these members, root's, with mode 0644 and that time in seconds since 1970.
///
/// # Errors
/// When a name or a number does not fit its field.
pub fn write(members: &[Member<'_>], time_s: u64) -> Result<Vec<u8>> {
    let mut archive = MAGIC.to_vec();
    for Member { name, content } in members {
        let size = content.len();
        let header = format!("{name:<16}{time_s:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, "100644");
        ensure!(header.len() == HEADER_BYTES, "{name} does not fit an ar header");
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        if size % 2 == 1 {
            archive.push(b'\n');
        }
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let members = [
            Member { name: "debian-binary", content: b"2.0\n" },
            Member { name: "odd", content: b"abc" },
            Member { name: "empty", content: b"" },
        ];
        let archive = write(&members, 1).unwrap();
        assert_eq!(read(&archive).unwrap(), members);
    }

    #[test]
    fn every_cut_is_an_error_or_ends_between_members() {
        let members =
            [Member { name: "a", content: b"12345" }, Member { name: "b", content: b"67" }];
        let archive = write(&members, 0).unwrap();
        for length in 0..archive.len() {
            if let Ok(read) = read(&archive[..length]) {
                assert!(members.starts_with(&read), "cut at {length}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |bytes: &[u8]| assert!(read(bytes).is_err(), "{bytes:?}");
        check(b"");
        check(b"!<arch>\nshort");
        let mut archive = write(&[Member { name: "a", content: b"1" }], 0).unwrap();
        archive[8 + 48] = b'x';
        check(&archive);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let member = Member { name: "a-name-of-17-bytes", content: b"" };
        assert!(write(&[member], 0).is_err());
    }
}
