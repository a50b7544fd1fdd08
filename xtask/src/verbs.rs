//! `cargo xtask VERB`: the one entry for everything that is longer than a line.
//!
//! A verb is a module with a `run` function. People and CI use the same ones. The parts that verbs share:
//! [`xtask`] knows where things are, runs programs and becomes root for those that need it,
//! [`state_volume`] makes the file system that tests keep their state on, [`daemon`] is the
//! daemon under test.

mod arch;
mod attack;
mod bench;
mod binaries;
mod cargo_test;
#[cfg(test)]
mod claims;
mod conformance;
mod daemon;
mod daemon_log;
mod darwin;
mod debian_mirror;
mod dist;
mod e2e;
#[cfg(test)]
mod error_rule;
mod fuzz;
mod guest_program;
mod initramfs;
mod kernel;
#[cfg(test)]
mod layering;
mod leftovers;
mod lint;
#[cfg(test)]
mod module_circles;
mod npm;
#[cfg(test)]
mod one_build;
mod profile;
mod proto;
mod reproducible;
mod runtimes;
mod state_volume;
mod test;
mod timings;
mod toolchain;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};
use xtask::{process, setup, workspace};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own verbs")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building and testing need from the distribution.
    Setup,
    /// Set up, build a release, and run `linux-actiond serve` as root.
    Serve(ServeArguments),
    /// Build the image of C libraries and shells that actions can ask for.
    Runtimes(runtimes::Arguments),
    /// Make a release: the daemon with runtimes inside, and a Debian package.
    Dist(dist::Arguments),
    /// Check formatting, lints, and what the project depends on.
    Lint,
    /// Set up, run every test of the workspace as root, then the attacks and the end-to-end tests.
    Test(test::Arguments),
    /// Run real clients against the real daemon.
    E2e(e2e::Arguments),
    /// Build the program for macOS, and prove what can be proved of it here.
    Darwin(darwin::Arguments),
    /// Measure the daemon.
    Bench(bench::Arguments),
    /// Draw a flame graph of the daemon under load.
    Profile(profile::Arguments),
    /// Attack the daemon, and see that nothing gives way.
    Attack(attack::Arguments),
    /// Check the daemon, or another server, against the Remote Execution API.
    Conformance(conformance::Arguments),
    /// Feed random input to the parsers, guided by coverage.
    Fuzz(fuzz::Arguments),
    /// Compile the .proto files to the code in `crates/proto`.
    Proto,
    /// Make tables of the times in a daemon's log.
    Timings(timings::Arguments),
    /// Build the guest's kernel, or test actiondfs.
    Kernel(kernel::Arguments),
    /// Write the file system that a guest boots into.
    Initramfs(initramfs::Arguments),
    /// Run one test binary as root with a state volume of its own (cargo's runner).
    #[command(hide = true)]
    RunTest(cargo_test::RunnerArguments),
    /// Make one of the things that `test` makes beside its steps.
    #[command(hide = true)]
    TestPart(test::PartArguments),
    /// Mount a state volume in this private mount namespace, then become a program.
    #[command(hide = true)]
    InStateVolume(state_volume::Arguments),
    /// The part of `e2e` that runs as root on a state volume.
    #[command(hide = true)]
    E2eInside(e2e::InsideArguments),
    /// The part of `e2e buildgrid` that runs as root on a state volume.
    #[command(hide = true)]
    E2eBuildgridInside(e2e::BuildgridArguments),
    /// The part of `e2e upstream` that runs as root on a state volume, in a network namespace of its own.
    #[command(hide = true)]
    E2eUpstreamInside(e2e::UpstreamArguments),
    /// The part of `conformance` that runs as root on a state volume.
    #[command(hide = true)]
    ConformanceInside(conformance::InsideArguments),
    /// The part of `bench` that runs as root on a state volume.
    #[command(hide = true)]
    BenchInside(bench::InsideArguments),
    /// The part of `profile` that runs as root on a state volume.
    #[command(hide = true)]
    ProfileInside(profile::InsideArguments),
    /// The part of `attack` that runs as root on a state volume.
    #[command(hide = true)]
    AttackInside(attack::InsideArguments),
}

#[derive(clap::Args)]
struct ServeArguments {
    /// Flags of `linux-actiond serve`, as they are.
    #[arg(last = true)]
    flags: Vec<OsString>,
}

fn main() -> ExitCode {
    match process::this_program().and_then(|_| run(Arguments::parse().verb)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Setup => setup::run_for_tests(),
        Verb::Serve(arguments) => xtask::serve::run(&arguments.flags),
        Verb::Runtimes(arguments) => runtimes::run(&arguments),
        Verb::Dist(arguments) => dist::run(&arguments),
        Verb::Lint => lint::run(),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::E2e(arguments) => e2e::run(&arguments),
        Verb::Darwin(arguments) => darwin::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Profile(arguments) => profile::run(&arguments),
        Verb::Attack(arguments) => attack::run(&arguments),
        Verb::Conformance(arguments) => conformance::run(&arguments),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Proto => proto::run(),
        Verb::Timings(arguments) => timings::run(&arguments),
        Verb::Kernel(arguments) => kernel::run(&arguments),
        Verb::Initramfs(arguments) => initramfs::run(&arguments),
        Verb::RunTest(arguments) => cargo_test::run_one(&arguments),
        Verb::TestPart(arguments) => test::run_part(&arguments),
        Verb::InStateVolume(arguments) => state_volume::enter(&arguments),
        Verb::E2eInside(arguments) => e2e::run_inside(&arguments),
        Verb::E2eBuildgridInside(arguments) => e2e::run_buildgrid_inside(&arguments),
        Verb::E2eUpstreamInside(arguments) => e2e::run_upstream_inside(&arguments),
        Verb::ConformanceInside(arguments) => conformance::run_inside(&arguments),
        Verb::BenchInside(arguments) => bench::run_inside(&arguments),
        Verb::ProfileInside(arguments) => profile::run_inside(&arguments),
        Verb::AttackInside(arguments) => attack::run_inside(&arguments),
    }
}
