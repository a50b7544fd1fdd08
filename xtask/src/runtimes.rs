//! `cargo xtask runtimes`: the image of C libraries and shells that `--runtime-image` takes.
//!
//! The `packaging` crate does the work. It is a program of its own so that the other verbs
//! need not be built with compressors, and so that those run in release.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{binaries, process, setup, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The processor that the image is for: x86_64 or aarch64 [default: this machine's].
    #[arg(long, value_name = "ARCHITECTURE", default_value = std::env::consts::ARCH)]
    arch: String,
    /// Take what the suites have now, and write runtimes/runtimes.lock anew.
    #[arg(long, conflicts_with = "locked")]
    update: bool,
    /// Take exactly what runtimes/runtimes.lock names, or fail.
    #[arg(long)]
    locked: bool,
    /// Take what the lock names from the `.deb` files in this folder, if they are there.
    #[arg(long, value_name = "DIR", requires = "locked")]
    packages: Option<PathBuf>,
    /// Fail when this runtime is unavailable; otherwise it is left out with a warning.
    #[arg(long, value_name = "NAME")]
    require: Vec<String>,
    /// The file for the image [default: target/runtimes/runtimes-ARCHITECTURE.sqfs].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The versions of the packages that an image is made of.
#[derive(Clone, Debug)]
pub(crate) enum Versions {
    /// The versions that the signed suites serve today, as tests take them.
    Offered,
    /// Exactly what the lock names, as releases take it.
    Locked {
        /// A folder with `.deb` files for what the mirror no longer has.
        packages: Option<PathBuf>,
    },
}

impl Versions {
    fn options(&self) -> Vec<String> {
        match self {
            Self::Offered => Vec::new(),
            Self::Locked { packages } => {
                let folder = packages.iter().map(|folder| folder.display().to_string());
                let folder = folder.flat_map(|folder| ["--packages".to_owned(), folder]);
                std::iter::once("--locked".to_owned()).chain(folder).collect()
            }
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let output = arguments.output.clone().unwrap_or_else(|| image_path(&arguments.arch));
    let program = program()?;
    let versions = match arguments.locked {
        false => Versions::Offered,
        true => Versions::Locked { packages: arguments.packages.clone() },
    };
    let mut options = options(&arguments.arch, &arguments.require, &versions);
    if arguments.update {
        options.push("--update".to_owned());
    }
    build(&program, &options, &output)
}

/// An image with the runtimes in `require`. An image that was made from the same recipe and lock in the
/// same way is used again.
pub(crate) fn provide(
    architecture: &str,
    require: &[String],
    versions: &Versions,
) -> Result<PathBuf> {
    setup::run()?;
    let (image, program) = (image_path(architecture), program()?);
    let options = options(architecture, require, versions);
    let recipe = recipe();
    let inputs = Inputs::of(&[&program, &recipe, &recipe.with_extension("lock")], &options)?;
    let stamp = image.with_extension("inputs");
    if !image.exists() || fs::read_to_string(&stamp).ok().as_ref() != Some(&inputs.0) {
        build(&program, &options, &image)?;
        fs::write(&stamp, inputs.0).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(image)
}

/// The path of the image for an architecture.
fn image_path(architecture: &str) -> PathBuf {
    workspace::target().join(format!("runtimes/runtimes-{architecture}.sqfs"))
}

fn recipe() -> PathBuf {
    workspace::root().join("runtimes/runtimes.toml")
}

fn program() -> Result<PathBuf> {
    binaries::build("packaging", "runtime-image")
}

fn options(architecture: &str, require: &[String], versions: &Versions) -> Vec<String> {
    let mut options = vec!["--arch".to_owned(), architecture.to_owned()];
    options.extend(versions.options());
    for name in require {
        options.extend(["--require".to_owned(), name.clone()]);
    }
    options
}

fn build(program: &Path, options: &[String], output: &Path) -> Result<()> {
    // The stamp belongs to the image that is replaced.
    let _ = fs::remove_file(output.with_extension("inputs"));
    let mut command = Command::new(program);
    command.arg("--recipe").arg(recipe()).arg("--output").arg(output).args(options);
    process::run(&mut command)
}

/// The SHA-256 of what decides which image is made.
struct Inputs(String);

impl Inputs {
    fn of(files: &[&Path], options: &[String]) -> Result<Self> {
        let mut hash = Sha256::new();
        for path in files {
            let content =
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            hash.update(Sha256::digest(content));
        }
        hash.update(options.join("\n"));
        Ok(Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_other_things_has_other_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        fs::write(&one, "1").unwrap();
        fs::write(&other, "2").unwrap();
        let inputs = |files: &[&Path], require: &str, versions: &Versions| {
            Inputs::of(files, &options("x86_64", &[require.to_owned()], versions)).unwrap().0
        };
        let files: [&Path; 2] = [&one, &other];
        let locked = Versions::Locked { packages: None };
        let whole = inputs(&files, "a", &locked);
        assert_eq!(whole, inputs(&files, "a", &locked));
        assert_ne!(whole, inputs(&[&other, &one], "a", &locked));
        assert_ne!(whole, inputs(&files, "b", &locked));
        assert_ne!(
            whole,
            inputs(&files, "a", &Versions::Offered),
            "a release never takes a test's"
        );
    }
}
