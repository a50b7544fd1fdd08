//! Reads single structures of an image, within bounds.

use std::mem::size_of;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::super::format::{Dirent, NAME_LEN, XattrEntry};
use super::tree::{ReadError, Xattr};

/// The attribute at the start of `bytes`, and how many bytes it takes.
pub(super) fn xattr(bytes: &[u8], nid: u64) -> Result<(Xattr<'_>, usize), ReadError> {
    let truncated = malformed("an extended attribute is cut off", nid);
    let (entry, rest) = XattrEntry::ref_from_prefix(bytes).map_err(|_| truncated)?;
    if entry.e_name_index != XattrEntry::INDEX_TRUSTED {
        return Err(ReadError::Unsupported { what: "the class of an attribute", nid });
    }
    let (name, rest) = rest.split_at_checked(entry.e_name_len.into()).ok_or(truncated)?;
    let value = rest.get(..entry.e_value_size.get().into()).ok_or(truncated)?;
    let taken = (size_of::<XattrEntry>() + name.len() + value.len()).next_multiple_of(4);
    Ok((Xattr { name, value }, taken))
}

/// The entries of one block of a directory.
pub(super) fn dirents(
    block: &[u8],
    nid: u64,
) -> Result<impl Iterator<Item = Result<(&[u8], &Dirent), ReadError>>, ReadError> {
    let wrong = malformed("a block of entries is malformed", nid);
    let (first, _) = Dirent::ref_from_prefix(block).map_err(|_| wrong)?;
    let heads = usize::from(first.nameoff.get());
    if heads == 0 || !heads.is_multiple_of(size_of::<Dirent>()) {
        return Err(wrong);
    }
    let heads = <[Dirent]>::ref_from_prefix_with_elems(block, heads / size_of::<Dirent>());
    let (heads, _) = heads.map_err(|_| wrong)?;
    Ok(heads.iter().enumerate().map(move |(index, head)| {
        let start = usize::from(head.nameoff.get());
        let name = match heads.get(index + 1) {
            Some(next) => block.get(start..next.nameoff.get().into()),
            // The last name of a block ends at a NUL or with the block.
            None => {
                block.get(start..).map(|name| name.split(|byte| *byte == 0).next().unwrap_or(name))
            }
        };
        match name {
            Some(name) if is_name(name) => Ok((name, head)),
            _ => Err(malformed("a name is malformed", nid)),
        }
    }))
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_LEN && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

pub(super) const fn malformed(what: &'static str, nid: u64) -> ReadError {
    ReadError::Malformed { what, nid }
}

pub(super) fn slice<'a>(
    image: &'a [u8],
    offset: u64,
    length: u64,
    what: &'static str,
) -> Result<&'a [u8], ReadError> {
    let outside = ReadError::Outside { what, offset };
    let start = usize::try_from(offset).map_err(|_| outside)?;
    let length = usize::try_from(length).map_err(|_| outside)?;
    let end = start.checked_add(length).ok_or(outside)?;
    image.get(start..end).ok_or(outside)
}

pub(super) fn structure<'a, T: FromBytes + Immutable + KnownLayout + Unaligned>(
    image: &'a [u8],
    offset: u64,
    what: &'static str,
) -> Result<&'a T, ReadError> {
    let outside = ReadError::Outside { what, offset };
    T::ref_from_bytes(slice(image, offset, size_of::<T>() as u64, what)?).map_err(|_| outside)
}
