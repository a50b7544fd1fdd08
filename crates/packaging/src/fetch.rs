//! The packages of a runtime's source: from the cache, a folder or an archive.
//!
//! Every package is checked against a hash before it is used. [`Versions`] says whose:
//!
//! ```text
//!            hash of         taken from                                  if it is gone
//! Offered    the suite       cache, suite                                (a suite has what it offers)
//! Locked     the lock        cache, --packages, suite, snapshot          an error that says how to go on
//! Update     the suite       cache, suite; the lock then says the same
//! ```
//!
//! A build that has all locked packages in its cache takes those with `Offered` as well and asks no
//! archive. A directory of the recipe has no signature, so its packages are always those of the lock.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{Archives, Offer, Suite};
use crate::cache::{Cache, Folder, deb_files, sha256};
use crate::deb::Deb;
use crate::lock::{Lock, LockedPackage};
use crate::recipe::{Architecture, Distribution, Origin, RuntimeRecipe, Source};

/// The versions of the packages to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// The versions that the suites serve today. The lock stays as it is.
    Offered,
    /// Exactly the versions in the lock.
    Locked,
    /// The versions that the suites serve today, which become the lock.
    Update,
}

/// Fetches packages for one image.
#[derive(Debug)]
pub struct Fetcher<'a> {
    /// Where `.deb` files and apt's state are kept between runs.
    pub cache: &'a Path,
    /// The lock.
    pub lock: &'a Lock,
    /// The versions to take.
    pub versions: Versions,
    /// A folder with packages that the lock names, for those that the archive no longer has.
    pub packages: Option<&'a Path>,
    /// The locations of the archives.
    pub archives: &'a Archives,
    /// The architecture of the image.
    pub architecture: Architecture,
}

/// A package's bytes, unpacked, and what the lock is to say of it.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its metadata.
    pub record: LockedPackage,
    /// Its content.
    pub deb: Deb,
}

/// The outcome of fetching without an error.
#[derive(Debug)]
pub enum Outcome {
    /// The source's packages.
    Fetched {
        /// All of them, in the order of the recipe: first libc's, then the shell's.
        packages: Vec<Fetched>,
        /// The date of the suite, if one was asked.
        released: Option<String>,
    },
    /// The source is unavailable here; why.
    Unavailable(String),
}

impl Fetcher<'_> {
    /// Fetches all packages of a source.
    ///
    /// # Errors
    /// When a package is corrupt, or the cache can't be used, or a locked package is gone.
    pub fn fetch(&self, runtime: &RuntimeRecipe, source: &Source) -> Result<Outcome> {
        match (&source.origin, self.versions) {
            (Origin::Archive { distribution, suite }, Versions::Offered) => {
                match self.cached(runtime, source)? {
                    Some(packages) => Ok(Outcome::Fetched { packages, released: None }),
                    None => Ok(self.offered(runtime, source, *distribution, suite)),
                }
            }
            (Origin::Archive { distribution, suite }, Versions::Update) => {
                Ok(self.offered(runtime, source, *distribution, suite))
            }
            (Origin::Directory(folder), Versions::Update) => {
                self.of_folder(runtime, source, folder)
            }
            (Origin::Archive { .. }, Versions::Locked) | (Origin::Directory(_), _) => {
                self.locked(runtime, source)
            }
        }
    }

    /// All packages as they are locked, if the cache has all of them.
    fn cached(&self, runtime: &RuntimeRecipe, source: &Source) -> Result<Option<Vec<Fetched>>> {
        let locked = Locked::of(self.lock, runtime, source, self.architecture);
        if locked.missing(source).is_some() {
            return Ok(None);
        }
        let cache = self.debs();
        let bytes = source.packages().map(|it| cache.get(&locked.0[it.name.as_str()].sha256));
        let Some(bytes) = bytes.collect::<Option<Vec<_>>>() else { return Ok(None) };
        self.read_all(runtime, source, bytes).map(Some)
    }

    /// The versions that the suite serves today. A suite without a right signature is refused.
    fn offered(
        &self,
        runtime: &RuntimeRecipe,
        source: &Source,
        distribution: Distribution,
        suite: &str,
    ) -> Outcome {
        let fetched = self.open(distribution, suite, None).and_then(|suite| {
            let names: Vec<_> = source.packages().map(|it| it.name.clone()).collect();
            let offers = suite.offers(&names)?;
            let bytes = self.take(&suite, &offers)?;
            Ok((self.in_order(runtime, source, bytes)?, Some(suite.released()?)))
        });
        match fetched {
            Ok((packages, released)) => Outcome::Fetched { packages, released },
            Err(error) => Outcome::Unavailable(format!("{error:#}")),
        }
    }

    /// Exactly what the lock names.
    fn locked(&self, runtime: &RuntimeRecipe, source: &Source) -> Result<Outcome> {
        let locked = Locked::of(self.lock, runtime, source, self.architecture);
        if let Some(name) = locked.missing(source) {
            return Ok(Outcome::Unavailable(format!(
                "the lock has no {name} of {}; --update adds it",
                source.origin
            )));
        }
        let mut bytes = BTreeMap::new();
        self.take_local(source, &locked, &mut bytes)?;
        let mut reasons = Vec::new();
        if let Origin::Archive { distribution, suite } = &source.origin {
            let archive = self.archives.of(*distribution);
            let released = self.lock.released(&source.origin.to_string(), self.architecture);
            let snapshot = archive.snapshots.is_some().then(|| {
                archive.snapshot(released.context("the lock has no date of the suite")?).map(Some)
            });
            for address in std::iter::once(Ok(None)).chain(snapshot) {
                let missing: Vec<_> = locked.without(&bytes).collect();
                if missing.is_empty() {
                    break;
                }
                let taken = address.and_then(|address| {
                    let suite = self.open(*distribution, suite, address)?;
                    self.take(&suite, &offers_of(&suite, &missing)?)
                });
                match taken {
                    Ok(taken) => bytes.extend(taken),
                    Err(error) => reasons.push(format!("{error:#}")),
                }
            }
        }
        let missing: Vec<_> = locked.without(&bytes).collect();
        ensure!(missing.is_empty(), "{}", self.gone(&missing, source, &reasons));
        let packages = self.in_order(runtime, source, bytes)?;
        Ok(Outcome::Fetched { packages, released: None })
    }

    /// Adds the locked packages that are on this machine: in the cache, in the folder that the
    /// caller names, in the recipe's.
    fn take_local(
        &self,
        source: &Source,
        locked: &Locked<'_>,
        bytes: &mut BTreeMap<String, Vec<u8>>,
    ) -> Result<()> {
        let mut folders = Vec::new();
        if let Some(folder) = self.packages {
            folders.push(Folder::read(folder)?);
        }
        if let Origin::Directory(folder) = &source.origin {
            folders.push(Folder::read(folder)?);
        }
        let cache = self.debs();
        for (name, package) in &locked.0 {
            let mut found = cache.get(&package.sha256);
            for folder in &folders {
                if found.is_none() {
                    found = folder.get(&package.sha256)?;
                }
            }
            bytes.extend(found.map(|found| ((*name).to_owned(), found)));
        }
        Ok(())
    }

    /// Packages of a folder, whatever the lock says.
    fn of_folder(
        &self,
        runtime: &RuntimeRecipe,
        source: &Source,
        folder: &Path,
    ) -> Result<Outcome> {
        let files = match deb_files(folder) {
            Ok(files) => files,
            Err(error) => return Ok(Outcome::Unavailable(format!("{error:#}"))),
        };
        let found = source.packages().map(|package| {
            find(&files, &package.name, self.architecture)
                .with_context(|| format!("{} of {}", package.name, source.origin))
        });
        let bytes = found.collect::<Result<_>>()?;
        let packages = self.read_all(runtime, source, bytes)?;
        Ok(Outcome::Fetched { packages, released: None })
    }

    /// A suite on the archive's mirror, or at another address.
    fn open(&self, distribution: Distribution, suite: &str, at: Option<String>) -> Result<Suite> {
        let place = if at.is_some() { "-snapshot" } else { "" };
        let state = format!("apt/{distribution}-{suite}-{}{place}", self.architecture.name());
        let archive = self.archives.of(distribution);
        Suite::open(&self.cache.join(state), archive, at, suite, self.architecture)
    }

    /// The offered package, from the cache or downloaded. A package that has another hash than its offer
    /// is an error.
    fn take(&self, suite: &Suite, offers: &[Offer]) -> Result<BTreeMap<String, Vec<u8>>> {
        let cache = self.debs();
        let mut bytes = BTreeMap::new();
        let mut absent = Vec::new();
        for offer in offers {
            match cache.get(&offer.sha256) {
                Some(found) => drop(bytes.insert(offer.name.clone(), found)),
                None => absent.push(offer),
            }
        }
        if !absent.is_empty() {
            fs::create_dir_all(self.cache).with_context(|| self.cache.display().to_string())?;
            let folder = tempfile::tempdir_in(self.cache).context("in the cache")?;
            let named: Vec<_> = absent.iter().map(|offer| offer.named()).collect();
            suite.download(&named, folder.path())?;
            for offer in absent {
                let path = folder.path().join(&offer.file);
                let found = fs::read(&path).with_context(|| path.display().to_string())?;
                let hash = sha256(&found);
                ensure!(hash == offer.sha256, "{} has the SHA-256 {hash}", offer.file);
                bytes.insert(offer.name.clone(), found);
            }
        }
        Ok(bytes)
    }

    /// Reads packages, by their names, in the order of the recipe.
    fn in_order(
        &self,
        runtime: &RuntimeRecipe,
        source: &Source,
        mut bytes: BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<Fetched>> {
        let named = source.packages().map(|package| {
            bytes.remove(&package.name).with_context(|| format!("{} is missing", package.name))
        });
        let bytes = named.collect::<Result<_>>()?;
        self.read_all(runtime, source, bytes)
    }

    /// Reads packages that are in the order of the recipe, and keeps them.
    fn read_all(
        &self,
        runtime: &RuntimeRecipe,
        source: &Source,
        bytes: Vec<Vec<u8>>,
    ) -> Result<Vec<Fetched>> {
        let cache = self.debs();
        let read = source.packages().zip(bytes).map(|(package, bytes)| {
            let deb = Deb::read(&bytes).with_context(|| package.name.clone())?;
            let control = &deb.control;
            ensure!(
                control.name == package.name && fits(&deb, self.architecture),
                "{} is {} for {}",
                package.name,
                control.name,
                control.architecture
            );
            let record = record(runtime, source, self.architecture, &bytes, &deb);
            if cache.get(&record.sha256).is_none() {
                cache.put(&bytes)?;
            }
            Ok(Fetched { record, deb })
        });
        read.collect()
    }

    /// Says which locked packages are nowhere to be found, and how to go on.
    fn gone(&self, packages: &[&LockedPackage], source: &Source, reasons: &[String]) -> String {
        let named = packages.iter().map(|package| format!("{} {}", package.name, package.version));
        let named = named.collect::<Vec<_>>().join(", ");
        let cures = match &source.origin {
            Origin::Archive { distribution, .. } => format!(
                "set {} to the address of the archive's snapshots, or name a folder that has these \
                 .deb files with --packages, or lock what the suite has now with `cargo xtask runtimes \
                 --update`",
                self.archives.of(*distribution).snapshots_variable()
            ),
            Origin::Directory(_) => {
                "put these .deb files there, or lock those that are there with --update".to_owned()
            }
        };
        let reasons = reasons.iter().map(|reason| format!(" ({reason})")).collect::<String>();
        format!("{} lacks packages that the lock names: {named}{reasons}; {cures}", source.origin)
    }

    fn debs(&self) -> Cache {
        Cache::new(self.cache.join("debs"))
    }
}

/// The lock's packages of one source, by name.
struct Locked<'a>(BTreeMap<&'a str, &'a LockedPackage>);

impl<'a> Locked<'a> {
    fn of(
        lock: &'a Lock,
        runtime: &'a RuntimeRecipe,
        source: &Source,
        architecture: Architecture,
    ) -> Self {
        let origin = source.origin.to_string();
        let packages = lock.packages(&runtime.name, architecture);
        let of_source = packages.filter(|package| package.source == origin);
        let wanted = of_source.filter(|it| source.packages().any(|other| other.name == it.name));
        Self(wanted.map(|package| (package.name.as_str(), package)).collect())
    }

    /// A package of the source that is not locked.
    fn missing<'b>(&self, source: &'b Source) -> Option<&'b str> {
        let mut names = source.packages().map(|package| package.name.as_str());
        names.find(|name| !self.0.contains_key(name))
    }

    /// Those whose bytes are not among these.
    fn without(
        &self,
        bytes: &BTreeMap<String, Vec<u8>>,
    ) -> impl Iterator<Item = &'a LockedPackage> {
        let absent = self.0.iter().filter(|(name, _)| !bytes.contains_key(**name));
        absent.map(|(_, package)| *package)
    }
}

/// The suite's offers that are what the lock names.
fn offers_of(suite: &Suite, packages: &[&LockedPackage]) -> Result<Vec<Offer>> {
    let names: Vec<_> = packages.iter().map(|package| package.name.clone()).collect();
    let offers = suite.offers(&names)?;
    let is_locked = |offer: &Offer| packages.iter().any(|it| it.sha256 == offer.sha256);
    Ok(offers.into_iter().filter(is_locked).collect())
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

fn fits(deb: &Deb, architecture: Architecture) -> bool {
    [architecture.debian_name(), "all"].contains(&deb.control.architecture.as_str())
}

/// The package of that name among the files, for the architecture or for all.
fn find(files: &[PathBuf], name: &str, architecture: Architecture) -> Result<Vec<u8>> {
    // A file of a package is named after it; only what is in it counts in the end.
    let prefix = format!("{name}_");
    let named = files.iter().filter(|path| {
        path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
    });
    for path in named {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let deb = Deb::read(&bytes).with_context(|| path.display().to_string())?;
        if deb.control.name == name && fits(&deb, architecture) {
            return Ok(bytes);
        }
    }
    bail!("there is no package for {}", architecture.debian_name())
}
