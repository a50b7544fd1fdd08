//! `cargo xtask test`: every test of the workspace as root, the conformance checks beside them, then the
//! end-to-end tests and a part of all that with an ordinary user's daemon. The attacks, a part of it against a VM, and actiondfs in
//! its kernel, run beside these; the program for macOS and the releases beside the tests of the workspace, and the
//! fuzz targets beside everything after the build.
//!
//! Cargo builds as the user. Each test binary is then started by cargo through [`cargo_test`], which
//! gives it root and a state volume: that is what the daemon needs, and what a user's own file
//! system should not be used for.
//!
//! Parts that later steps need, and parts that nobody waits for, are made beside the steps ([`Part`],
//! [`steps`]): fetching, the ends of builds and clients that wait leave processors idle.

mod steps;

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    arch::Arch,
    attack,
    binaries::Binaries,
    cargo_test, conformance, darwin, dist, e2e, fuzz,
    kernel::Flavour,
    setup,
    vm::{self, Artifacts},
};
use steps::Steps;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    e2e: e2e::Arguments,
    /// Arguments for `cargo test`, in place of all tests of the workspace; nothing after them then.
    #[arg(last = true)]
    only: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    if !arguments.only.is_empty() {
        return cargo_test::run(&arguments.only, |_| ());
    }
    let mut steps = Steps::begin(arguments.e2e.skipped());
    let result = run_all(arguments, &mut steps);
    print!("{steps}");
    result
}

/// A part that can be made beside a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The kernel, the guest and the runtimes.
    Guest,
    /// The programs that run in release.
    Programs,
    /// The roots that clients live in, and that packages are installed in.
    Roots,
    /// The caches of others, built and fetched.
    Servers,
    /// The program for macOS, with its proofs.
    Macos,
    /// The fuzz targets, built and run for a moment each.
    Fuzz,
    /// A release for Linux.
    Release,
    /// The checks against the clauses of the Remote Execution API.
    Conformance,
    /// The attacks on a daemon, with every strategy of input roots.
    Attacks,
    /// A part of all that against a VM, and actiondfs in its kernel.
    Vms,
}

#[derive(clap::Args)]
pub(crate) struct PartArguments {
    part: Part,
    /// Clients that were left out.
    #[arg(long = "skip", value_name = "CLIENT")]
    skipped: Vec<String>,
}

impl Part {
    /// For people.
    fn name(self) -> &'static str {
        match self {
            Self::Guest => "kernel, guest, runtimes",
            Self::Programs => "programs in release",
            Self::Roots => "clients' roots",
            Self::Servers => "caches of others",
            Self::Macos => "program for macOS",
            Self::Fuzz => "fuzz targets",
            Self::Release => "release for Linux",
            Self::Conformance => "conformance",
            Self::Attacks => "attacks",
            Self::Vms => "VMs",
        }
    }
}

/// Makes one part, for [`run_all`], which finds it made.
pub(crate) fn run_part(arguments: &PartArguments) -> Result<()> {
    match arguments.part {
        Part::Guest => artifacts().map(drop),
        Part::Programs => {
            attack::build()?;
            Binaries::build().map(drop)
        }
        Part::Roots => e2e::provide_roots(),
        Part::Servers => e2e::Servers::provide().map(drop),
        Part::Macos => darwin::run_if_possible(),
        Part::Fuzz => fuzz::run(&fuzz::Arguments::for_a_moment()),
        Part::Release => dist::linux_release(&vm::RUNTIMES.map(str::to_owned)).map(drop),
        Part::Conformance => conformance::run_unoptimized(),
        Part::Attacks => attack::run(&attack::Arguments::all()),
        Part::Vms => e2e::in_vm::run_part(&artifacts()?, &arguments.skipped),
    }
}

fn artifacts() -> Result<Artifacts> {
    Artifacts::provide(Arch::host(), Flavour::Release)
}

fn run_all(arguments: &Arguments, steps: &mut Steps) -> Result<()> {
    let with_clients = arguments.e2e.has_clients();
    let mut first = vec![Part::Guest];
    let mut second = vec![Part::Macos, Part::Conformance, Part::Programs];
    if arguments.e2e.has_servers() {
        first.push(Part::Servers);
    }
    if with_clients {
        first.push(Part::Roots);
        second.push(Part::Release);
    }
    steps.take_beside(&first, "building the tests", cargo_test::build_all)?;
    let vm = artifacts()?;
    let browser = arguments.e2e.browser()?;
    let servers = arguments.e2e.servers()?;
    // No step waits for the fuzz targets, which take the longest to build.
    steps.take_all_beside(&[Part::Fuzz], |steps| {
        steps.take_beside(&second, "tests of the workspace", || {
            cargo_test::run_all(|cargo| {
                vm.tell(cargo);
                if let Some(browser) = &browser {
                    browser.tell(cargo);
                }
                if let Some(servers) = &servers {
                    servers.tell(cargo);
                }
            })
        })?;
        steps.take_all_beside(&[Part::Attacks, Part::Vms], |steps| {
            steps.take("clients", || e2e::run(&arguments.e2e))?;
            steps.take("ordinary users", || e2e::user::run_part(&arguments.e2e))?;
            steps.take("workers of BuildGrid", || e2e::run_buildgrid_part(&arguments.e2e))?;
            steps.take("caches beyond a network", || e2e::run_upstream_part(&arguments.e2e))
        })
    })
}
