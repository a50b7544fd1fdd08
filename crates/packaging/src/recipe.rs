//! The recipe: which packages make which runtime.
//!
//! ```toml
//! drop = ["usr/share"]                 # left out of every package
//!
//! [[runtime]]
//! name = "glibc2.36"                   # what actions say: libc=glibc2.36
//!
//! [[runtime.source]]                   # the first available source is taken
//! archive = "debian"
//! suite = "bookworm"
//! libc = ["libc6", "zlib1g"]           # every package by name: nothing is resolved
//! shell = ["bash", { name = "libc-bin", only = ["usr/lib/locale"] }]
//!
//! [[runtime.source]]
//! directory = "packages"               # .deb files, relative to the recipe
//! libc = ["libc6"]
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// The runtimes to make.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The paths to leave out of every package.
    pub drop: Vec<Pattern>,
    /// The runtimes, in the order of the file.
    pub runtimes: Vec<RuntimeRecipe>,
}

/// One runtime.
#[derive(Debug, Clone)]
pub struct RuntimeRecipe {
    /// Its name, which actions ask for.
    pub name: String,
    /// Its possible sources, best first.
    pub sources: Vec<Source>,
}

/// Packages that make one runtime.
#[derive(Debug, Clone)]
pub struct Source {
    /// Their source.
    pub origin: Origin,
    /// The C library, and what nearly every binary needs beside it.
    pub libc: Vec<PackageRecipe>,
    /// The packages that `requires-bash` adds; if empty, the runtime has no shell.
    pub shell: Vec<PackageRecipe>,
}

impl Source {
    /// All packages, libc's first.
    pub fn packages(&self) -> impl Iterator<Item = &PackageRecipe> {
        self.libc.iter().chain(&self.shell)
    }
}

/// A source of packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A distribution's archive.
    Archive {
        /// The distribution.
        distribution: Distribution,
        /// The release of the distribution.
        suite: String,
    },
    /// A folder with `.deb` files.
    Directory(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Archive { distribution, suite } => write!(f, "{distribution} {suite}"),
            // Without the path: what is written down is the same on every machine.
            Self::Directory(_) => f.write_str("files"),
        }
    }
}

/// A distribution whose packages are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debian => "debian",
            Self::Ubuntu => "ubuntu",
        })
    }
}

/// A package, and what is taken of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRecipe {
    /// Its name.
    pub name: String,
    /// The paths to take; everything when there is no pattern. Goes before [`Recipe::drop`].
    pub only: Vec<Pattern>,
}

/// A path whose components may have a `*` each, for any characters. It matches the path and
/// everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether the pattern stands for `path`, or for a directory above it.
    pub fn matches(&self, path: &str) -> bool {
        let mut components = path.split('/');
        self.0.split('/').all(|pattern| {
            components.next().is_some_and(|component| match pattern.split_once('*') {
                None => pattern == component,
                Some((start, end)) => {
                    component.len() >= start.len() + end.len()
                        && component.starts_with(start)
                        && component.ends_with(end)
                }
            })
        })
    }
}

/// A processor that images are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Architecture {
    /// 64-bit x86.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Architecture {
    /// As the kernel and Rust call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian calls it.
    pub fn debian_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Debian's package of the QEMU that `serve-vm` runs.
    pub fn qemu_package(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86",
            Self::Aarch64 => "qemu-system-arm",
        }
    }

    /// The one of this program.
    ///
    /// # Errors
    /// When no images are made for it.
    pub fn native() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => bail!("no runtimes are made for {other}"),
        }
    }
}

impl Recipe {
    /// Reads the recipe at `path`.
    ///
    /// # Errors
    /// When it can't be read, or says something that makes no sense.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, base).with_context(|| path.display().to_string())
    }

    /// Reads a recipe whose directories are relative to `base`.
    ///
    /// # Errors
    /// When it says something that makes no sense.
    pub fn parse(text: &str, base: &Path) -> Result<Self> {
        let raw: RawRecipe = toml::from_str(text)?;
        let runtimes = raw.runtime.into_iter().map(|runtime| runtime.checked(base));
        let recipe = Self {
            drop: raw.drop.into_iter().map(Pattern).collect(),
            runtimes: runtimes.collect::<Result<_>>()?,
        };
        let mut names = BTreeSet::new();
        for runtime in &recipe.runtimes {
            ensure!(names.insert(&runtime.name), "{} is there twice", runtime.name);
        }
        Ok(recipe)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipe {
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    runtime: Vec<RawRuntime>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRuntime {
    name: String,
    source: Vec<RawSource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    archive: Option<Distribution>,
    suite: Option<String>,
    directory: Option<PathBuf>,
    libc: Vec<RawPackage>,
    #[serde(default)]
    shell: Vec<RawPackage>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawPackage {
    Whole(String),
    Part { name: String, only: Vec<String> },
}

impl RawRuntime {
    fn checked(self, base: &Path) -> Result<RuntimeRecipe> {
        let name = self.name;
        ensure!(runtimes::manifest::is_runtime_name(&name), "{name:?} is no name for a runtime");
        ensure!(!self.source.is_empty(), "{name} has no source");
        let sources = self.source.into_iter().map(|source| source.checked(base));
        let sources = sources.collect::<Result<_>>().with_context(|| name.clone())?;
        Ok(RuntimeRecipe { name, sources })
    }
}

impl RawSource {
    fn checked(self, base: &Path) -> Result<Source> {
        let origin = match (self.archive, self.suite, self.directory) {
            (Some(distribution), Some(suite), None) => Origin::Archive { distribution, suite },
            (None, None, Some(directory)) => Origin::Directory(base.join(directory)),
            _ => bail!("a source has an archive and a suite, or a directory"),
        };
        ensure!(!self.libc.is_empty(), "a source names no packages for libc");
        let packages = |raw: Vec<RawPackage>| raw.into_iter().map(PackageRecipe::from).collect();
        Ok(Source { origin, libc: packages(self.libc), shell: packages(self.shell) })
    }
}

impl From<RawPackage> for PackageRecipe {
    fn from(raw: RawPackage) -> Self {
        match raw {
            RawPackage::Whole(name) => Self { name, only: Vec::new() },
            RawPackage::Part { name, only } => {
                Self { name, only: only.into_iter().map(Pattern).collect() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let result = Recipe::parse(text, Path::new("/recipes"));
        format!("{:#}", result.map(drop).unwrap_err())
    }

    #[test]
    fn a_recipe_is_read() {
        let text = r#"
            drop = ["usr/share", "usr/lib/*/gconv"]
            [[runtime]]
            name = "glibc2.36"
            [[runtime.source]]
            archive = "debian"
            suite = "bookworm"
            libc = ["libc6"]
            shell = ["bash", { name = "libc-bin", only = ["usr/lib/locale"] }]
            [[runtime.source]]
            directory = "files"
            libc = ["libc6"]
        "#;
        let recipe = Recipe::parse(text, Path::new("/recipes")).unwrap();
        assert_eq!(recipe.runtimes.len(), 1);
        let sources = &recipe.runtimes[0].sources;
        assert_eq!(sources[0].origin.to_string(), "debian bookworm");
        assert_eq!(sources[0].shell[1].only, [Pattern("usr/lib/locale".into())]);
        assert_eq!(sources[1].origin, Origin::Directory("/recipes/files".into()));
    }

    #[test]
    fn mistakes_are_named() {
        let runtime =
            |fields: &str| format!("[[runtime]]\nname = \"a\"\n[[runtime.source]]\n{fields}");
        assert!(error(&runtime("libc = [\"x\"]")).contains("an archive and a suite"));
        assert!(error(&runtime("directory = \"d\"\nlibc = []")).contains("no packages"));
        assert!(error("[[runtime]]\nname = \"../a\"\nsource = []").contains("no name for"));
        assert!(error("[[runtime]]\nname = \"a\"\nsource = []").contains("no source"));
        assert!(error("colour = 1").contains("colour"));
        let twice = runtime("directory = \"d\"\nlibc = [\"x\"]\n").repeat(2);
        assert!(error(&twice).contains("twice"));
    }

    #[test]
    fn patterns() {
        let check = |pattern: &str, path, expected| {
            assert_eq!(Pattern(pattern.into()).matches(path), expected, "{pattern} {path}");
        };
        check("usr/share", "usr/share", true);
        check("usr/share", "usr/share/doc/x", true);
        check("usr/share", "usr/shared", false);
        check("usr/share", "usr", false);
        check("usr/lib/*/gconv", "usr/lib/triplet/gconv/a.so", true);
        check("usr/lib/*/gconv", "usr/lib/gconv", false);
        check("lib*.so", "libc.so", true);
        check("lib*.so", "lib.so", true);
        check("aba*aba", "aba", false);
    }
}
