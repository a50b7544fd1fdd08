//! From a recipe to an image.
//!
//! ```text
//! manifest.json                       which runtimes the image has
//! common/root/etc/                    for every action
//! libc/<name>/<architecture>/root/    the C library
//! libc/<name>/<architecture>/manifest.json
//! shell/<name>/<architecture>/root/   the C library, bash, coreutils and what they need
//! ```
//!
//! A shell has a whole root of its own rather than its programs alone: they must run with the C
//! library that the action asked for, and their other libraries must not be seen by actions that
//! asked for no shell. Equal files are stored once, so the copy costs nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use runtimes::manifest::{self, Manifest, PackageManifest, RuntimeManifest};

use crate::apt::Archives;
use crate::closure;
use crate::fetch::{Fetched, Fetcher, Outcome, Versions};
use crate::image;
use crate::lock::Lock;
use crate::recipe::{Architecture, PackageRecipe, Pattern, Recipe, RuntimeRecipe, Source};
use crate::tree::{self, Node, Tree};

/// The image to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recipe's path.
    pub recipe: PathBuf,
    /// The lock's path.
    pub lock: PathBuf,
    /// The locations of the distributions' archives.
    pub archives: Archives,
    /// The architecture of the image.
    pub architecture: Architecture,
    /// The versions of the packages to take.
    pub versions: Versions,
    /// A folder with packages that the lock names, for those that the archive no longer has.
    pub packages: Option<PathBuf>,
    /// Runtimes that the image must have.
    pub require: Vec<String>,
    /// The folder that keeps packages and indexes between runs.
    pub cache: PathBuf,
    /// The image's path.
    pub output: PathBuf,
}

/// Programs that `requires-bash` promises, beside what the packages bring.
const SHELL_PROGRAMS: [&str; 3] = ["usr/bin/bash", "usr/bin/env", "usr/bin/ls"];

/// Builds the image and returns its manifest. A runtime whose sources are unavailable is left out, with
/// a warning on standard error.
///
/// # Errors
/// When a locked package is gone, when a required runtime or all of them are unavailable, or when a
/// runtime is broken.
pub fn run(options: &Options) -> Result<Manifest> {
    let recipe = Recipe::load(&options.recipe)?;
    for name in &options.require {
        let known = recipe.runtimes.iter().any(|runtime| runtime.name == *name);
        ensure!(known, "the recipe has no runtime {name}, which is required");
    }
    std::fs::create_dir_all(&options.cache).with_context(|| options.cache.display().to_string())?;
    let mut lock = Lock::load(&options.lock)?;
    let before = lock.clone();
    let mut builder = Builder::new(&recipe.drop, options.architecture)?;
    for runtime in &recipe.runtimes {
        match obtain(runtime, options, &lock)? {
            Ok(Obtained { source, packages, released }) => {
                let records = packages.iter().map(|package| package.record.clone());
                lock.replace(&runtime.name, options.architecture, records);
                if let Some(released) = released {
                    lock.set_released(&source.origin.to_string(), options.architecture, released);
                }
                builder
                    .add(&runtime.name, source, &packages)
                    .with_context(|| format!("{} of {}", runtime.name, source.origin))?;
            }
            Err(reasons) if options.require.contains(&runtime.name) => {
                bail!("{} is required and unavailable: {reasons}", runtime.name)
            }
            Err(reasons) => eprintln!("runtimes: warning: {} left out: {reasons}", runtime.name),
        }
    }
    let (tree, manifest) = builder.finish()?;
    image::write(&tree, &options.output)?;
    match options.versions {
        Versions::Update => lock.save(&options.lock)?,
        Versions::Offered => report(&lock.changes_since(&before)),
        Versions::Locked => {}
    }
    Ok(manifest)
}

/// Says in one line what the image has that the lock does not name.
fn report(changes: &[String]) {
    if !changes.is_empty() {
        eprintln!("runtimes: the suites have moved on from the lock: {}", changes.join(", "));
    }
}

/// A source of a runtime, and what was fetched of it.
struct Obtained<'a> {
    source: &'a Source,
    packages: Vec<Fetched>,
    /// The date of the suite, if one was asked.
    released: Option<String>,
}

/// The first available source with its packages, or why none is available.
fn obtain<'a>(
    runtime: &'a RuntimeRecipe,
    options: &Options,
    lock: &Lock,
) -> Result<Result<Obtained<'a>, String>> {
    let fetcher = Fetcher {
        cache: &options.cache,
        lock,
        versions: options.versions,
        packages: options.packages.as_deref(),
        archives: &options.archives,
        architecture: options.architecture,
    };
    let mut reasons = Vec::new();
    for source in &runtime.sources {
        eprintln!(
            "runtimes: {}: {} packages of {}",
            runtime.name,
            source.packages().count(),
            source.origin
        );
        match fetcher.fetch(runtime, source)? {
            Outcome::Fetched { packages, released } => {
                return Ok(Ok(Obtained { source, packages, released }));
            }
            Outcome::Unavailable(reason) => reasons.push(format!("{}: {reason}", source.origin)),
        }
    }
    Ok(Err(reasons.join("; ")))
}

/// The image's files as they come together.
struct Builder<'a> {
    drop: &'a [Pattern],
    architecture: Architecture,
    tree: Tree,
    manifest: Manifest,
}

impl<'a> Builder<'a> {
    fn new(drop: &'a [Pattern], architecture: Architecture) -> Result<Self> {
        let mut tree = Tree::default();
        for (path, content) in runtimes::common_files() {
            tree.insert_file(&format!("{}/{path}", manifest::COMMON_ROOT), content)?;
        }
        let manifest = Manifest::new(architecture.name());
        Ok(Self { drop, architecture, tree, manifest })
    }

    fn add(&mut self, name: &str, source: &Source, packages: &[Fetched]) -> Result<()> {
        let (libc_packages, shell_packages) = packages.split_at(source.libc.len());
        let architecture = self.architecture.name();
        let mut libc = Tree::default();
        self.unpack(&mut libc, &source.libc, libc_packages)?;
        if !shell_packages.is_empty() {
            let mut shell = libc.clone();
            self.unpack(&mut shell, &source.shell, shell_packages)?;
            finish_shell(&mut shell, self.architecture)?;
            self.tree.graft(&manifest::shell_root(name, architecture), &shell)?;
        }
        libc.link_merged()?;
        closure::check(&libc, self.architecture)?;
        self.tree.graft(&manifest::libc_root(name, architecture), &libc)?;
        let runtime = RuntimeManifest {
            name: name.to_owned(),
            source: source.origin.to_string(),
            shell: !shell_packages.is_empty(),
            packages: packages.iter().map(package_manifest).collect(),
        };
        let own = manifest::runtime_manifest(name, architecture);
        self.tree.insert_file(&own, json(&runtime)?)?;
        self.manifest.runtimes.push(runtime);
        Ok(())
    }

    fn unpack(&self, tree: &mut Tree, recipes: &[PackageRecipe], from: &[Fetched]) -> Result<()> {
        for (recipe, package) in recipes.iter().zip(from) {
            let keep = |path: &str| tree::keeps(path, &recipe.only, self.drop);
            tree.add_tar(&package.deb.files, keep).with_context(|| recipe.name.clone())?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Tree, Manifest)> {
        ensure!(!self.manifest.runtimes.is_empty(), "no runtime is available");
        self.manifest.runtimes.sort_by(|one, other| one.name.cmp(&other.name));
        self.tree.insert_file(manifest::PATH, json(&self.manifest)?)?;
        Ok((self.tree, self.manifest))
    }
}

/// Makes bash the system's shell, and checks that all that was promised is there.
fn finish_shell(shell: &mut Tree, architecture: Architecture) -> Result<()> {
    shell.insert("usr/bin/sh", Node::Symlink("bash".to_owned()))?;
    shell.link_merged()?;
    for program in SHELL_PROGRAMS {
        ensure!(shell.get(program).is_some(), "no package of the shell brings {program}");
    }
    closure::check(shell, architecture)
}

fn package_manifest(package: &Fetched) -> PackageManifest {
    PackageManifest {
        name: package.record.name.clone(),
        version: package.record.version.clone(),
        architecture: package.deb.control.architecture.clone(),
        sha256: package.record.sha256.clone(),
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// The folder that keeps packages and indexes between runs: `$XDG_CACHE_HOME/actiond/runtimes`.
///
/// # Errors
/// When the environment names no home.
pub fn default_cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = match (variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => bail!("neither XDG_CACHE_HOME nor HOME is set: no place for a cache"),
    };
    Ok(base.join("actiond/runtimes"))
}
