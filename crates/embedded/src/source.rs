//! The source of a payload, and its bytes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use crate::find::Section;
use crate::inflate::{Frames, is_zstd};

/// Bytes that are read, hashed and written at a time.
pub(crate) const PORTION_BYTES: usize = 256 << 10;

/// A file of its own, or a part of an executable; the payload as it is, or in zstd frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    section: Option<Section>,
}

impl Source {
    /// A file of its own.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), section: None }
    }

    /// A part of the executable at `path`.
    pub fn section(path: impl Into<PathBuf>, section: Section) -> Self {
        Self { path: path.into(), section: Some(section) }
    }

    /// The file that it is, or is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a part of a file only.
    pub(crate) fn is_section(&self) -> bool {
        self.section.is_some()
    }

    /// Whether its bytes are zstd frames of the payload.
    pub(crate) fn is_compressed(&self) -> io::Result<bool> {
        is_zstd(&mut self.raw()?)
    }

    /// Its bytes as they lie there.
    pub(crate) fn raw(&self) -> io::Result<BufReader<Take<File>>> {
        let mut file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let whole = Section { offset: 0, size_bytes: metadata.len() };
        let Section { offset, size_bytes } = self.section.unwrap_or(whole);
        if offset.checked_add(size_bytes).is_none_or(|end| end > metadata.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(BufReader::with_capacity(PORTION_BYTES, file.take(size_bytes)))
    }

    /// The payload's bytes, inflated where they are compressed.
    pub(crate) fn content(&self) -> io::Result<Box<dyn Read>> {
        let mut raw = self.raw()?;
        if is_zstd(&mut raw)? { Ok(Box::new(Frames::of(raw)?)) } else { Ok(Box::new(raw)) }
    }
}
