//! `runtime-image`: what `cargo xtask runtimes` runs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use packaging::apt::Archives;
use packaging::build::{self, Options};
use packaging::fetch::Versions;
use packaging::recipe::Architecture;

/// Build a runtime image from a recipe.
#[derive(Parser)]
#[command(name = "runtime-image")]
struct Arguments {
    /// The processor that the image is for [default: this machine's].
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<Architecture>,
    /// Take what the suites have now, and write the lock anew.
    #[arg(long, conflicts_with = "locked")]
    update: bool,
    /// Take exactly what the lock names, or fail.
    #[arg(long)]
    locked: bool,
    /// Take what the lock names from the `.deb` files in this folder, if they are there.
    #[arg(long, value_name = "DIR", requires = "locked")]
    packages: Option<PathBuf>,
    /// Fail when this runtime is unavailable.
    #[arg(long, value_name = "NAME")]
    require: Vec<String>,
    /// The recipe; `runtimes.lock` lies beside it.
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// The file for the image.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The folder that keeps packages between runs [default: in the user's cache].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runtimes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let architecture = arguments.arch.map_or_else(Architecture::native, Ok)?;
    let manifest = build::run(&Options {
        lock: arguments.recipe.with_extension("lock"),
        recipe: arguments.recipe,
        archives: Archives::from_environment(),
        architecture,
        versions: match (arguments.update, arguments.locked) {
            (true, _) => Versions::Update,
            (false, true) => Versions::Locked,
            (false, false) => Versions::Offered,
        },
        packages: arguments.packages,
        require: arguments.require,
        cache: arguments.cache.map_or_else(build::default_cache, Ok)?,
        output: arguments.output.clone(),
    })?;
    let names: Vec<_> = manifest.runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
    println!("{}: {}", arguments.output.display(), names.join(", "));
    Ok(())
}
