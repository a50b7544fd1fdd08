//! `cargo xtask kernel`: the guest's kernel, from Debian's source, our fragments and actiondfs.
//!
//! A kernel takes minutes to build, so a built one is kept in the user's cache under the hash of
//! all that went into it. [`Source`](source::Source) fetches, [`Recipe`](recipe::Recipe) says what
//! is built from what, [`build`] does it, [`parser`] and [`vm`] test actiondfs outside of a kernel
//! and inside of one.

mod build;
mod parser;
mod qemu;
mod recipe;
mod source;
mod vm;

use anyhow::Result;

pub(crate) use build::Kernel;
pub(crate) use recipe::{Arch, Flavour};

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
    /// What the kernel is for.
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
    /// Boot a kernel and measure actiondfs beside EROFS with overlayfs.
    Measure(vm::MeasureArguments),
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
        Some(Verb::Measure(arguments)) => vm::measure(arguments),
    }
}
