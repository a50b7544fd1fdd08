//! `cargo xtask e2e vm`: what `serve` passes, done again with `serve-vm`.
//!
//! The tests of VMs themselves, those of `serve`, the attacks, and Bazel on the stress workspace.
//! Without KVM a VM takes five seconds to boot, and everything in it is some ten times slower than
//! outside, so that each run of `cargo xtask test` has a part of it, and `--all` has the rest.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;

use super::{Materials, bazel, client_command, provide_root};
use crate::{
    arch::Arch,
    attack,
    binaries::Binaries,
    cargo_test,
    kernel::{self, Flavour},
    process, setup,
    vm::Artifacts,
    workspace,
};

/// The test binaries of `crates/actiond/tests` that speak to `serve` alone: what an action does, then
/// what it can't do, then the rest.
const SUITES: [&str; 10] = [
    "execution",
    "operations",
    "sandbox",
    "outputs",
    "input_roots",
    "capabilities",
    "cas",
    "byte_stream",
    "action_cache",
    "bad_input",
];

/// Those that are run each time: one boot a case is what takes the time.
const SUITES_EACH_TIME: &[&str] = &["execution", "operations"];

/// A VM for each core: more only wait for each other.
const THREADS: &str = "--test-threads=2";

/// The verb. A guest for another machine than this one is shown to boot and to run actions, no more: the
/// attacker and the other tests bring programs for this one.
pub(super) fn run(arch: Arch, all: bool) -> Result<()> {
    setup::run()?;
    let artifacts = Artifacts::provide(arch, Flavour::Release)?;
    if arch != Arch::host() {
        return run_suites(&artifacts, SUITES_EACH_TIME);
    }
    cargo_test::run(&words(&["--workspace", "--test", "vm"]), |cargo| {
        artifacts.tell(cargo);
    })?;
    if all {
        run_vsock(&artifacts)?;
    }
    let suites = if all { &SUITES } else { SUITES_EACH_TIME };
    run_suites(&artifacts, suites)?;
    attack::run(&attack::Arguments::in_vm(!all))?;
    run_stress(&artifacts)
}

/// The part of each run of `cargo xtask test` beside the tests of VMs themselves, without the clients that are `skipped`.
pub(crate) fn run_part(artifacts: &Artifacts, skipped: &[String]) -> Result<()> {
    let skips = |name: &str| skipped.iter().any(|skipped| skipped == name);
    if skips(super::VM) {
        println!("e2e vm: SKIPPED, as asked");
        return Ok(());
    }
    kernel::check()?;
    run_suites(artifacts, SUITES_EACH_TIME)?;
    attack::run(&attack::Arguments::in_vm(true))?;
    if skips(bazel::CLIENT.name) {
        println!("e2e vm {}: SKIPPED, as asked", bazel::CLIENT.name);
        return Ok(());
    }
    run_stress(artifacts)
}

/// A guest behind vsock, without a host that has one.
fn run_vsock(artifacts: &Artifacts) -> Result<()> {
    let device = vsock_device()?;
    cargo_test::run(&words(&["--package", "actiond", "--test", "vsock"]), |cargo| {
        artifacts.tell(cargo).env("ACTIOND_TEST_VHOST_DEVICE_VSOCK", device);
    })
}

/// A program of the rust-vmm project, which no distribution has.
fn vsock_device() -> Result<PathBuf> {
    const VERSION: &str = "0.3.0";
    let home = workspace::cache()?.join("vhost-device-vsock").join(VERSION);
    let device = home.join("bin/vhost-device-vsock");
    if !device.is_file() {
        println!("e2e vm: building vhost-device-vsock {VERSION}");
        let install = ["install", "--locked", "--version", VERSION, "--root"];
        process::run(process::cargo().args(install).arg(&home).arg("vhost-device-vsock"))?;
    }
    Ok(device)
}

fn run_suites(artifacts: &Artifacts, suites: &[&str]) -> Result<()> {
    // The whole workspace, so that the features are those that `cargo test --workspace` has built with:
    // for another set of packages cargo would build all of it again.
    let mut arguments = words(&["--workspace", "--no-fail-fast"]);
    for suite in suites {
        arguments.extend(words(&["--test", suite]));
    }
    arguments.extend(words(&["--", THREADS]));
    cargo_test::run(&arguments, |cargo| {
        artifacts.put_into(cargo);
    })
}

/// Bazel's builds of the stress workspace.
fn run_stress(artifacts: &Artifacts) -> Result<()> {
    let root = provide_root(&bazel::CLIENT)?;
    let (binaries, materials) = (Binaries::build()?, Materials::provide()?);
    let inside = artifacts.state_volume_command(process::this_program()?)?;
    let mut inside = client_command(inside, &bazel::CLIENT, &root, &binaries, materials);
    process::run(inside.args(["--suite", "stress"]))
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}
