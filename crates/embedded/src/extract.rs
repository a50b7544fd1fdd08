//! A payload as a file of its own.
//!
//! The file's name has the hash of its content, so a new release brings a new file, and a second
//! start finds the one that is there. That one is believed only after its content was hashed as
//! well: a machine that lost power, or a disk that was full, leaves files that are not what their
//! names say.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;
use sha2::{Digest, Sha256};

use crate::Payload;
use crate::find::{FindError, Section, find};

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes that are read, hashed and written at a time.
const PORTION_BYTES: usize = 256 << 10;

/// Why a payload did not become a file.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The executable can't be searched.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The payload can't be read, or is a damaged zstd frame.
    #[error("the {payload:?} inside {}: {source}", path.display())]
    Payload {
        /// Which one.
        payload: Payload,
        /// The executable.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The file can't be written.
    #[error("writing {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
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

/// Extracts a payload of the executable at `executable` to
/// `<directory>/<file name of the payload>-<SHA-256 of the content>`; `None` when the executable
/// carries none. The file appears whole or not at all, also after a crash. Files of other releases
/// are removed.
///
/// # Errors
/// See [`ExtractError`].
pub fn extract(
    executable: &Path,
    payload: Payload,
    directory: &Path,
) -> Result<Option<Extracted>, ExtractError> {
    let Some(section) = find(executable, payload)? else { return Ok(None) };
    let damaged = |source| ExtractError::Payload { payload, path: executable.to_owned(), source };
    let identity = copy(open(executable, section).map_err(damaged)?, io::sink(), payload);
    let identity = identity.map_err(damaged)?;
    let name = format!("{}-{}", payload.file_name(), identity.hash);
    let path = directory.join(&name);
    let is_new = !is_whole(&path, payload, &identity);
    if is_new {
        let written = write(executable, section, payload, &path, &identity);
        written.map_err(|source| ExtractError::Write { path: path.clone(), source })?;
    }
    remove_others(directory, payload, &name);
    Ok(Some(Extracted { path, is_new }))
}

/// What tells one content from another.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    hash: String,
    size_bytes: u64,
}

/// The payload's bytes, inflated.
fn open(executable: &Path, section: Section) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(executable)?;
    file.seek(SeekFrom::Start(section.offset))?;
    let mut bytes = BufReader::with_capacity(PORTION_BYTES, file.take(section.size_bytes));
    if !io::BufRead::fill_buf(&mut bytes)?.starts_with(&ZSTD_MAGIC) {
        return Ok(Box::new(bytes));
    }
    let decoder = StreamingDecoder::new(bytes).map_err(io::Error::other)?;
    Ok(Box::new(decoder))
}

/// Copies all of a payload and says what it was.
fn copy(mut from: impl Read, mut to: impl Write, payload: Payload) -> io::Result<Identity> {
    let mut hasher = Sha256::new();
    let mut portion = vec![0; PORTION_BYTES];
    let mut size_bytes = 0;
    loop {
        let read = match from.read(&mut portion) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        size_bytes += read as u64;
        if size_bytes > payload.max_bytes() {
            return Err(io::Error::other("it inflates to more than it can have"));
        }
        hasher.update(&portion[..read]);
        to.write_all(&portion[..read])?;
    }
    Ok(Identity { hash: hex::encode(hasher.finalize()), size_bytes })
}

/// Whether a file is there and is what it should be.
fn is_whole(path: &Path, payload: Payload, identity: &Identity) -> bool {
    let metadata = path.symlink_metadata();
    let fits = metadata.is_ok_and(|it| it.is_file() && it.len() == identity.size_bytes);
    let read = || copy(File::open(path)?, io::sink(), payload);
    fits && read().is_ok_and(|found| found == *identity)
}

fn write(
    executable: &Path,
    section: Section,
    payload: Payload,
    path: &Path,
    identity: &Identity,
) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::Builder::new().prefix(".extracting-").tempfile_in(directory)?;
    let written = copy(open(executable, section)?, &mut file, payload)?;
    if written != *identity {
        return Err(io::Error::other("the executable changed meanwhile"));
    }
    // Readable for a VMM, which runs as somebody else; nothing in it is secret.
    let mode: Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        fs::remove_dir_all(path)?;
    }
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// Removes what other releases, or extractions that were killed, left. What can't be removed costs
/// space and nothing else.
fn remove_others(directory: &Path, payload: Payload, kept: &str) {
    let prefix = format!("{}-", payload.file_name());
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&prefix) && name != kept {
            // Losing a race against another process that removes it is as good.
            let _ = fs::remove_file(entry.path());
        }
    }
}
