//! The record of an imported image: a small file below the root directory, beside the image's blobs.
//!
//! ```text
//! <root>/images/<SHA-256 of the name>.json    { "format": 1, "name": …, "root": …, "manifest": … }
//! ```

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use model::{Digest, DigestFunction};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// The version of the file's format.
const FORMAT: u32 = 1;

/// Below the root directory.
const DIRECTORY: &str = "images";

/// The values of `rootfs` that mean something else.
const RESERVED: [&str; 3] = ["host", "input-root", "none"];

/// An action's name for an image: the value of `rootfs` or `container-image`, without `docker://`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName(String);

/// Not a name for an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name for an image: use 1 to 255 visible ASCII characters, and none of {RESERVED:?}"
)]
pub struct NameError(String);

impl ImageName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix("docker://").unwrap_or(text);
        let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || !(1..=255).contains(&name.len()) || RESERVED.contains(&name) {
            return Err(NameError(text.chars().take(300).collect()));
        }
        Ok(Self(name.to_owned()))
    }
}

/// An imported image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name.
    pub name: ImageName,
    /// The root of its files, as a REAPI directory.
    pub root: Digest,
    /// The digest of its OCI manifest, such as `sha256:…`.
    pub manifest: String,
}

/// Errors of reading or changing the list of images.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file or the directory can't be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file is not what an import wrote.
    #[error("{} is damaged, or of another version: remove it and import the image again", .0.display())]
    Damaged(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    name: String,
    root: String,
    root_size_bytes: u64,
    manifest: String,
}

/// All imported images of the root directory `root`, by name.
///
/// # Errors
/// See [`RecordError`].
pub fn list(root: &Path) -> Result<Vec<Record>, RecordError> {
    let directory = root.join(DIRECTORY);
    let io_error = |source| RecordError::Io { path: directory.clone(), source };
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_error)?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(io_error)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            records.push(load(&path)?);
        }
    }
    records.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(records)
}

fn load(path: &Path) -> Result<Record, RecordError> {
    let text =
        fs::read(path).map_err(|source| RecordError::Io { path: path.to_owned(), source })?;
    let parse = || {
        let stored: Stored = serde_json::from_slice(&text).ok()?;
        let name = ImageName::from_str(&stored.name).ok()?;
        let root =
            Digest::parse_hex(DigestFunction::Sha256, &stored.root, stored.root_size_bytes).ok()?;
        (stored.format == FORMAT).then_some(Record { name, root, manifest: stored.manifest })
    };
    parse().ok_or_else(|| RecordError::Damaged(path.to_owned()))
}

/// Keeps a record; an older one of the same name is replaced, atomically.
pub(crate) fn save(root: &Path, record: &Record) -> Result<(), RecordError> {
    let path = path_of(root, &record.name);
    let io_error = |source| RecordError::Io { path: path.clone(), source };
    let stored = Stored {
        format: FORMAT,
        name: record.name.0.clone(),
        root: record.root.hex(),
        root_size_bytes: record.root.size_bytes(),
        manifest: record.manifest.clone(),
    };
    let text = serde_json::to_vec_pretty(&stored).map_err(|error| io_error(error.into()))?;
    let directory = root.join(DIRECTORY);
    fs::create_dir_all(&directory).map_err(io_error)?;
    let mut file = tempfile::NamedTempFile::new_in(&directory).map_err(io_error)?;
    file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(io_error)?;
    file.persist(&path).map_err(|error| io_error(error.error))?;
    fs::File::open(&directory).and_then(|it| it.sync_all()).map_err(io_error)
}

/// Forgets an image; its blobs stay for others, until the store wants their space. `false`: there
/// is none of that name.
///
/// # Errors
/// [`RecordError::Io`].
pub fn remove(root: &Path, name: &ImageName) -> Result<bool, RecordError> {
    let path = path_of(root, name);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(RecordError::Io { path, source }),
    }
}

fn path_of(root: &Path, name: &ImageName) -> PathBuf {
    let hash = hex::encode(sha2::Sha256::digest(name.as_str()));
    root.join(DIRECTORY).join(format!("{hash}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        let root = Digest::of(DigestFunction::Sha256, name.as_bytes());
        Record { name: name.parse().unwrap(), root, manifest: "sha256:00".into() }
    }

    #[test]
    fn names() {
        let name = |text: &str| text.parse::<ImageName>().map(|name| name.0);
        assert_eq!(name("debian:12"), Ok("debian:12".into()));
        assert_eq!(name("docker://a.invalid/b@sha256:00"), Ok("a.invalid/b@sha256:00".into()));
        for bad in
            ["", "docker://", "host", "input-root", "none", "a b", "a\n", "ä", &"a".repeat(256)]
        {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_saved_is_listed_until_it_is_removed() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(list(root.path()).unwrap(), []);
        save(root.path(), &record("b/../../c")).unwrap();
        save(root.path(), &record("a")).unwrap();
        save(root.path(), &record("a")).unwrap();
        assert_eq!(list(root.path()).unwrap(), [record("a"), record("b/../../c")]);
        assert!(remove(root.path(), &"a".parse().unwrap()).unwrap());
        assert!(!remove(root.path(), &"a".parse().unwrap()).unwrap());
        assert_eq!(list(root.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let root = tempfile::tempdir().unwrap();
        save(root.path(), &record("a")).unwrap();
        let path = path_of(root.path(), &"a".parse().unwrap());
        for text in ["", "{}", "[]"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(list(root.path()), Err(RecordError::Damaged(_))));
        }
    }
}
