//! `cargo xtask runtimes`: the image of C libraries and shells that `--runtime-image` takes.
//!
//! What it does is in the `packaging` crate. That is a program of its own so that the other verbs
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
    /// Fail when this runtime can't be had, which is otherwise left out with a warning.
    #[arg(long, value_name = "NAME")]
    require: Vec<String>,
    /// Where the image goes [default: target/runtimes/runtimes-ARCHITECTURE.sqfs].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let output = arguments.output.clone().unwrap_or_else(|| image_path(&arguments.arch));
    let program = program()?;
    let mut options = options(&arguments.arch, &arguments.require);
    for (flag, given) in [("--update", arguments.update), ("--locked", arguments.locked)] {
        if given {
            options.push(flag.to_owned());
        }
    }
    if let Some(folder) = &arguments.packages {
        options.extend(["--packages".to_owned(), folder.display().to_string()]);
    }
    build(&program, &options, &output)
}

/// The image for tests, of what the suites have; the runtimes in `require` must be in it. An image that
/// was made from the same recipe and lock is used again.
pub(crate) fn provide(architecture: &str, require: &[String]) -> Result<PathBuf> {
    setup::run()?;
    let (image, program) = (image_path(architecture), program()?);
    let options = options(architecture, require);
    let recipe = recipe();
    let inputs = Inputs::of(&[&program, &recipe, &recipe.with_extension("lock")], &options)?;
    let stamp = image.with_extension("inputs");
    if !image.exists() || fs::read_to_string(&stamp).ok().as_ref() != Some(&inputs.0) {
        build(&program, &options, &image)?;
        fs::write(&stamp, inputs.0).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(image)
}

/// Where the image for an architecture is kept.
fn image_path(architecture: &str) -> PathBuf {
    workspace::target().join(format!("runtimes/runtimes-{architecture}.sqfs"))
}

fn recipe() -> PathBuf {
    workspace::root().join("runtimes/runtimes.toml")
}

fn program() -> Result<PathBuf> {
    binaries::build("packaging", "runtime-image")
}

fn options(architecture: &str, require: &[String]) -> Vec<String> {
    let mut options = vec!["--arch".to_owned(), architecture.to_owned()];
    for name in require {
        options.extend(["--require".to_owned(), name.clone()]);
    }
    options
}

fn build(program: &Path, options: &[String], output: &Path) -> Result<()> {
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
        let inputs = |files: &[&Path], require: &[&str]| {
            let require: Vec<String> = require.iter().map(|name| (*name).to_owned()).collect();
            Inputs::of(files, &options("x86_64", &require)).unwrap().0
        };
        let whole = inputs(&[&one, &other], &["a"]);
        assert_eq!(whole, inputs(&[&one, &other], &["a"]));
        for different in [inputs(&[&other, &one], &["a"]), inputs(&[&one, &other], &["b"])] {
            assert_ne!(whole, different);
        }
    }
}
