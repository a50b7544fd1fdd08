//! The position of a payload in an executable.

use std::fs::File;
use std::path::{Path, PathBuf};

use object::{BinaryFormat, Object, ObjectSection, ReadCache};

use crate::{MACHO_SEGMENT, Payload};

/// A part of a file, which lies within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Its offset in bytes from the beginning of the file.
    pub offset: u64,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// Errors of searching an executable.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The file can't be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// It is no executable, or a damaged one.
    #[error("{}: not an executable that can be read", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The problem with it.
        source: object::Error,
    },
    /// The section is said to lie where the file has ended, or to have no bytes in the file at all.
    #[error("{}: the section of {payload:?} is not in the file", path.display())]
    Outside {
        /// The file.
        path: PathBuf,
        /// The wanted payload.
        payload: Payload,
    },
}

/// Finds a payload in the executable at `path`; `None` when that carries none. Only the tables of
/// the executable are read.
///
/// # Errors
/// See [`FindError`].
pub fn find(path: &Path, payload: Payload) -> Result<Option<Section>, FindError> {
    let read_error = |source| FindError::Read { path: path.to_owned(), source };
    let malformed = |source| FindError::Malformed { path: path.to_owned(), source };
    let file = File::open(path).map_err(read_error)?;
    let file_bytes = file.metadata().map_err(read_error)?.len();
    let cache = ReadCache::new(file);
    let executable = object::File::parse(&cache).map_err(malformed)?;
    let format = executable.format();
    for section in executable.sections() {
        if !is_named(format, &section, payload).map_err(malformed)? {
            continue;
        }
        let outside = || FindError::Outside { path: path.to_owned(), payload };
        let (offset, size_bytes) = section.file_range().ok_or_else(outside)?;
        let end = offset.checked_add(size_bytes).ok_or_else(outside)?;
        if end > file_bytes || size_bytes == 0 {
            return Err(outside());
        }
        return Ok(Some(Section { offset, size_bytes }));
    }
    Ok(None)
}

fn is_named<'data>(
    format: BinaryFormat,
    section: &impl ObjectSection<'data>,
    payload: Payload,
) -> Result<bool, object::Error> {
    let name = section.name_bytes()?;
    if format == BinaryFormat::MachO {
        let segment = section.segment_name_bytes()?;
        let is_ours = segment == Some(MACHO_SEGMENT.as_bytes());
        return Ok(is_ours && name == payload.macho_section().as_bytes());
    }
    Ok(name == payload.elf_section().as_bytes())
}
