//! Kernel, initramfs, runtimes and the CAS disk as files that a VMM can use.
//!
//! An artifact comes from a file of the user's or from a part of our own executable, raw or as one
//! zstd frame. What is not usable as it lies there is written once to
//! `<directory>/<artifact>-<sha256 of its source>.<extension>`, beside the final name first, so
//! that what has that name is whole, also after a crash.
//!
//! - [`inflate`]: zstd, with bounds. - [`CasImage`]: the disk of the store.

mod cas_image;
mod inflate;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

pub use cas_image::{CasImage, CasImageError};
pub use inflate::InflateError;

const MIB: u64 = 1 << 20;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Artifact {
    /// A Linux kernel: bzImage, vmlinux, or arm64's Image.
    Kernel,
    /// A cpio archive.
    Initramfs,
    /// A SquashFS image.
    Runtimes,
}

impl Artifact {
    /// For messages and file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
            Self::Runtimes => "runtimes",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Kernel => "Image",
            Self::Initramfs => "cpio",
            Self::Runtimes => "sqfs",
        }
    }

    /// The most bytes that it may have when inflated: some ten times what ours have, so that a file
    /// that was mistaken for an artifact can't fill the disk.
    fn max_bytes(self) -> u64 {
        match self {
            Self::Kernel => 256 * MIB,
            Self::Initramfs => 512 * MIB,
            Self::Runtimes => 4096 * MIB,
        }
    }
}

/// Where an artifact comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    /// Offset and length in bytes, of a payload inside an executable.
    range: Option<(u64, u64)>,
}

impl Source {
    /// A file of its own.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), range: None }
    }

    /// `length` bytes at `offset` of the file at `path`.
    pub fn part(path: impl Into<PathBuf>, offset: u64, length: u64) -> Self {
        Self { path: path.into(), range: Some((offset, length)) }
    }

    /// The artifact's bytes from their beginning, and how many there are.
    fn open(&self) -> io::Result<(io::Take<File>, u64)> {
        let mut file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let (offset, length) = self.range.unwrap_or((0, metadata.len()));
        if offset.checked_add(length).is_none_or(|end| end > metadata.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok((file.take(length), length))
    }
}

/// Why an artifact can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The source can't be read.
    #[error("the {} at {}", artifact.name(), path.display())]
    Source {
        /// Which one.
        artifact: Artifact,
        /// Where it was looked for.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The source is compressed and does not inflate.
    #[error("inflating the {} at {}", artifact.name(), path.display())]
    Inflate {
        /// Which one.
        artifact: Artifact,
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        source: InflateError,
    },
    /// The ready file can't be written.
    #[error("writing {}", path.display())]
    Write {
        /// The ready file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// An artifact that a VMM can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The file.
    pub path: PathBuf,
    /// Whether it had to be written just now.
    pub extracted: bool,
}

/// Makes `artifact` a file of its own, uncompressed: the source itself where it is that already,
/// else one in `directory`, which is made if need be.
///
/// # Errors
/// See [`ArtifactError`].
pub fn prepare(
    artifact: Artifact,
    source: &Source,
    directory: &Path,
) -> Result<Ready, ArtifactError> {
    let unreadable =
        |error| ArtifactError::Source { artifact, path: source.path.clone(), source: error };
    let (mut bytes, length) = source.open().map_err(unreadable)?;
    let compressed = inflate::is_zstd(&mut bytes).map_err(unreadable)?;
    if !compressed && source.range.is_none() {
        let path = source.path.canonicalize().map_err(unreadable)?;
        return Ok(Ready { path, extracted: false });
    }
    let hash = sha256(source).map_err(unreadable)?;
    let path = directory.join(format!("{}-{hash}.{}", artifact.name(), artifact.extension()));
    let expected = if compressed { None } else { Some(length) };
    if is_whole(&path, expected) {
        return Ok(Ready { path, extracted: false });
    }
    let (bytes, _) = source.open().map_err(unreadable)?;
    extract(artifact, source, bytes, compressed, &path)?;
    Ok(Ready { path, extracted: true })
}

/// Whether `path` holds an artifact already. What has its name was whole when it got it; the size
/// tells of files that something else has cut since, where it is known.
fn is_whole(path: &Path, expected: Option<u64>) -> bool {
    let metadata = path.symlink_metadata();
    metadata.is_ok_and(|metadata| {
        metadata.is_file() && expected.map_or(metadata.len() > 0, |bytes| bytes == metadata.len())
    })
}

fn sha256(source: &Source) -> io::Result<String> {
    let (mut bytes, _) = source.open()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match bytes.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Writes the artifact to a file beside `path`, then gives it its name.
fn extract(
    artifact: Artifact,
    source: &Source,
    bytes: io::Take<File>,
    compressed: bool,
    path: &Path,
) -> Result<(), ArtifactError> {
    let unwritable = |error| ArtifactError::Write { path: path.to_owned(), source: error };
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(unwritable)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(unwritable)?;
    let copied = if compressed {
        inflate::inflate(bytes, &mut file, artifact.max_bytes())
    } else {
        copy(bytes, &mut file, artifact.max_bytes())
    };
    copied.map_err(|error| ArtifactError::Inflate {
        artifact,
        path: source.path.clone(),
        source: error,
    })?;
    // Readable for the VMM, which runs as somebody else; nothing in it is secret.
    let readable = std::fs::Permissions::from_mode(0o444);
    file.as_file().set_permissions(readable).map_err(unwritable)?;
    file.as_file().sync_all().map_err(unwritable)?;
    file.persist(path).map_err(|error| unwritable(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(unwritable)
}

fn copy(mut from: impl Read, to: &mut impl Write, limit: u64) -> Result<(), InflateError> {
    let copied = io::copy(&mut from.by_ref().take(limit), to)?;
    if copied == limit && from.read(&mut [0])? != 0 {
        return Err(InflateError::TooLarge { limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
