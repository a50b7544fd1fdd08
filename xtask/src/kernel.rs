//! `cargo xtask kernel`: the guest's kernel, from Debian's source, our fragments and actiondfs.
//!
//! A kernel takes minutes to build, so a built one is kept in the user's cache under the hash of
//! all that went into it. [`Source`](source::Source) fetches, [`Recipe`](recipe::Recipe) says what
//! is built from what, [`build`] does it, [`parser`] and [`vm`] test actiondfs outside of a kernel
//! and inside of one, [`contract`] what the guest makes of it.

mod build;
mod contract;
mod parser;
mod qemu;
mod recipe;
mod source;
pub(crate) mod user;
mod vm;

use anyhow::Result;

use crate::arch::Arch;
use crate::process;
pub(crate) use build::Kernel;
pub(crate) use recipe::Flavour;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    build: BuildArguments,
}

#[derive(clap::Args)]
struct BuildArguments {
    /// The machine the guest runs on.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    arch: Arch,
    /// The purpose of the kernel.
    #[arg(long, value_enum, default_value_t = Flavour::Release)]
    flavour: Flavour,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Test and fuzz the parser of Directory messages, in user space.
    Parser(parser::Arguments),
    /// Check actiondfs with sparse and the compiler's extra warnings.
    Lint(BuildArguments),
    /// Boot a kernel and test actiondfs in it.
    Test(vm::TestArguments),
    /// Boot a kernel and run the contract tests of input roots in it.
    Contract(contract::Arguments),
    /// Boot a kernel and measure actiondfs beside EROFS with overlayfs.
    Measure(vm::MeasureArguments),
}

/// The part of each run of `cargo xtask test`: the parser, then actiondfs and the input roots on top of it
/// in the kernel that is shipped, which was built for the VMs' other tests.
pub(crate) fn check() -> Result<()> {
    parser::run(&parser::Arguments::briefly())?;
    vm::test(&vm::TestArguments::of_release())?;
    contract::run(&contract::Arguments::of_release())
}

/// The part of each run of `cargo xtask lint`, where the kernel's source can be had.
pub(crate) fn lint() -> Result<()> {
    if !process::is_installed("apt-cache") {
        println!(
            "lint: actiondfs: SKIPPED: the kernel's source comes through apt, which is not here"
        );
        return Ok(());
    }
    build::lint(Arch::host(), Flavour::Release)
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.verb {
        None => {
            let kernel = Kernel::build(arguments.build.arch, arguments.build.flavour)?;
            println!("kernel: {}", kernel.image().display());
            Ok(())
        }
        Some(Verb::Parser(arguments)) => parser::run(arguments),
        Some(Verb::Lint(arguments)) => build::lint(arguments.arch, arguments.flavour),
        Some(Verb::Test(arguments)) => vm::test(arguments),
        Some(Verb::Contract(arguments)) => contract::run(arguments),
        Some(Verb::Measure(arguments)) => vm::measure(arguments),
    }
}
