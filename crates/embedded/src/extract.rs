//! A payload as a file of its own.
//!
//! The file's name contains the hash of its content, so a new release brings a new file, and a second
//! start finds the existing one. The second start hashes that file before it uses it: a power cut or a
//! full disk can leave a file whose content does not match its name.
//!
//! ```text
//! runtimes.sqfs-<SHA-256>     kernel-<SHA-256>.Image     initramfs-<SHA-256>.cpio
//! ```
//! A payload in zstd frames is inflated once: a symlink, named by the SHA-256 of the frames, points to
//! their content.
//! ```text
//! kernel-of-<SHA-256 of the frames> -> kernel-<SHA-256>.Image
//! ```

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Payload;
use crate::find::{FindError, find};
use crate::source::{PORTION_BYTES, Source};

/// Errors of writing a payload to a file.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The executable can't be searched.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The payload can't be read, or is a damaged zstd frame.
    #[error("the {} at {}", payload.name(), path.display())]
    Source {
        /// The payload.
        payload: Payload,
        /// The file that it is, or is in.
        path: PathBuf,
        /// The problem with it.
        source: io::Error,
    },
    /// The file can't be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file, or its directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// A payload that is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The file.
    pub path: PathBuf,
    /// Whether it was written just now.
    pub is_new: bool,
}

/// Extracts a payload of the executable at `executable` to a file in `directory`; `None` when the
/// executable carries none. See [`prepare`].
///
/// # Errors
/// See [`ExtractError`].
pub fn extract(
    executable: &Path,
    payload: Payload,
    directory: &Path,
) -> Result<Option<Extracted>, ExtractError> {
    let Some(section) = find(executable, payload)? else { return Ok(None) };
    prepare(payload, &Source::section(executable, section), directory).map(Some)
}

/// Makes a payload an uncompressed file of its own: the source itself where it is that already, else
/// one in `directory`, which is made if need be. The file appears whole or not at all, also after a
/// crash. Files of other releases are removed.
///
/// # Errors
/// See [`ExtractError`].
pub fn prepare(
    payload: Payload,
    source: &Source,
    directory: &Path,
) -> Result<Extracted, ExtractError> {
    let unreadable =
        |error| ExtractError::Source { payload, path: source.path().to_owned(), source: error };
    let is_compressed = source.is_compressed().map_err(unreadable)?;
    if !is_compressed && !source.is_section() {
        let path = source.path().canonicalize().map_err(unreadable)?;
        return Ok(Extracted { path, is_new: false });
    }
    let lies_there = source.raw().and_then(|raw| sha256(raw, payload)).map_err(unreadable)?;
    let files = Files { payload, directory };
    let link = is_compressed.then(|| files.link(&lies_there));
    let hash = match &link {
        Some(link) => files.hash_behind(link),
        None => Some(lies_there),
    };
    let (path, is_new) = match hash.and_then(|hash| files.if_whole(&hash)) {
        Some(path) => (path, false),
        None => (files.write(source, link.as_deref())?, true),
    };
    files.remove_others(&[Some(&*path), link.as_deref()]);
    Ok(Extracted { path, is_new })
}

/// The side of a copy that failed.
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// The SHA-256 of all of a payload, in hexadecimal.
fn sha256(from: impl Read, payload: Payload) -> io::Result<String> {
    copy(from, io::sink(), payload.max_bytes()).map_err(|error| match error {
        CopyError::Read(error) | CopyError::Write(error) => error,
    })
}

/// Copies everything, which must be at most `max_bytes`, and gives its SHA-256.
fn copy(mut from: impl Read, mut to: impl Write, max_bytes: u64) -> Result<String, CopyError> {
    let mut hasher = Sha256::new();
    let mut portion = vec![0; PORTION_BYTES];
    let mut size_bytes = 0;
    loop {
        let read = match from.read(&mut portion) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        size_bytes += read as u64;
        if size_bytes > max_bytes {
            return Err(CopyError::Read(io::Error::other("it has more bytes than it can have")));
        }
        hasher.update(&portion[..read]);
        to.write_all(&portion[..read]).map_err(CopyError::Write)?;
    }
    Ok(hex::encode(hasher.finalize()))
}

/// The extracted files of one payload in their directory.
struct Files<'a> {
    payload: Payload,
    directory: &'a Path,
}

impl Files<'_> {
    /// The file that has this hash.
    fn file(&self, hash: &str) -> PathBuf {
        let (prefix, extension) = self.payload.file_name();
        self.directory.join(format!("{prefix}-{hash}{extension}"))
    }

    /// The symlink that tells what zstd frames with this hash have.
    fn link(&self, hash: &str) -> PathBuf {
        self.directory.join(format!("{}-of-{hash}", self.payload.file_name().0))
    }

    /// The hash in the name of the file that a link leads to.
    fn hash_behind(&self, link: &Path) -> Option<String> {
        let (prefix, extension) = self.payload.file_name();
        let target = fs::read_link(link).ok()?.into_os_string().into_string().ok()?;
        let hash = target.strip_prefix(prefix)?.strip_prefix('-')?.strip_suffix(extension)?;
        hash.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| hash.to_owned())
    }

    /// The file of this hash, if it is there with the content that its name tells.
    fn if_whole(&self, hash: &str) -> Option<PathBuf> {
        let path = self.file(hash);
        let is_file = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let read = || sha256(File::open(&path)?, self.payload);
        let is_whole = is_file && read().is_ok_and(|found| found == hash);
        is_whole.then_some(path)
    }

    /// Writes the content to a file beside its place, then gives it its name, and the link as well
    /// where there is to be one.
    fn write(&self, source: &Source, link: Option<&Path>) -> Result<PathBuf, ExtractError> {
        let payload = self.payload;
        let unwritable =
            |error| ExtractError::Write { path: self.directory.to_owned(), source: error };
        let unreadable =
            |error| ExtractError::Source { payload, path: source.path().to_owned(), source: error };
        fs::create_dir_all(self.directory).map_err(unwritable)?;
        let mut file = tempfile::Builder::new()
            .prefix(&self.prefix())
            .suffix(".part")
            .tempfile_in(self.directory)
            .map_err(unwritable)?;
        let content = source.content().map_err(unreadable)?;
        let hash = copy(content, &mut file, payload.max_bytes()).map_err(|error| match error {
            CopyError::Read(error) => unreadable(error),
            CopyError::Write(error) => unwritable(error),
        })?;
        let path = self.file(&hash);
        self.publish(file, &path)
            .map_err(|source| ExtractError::Write { path: path.clone(), source })?;
        if let Some(link) = link {
            // Not every file system has symlinks. Without this one the next start inflates again.
            let _ = replace_link(link, &path);
        }
        Ok(path)
    }

    fn publish(&self, file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
        // Readable for a VMM, which runs as somebody else; nothing in it is secret.
        let mode: Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        file.as_file().set_permissions(mode)?;
        file.as_file().sync_all()?;
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            // One that holds something is not ours to remove.
            fs::remove_dir(path)?;
        }
        file.persist(path).map_err(|error| error.error)?;
        File::open(self.directory)?.sync_all()
    }

    /// Removes the files of other releases and of killed extractions. A file that cannot be removed
    /// only costs space.
    fn remove_others(&self, kept: &[Option<&Path>]) {
        let Ok(entries) = fs::read_dir(self.directory) else { return };
        for entry in entries.flatten() {
            let is_ours = entry.file_name().to_string_lossy().starts_with(&self.prefix());
            if is_ours && !kept.contains(&Some(&entry.path())) {
                // Losing a race against another process that removes it is as good.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn prefix(&self) -> String {
        format!("{}-", self.payload.file_name().0)
    }
}

/// Makes `link` a symlink to the file at `path`, which is beside it.
fn replace_link(link: &Path, path: &Path) -> io::Result<()> {
    if link.symlink_metadata().is_ok() {
        fs::remove_file(link)?;
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    match std::os::unix::fs::symlink(name, link) {
        // Another process, with the same frames.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(max_bytes: u64, expected: Result<&[u8], ()>) {
        let mut copied = Vec::new();
        let outcome = copy(&b"12345"[..], &mut copied, max_bytes).map_err(|_| ());
        assert_eq!(outcome, expected.map(|bytes| hex::encode(Sha256::digest(bytes))));
    }

    #[test]
    fn copying_is_bounded() {
        check(4, Err(()));
        check(5, Ok(b"12345"));
        check(6, Ok(b"12345"));
    }
}
