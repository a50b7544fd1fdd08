//! `.deb` files by their hashes: the user's cache, and folders that somebody fills by hand.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The packages that earlier runs fetched, each in a file that is named after its hash.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

impl Cache {
    /// The cache in `folder`, which need not exist.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The package with that hash, unless the cache lacks it or has a damaged copy.
    pub fn get(&self, hash: &str) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(hash)).ok()?;
        (sha256(&bytes) == hash).then_some(bytes)
    }

    /// Stores a package: all of it, or nothing.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn put(&self, bytes: &[u8]) -> Result<()> {
        let path = self.path(&sha256(bytes));
        fs::create_dir_all(&self.0).with_context(|| self.0.display().to_string())?;
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(bytes)?;
        file.persist(&path).with_context(|| path.display().to_string())?;
        Ok(())
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.0.join(format!("{hash}.deb"))
    }
}

/// The hashes of the `.deb` files in a folder.
#[derive(Debug, Default)]
pub struct Folder(BTreeMap<String, PathBuf>);

impl Folder {
    /// Hashes what is in `folder`, but not in folders below it.
    ///
    /// # Errors
    /// When the folder or a package in it can't be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for path in deb_files(folder)? {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            files.insert(sha256(&bytes), path);
        }
        Ok(Self(files))
    }

    /// The package with that hash.
    ///
    /// # Errors
    /// When the file can't be read, or is no longer what it was.
    pub fn get(&self, hash: &str) -> Result<Option<Vec<u8>>> {
        let Some(path) = self.0.get(hash) else { return Ok(None) };
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        anyhow::ensure!(sha256(&bytes) == hash, "{} changes while it is read", path.display());
        Ok(Some(bytes))
    }
}

/// The `.deb` files in a folder, sorted.
///
/// # Errors
/// When the folder can't be read.
pub fn deb_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .filter(|path: &Result<PathBuf>| {
            path.as_ref().map_or(true, |path| path.extension().is_some_and(|it| it == "deb"))
        })
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
