//! The packages of a runtime's source: from the cache, a folder or an archive, and always the bytes
//! that the lock names.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::apt::Suite;
use crate::deb::Deb;
use crate::lock::{Lock, LockedPackage};
use crate::recipe::{Architecture, Origin, PackageRecipe, RuntimeRecipe, Source};

/// Fetches packages for one image.
#[derive(Debug)]
pub struct Fetcher<'a> {
    /// Where `.deb` files and apt's state are kept between runs.
    pub cache: &'a Path,
    /// What the packages must be.
    pub lock: &'a Lock,
    /// Take what the sources have now, whatever the lock says.
    pub update: bool,
    /// What the image is for.
    pub architecture: Architecture,
}

/// A package's bytes, unpacked, and what the lock is to say of it.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What it is.
    pub record: LockedPackage,
    /// What is in it.
    pub deb: Deb,
}

/// How fetching ended where it did not break.
#[derive(Debug)]
pub enum Outcome {
    /// Every package of the source, in the order of its recipe: first libc's, then the shell's.
    Fetched(Vec<Fetched>),
    /// The source can't be had from here; why.
    Unavailable(String),
}

impl Fetcher<'_> {
    /// Fetches all packages of a source.
    ///
    /// # Errors
    /// When a package is not what the lock says, or is corrupt, or the cache can't be used.
    pub fn fetch(&self, runtime: &RuntimeRecipe, source: &Source) -> Result<Outcome> {
        let wanted: Vec<&PackageRecipe> = source.libc.iter().chain(&source.shell).collect();
        let locked = self.locked(runtime, source);
        if !self.update {
            let missing = wanted.iter().find(|package| locked_as(&locked, &package.name).is_none());
            if let Some(package) = missing {
                let name = &package.name;
                return Ok(Outcome::Unavailable(format!(
                    "the lock has no {name} of {}; --update adds it",
                    source.origin
                )));
            }
            if let Some(cached) = self.cached(&wanted, &locked)? {
                return Ok(Outcome::Fetched(cached));
            }
        }
        let folder = tempfile::tempdir_in(self.cache).context("in the cache")?;
        let files = match self.provide(source, &wanted, folder.path()) {
            Ok(files) => files,
            Err(error) => return Ok(Outcome::Unavailable(format!("{error:#}"))),
        };
        let fetched = wanted.iter().map(|package| {
            let (bytes, deb) = find(&files, &package.name, self.architecture)
                .with_context(|| format!("{} of {}", package.name, source.origin))?;
            let record = record(runtime, source, self.architecture, &bytes, &deb);
            self.check_lock(&locked, &record)?;
            self.keep(&record, &bytes)?;
            Ok(Fetched { record, deb })
        });
        fetched.collect::<Result<_>>().map(Outcome::Fetched)
    }

    /// What the lock has of this very source.
    fn locked(&self, runtime: &RuntimeRecipe, source: &Source) -> Vec<LockedPackage> {
        let origin = source.origin.to_string();
        let packages = self.lock.packages(&runtime.name, self.architecture);
        packages.filter(|package| package.source == origin).cloned().collect()
    }

    /// All packages as they are locked, when all of them are in the cache.
    fn cached(
        &self,
        wanted: &[&PackageRecipe],
        locked: &[LockedPackage],
    ) -> Result<Option<Vec<Fetched>>> {
        let mut all = Vec::new();
        for package in wanted {
            let Some(record) = locked_as(locked, &package.name) else { return Ok(None) };
            let Ok(bytes) = fs::read(self.cached_path(&record.sha256)) else { return Ok(None) };
            if sha256(&bytes) != record.sha256 {
                return Ok(None);
            }
            let deb = Deb::read(&bytes).with_context(|| package.name.clone())?;
            all.push(Fetched { record: record.clone(), deb });
        }
        Ok(Some(all))
    }

    /// Paths of `.deb` files among which are the wanted ones.
    fn provide(
        &self,
        source: &Source,
        wanted: &[&PackageRecipe],
        folder: &Path,
    ) -> Result<Vec<PathBuf>> {
        match &source.origin {
            Origin::Directory(directory) => deb_files(directory),
            Origin::Archive { distribution, suite } => {
                let architecture = self.architecture;
                let state = format!("apt/{distribution}-{suite}-{}", architecture.name());
                let state = self.cache.join(state);
                let suite = Suite::open(&state, *distribution, suite, architecture)?;
                let names: Vec<_> = wanted.iter().map(|package| package.name.as_str()).collect();
                suite.download(&names, folder)?;
                deb_files(folder)
            }
        }
    }

    fn check_lock(&self, locked: &[LockedPackage], found: &LockedPackage) -> Result<()> {
        if self.update {
            return Ok(());
        }
        match locked_as(locked, &found.name) {
            Some(locked) if locked == found => Ok(()),
            Some(locked) => bail!(
                "{} of {} is version {} with SHA-256 {}, the lock says {} with {}; --update accepts \
                 it",
                found.name,
                found.source,
                found.version,
                found.sha256,
                locked.version,
                locked.sha256
            ),
            None => bail!("{} of {} is not in the lock", found.name, found.source),
        }
    }

    fn keep(&self, record: &LockedPackage, bytes: &[u8]) -> Result<()> {
        let path = self.cached_path(&record.sha256);
        let folder = path.parent().unwrap_or(self.cache);
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(&path).with_context(|| path.display().to_string())?;
        Ok(())
    }

    fn cached_path(&self, sha256: &str) -> PathBuf {
        self.cache.join("debs").join(format!("{sha256}.deb"))
    }
}

fn locked_as<'a>(locked: &'a [LockedPackage], name: &str) -> Option<&'a LockedPackage> {
    locked.iter().find(|package| package.name == name)
}

fn record(
    runtime: &RuntimeRecipe,
    source: &Source,
    architecture: Architecture,
    bytes: &[u8],
    deb: &Deb,
) -> LockedPackage {
    LockedPackage {
        runtime: runtime.name.clone(),
        architecture: architecture.name().to_owned(),
        name: deb.control.name.clone(),
        version: deb.control.version.clone(),
        source: source.origin.to_string(),
        size_bytes: bytes.len() as u64,
        sha256: sha256(bytes),
    }
}

/// The package of that name among the files, for the architecture or for all.
fn find(files: &[PathBuf], name: &str, architecture: Architecture) -> Result<(Vec<u8>, Deb)> {
    // A file of a package is named after it; only what is in it counts in the end.
    let prefix = format!("{name}_");
    let named = files.iter().filter(|path| {
        path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
    });
    for path in named {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let deb = Deb::read(&bytes).with_context(|| path.display().to_string())?;
        let fits = [architecture.debian_name(), "all"].contains(&deb.control.architecture.as_str());
        if deb.control.name == name && fits {
            return Ok((bytes, deb));
        }
    }
    bail!("there is no package for {}", architecture.debian_name())
}

/// The `.deb` files in a folder, sorted.
fn deb_files(folder: &Path) -> Result<Vec<PathBuf>> {
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

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
