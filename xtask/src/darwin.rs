//! `cargo xtask darwin`: the macOS program, built on Linux, and all that can be proved of it here.
//!
//! ```text
//!  toolchain ─► lint ─► link with payloads in sections ─► sign ─► verify ─► extract on Linux
//!     │ std from source    │ rust-lld, stubs of Apple's      │ ad-hoc,        │ our reader, another's,
//!     │                    │ libraries                       │ entitlement    │ on demand rcodesign
//! ```
//! Nothing of it runs on macOS here: what somebody with a Mac has to look at is in
//! `docs/macos-checklist.md`. The program that the verb makes carries stand-ins and is a proof; a release, which
//! carries a kernel, an initramfs and runtimes for arm64, is made by [`dist`](crate::dist).
//!
//! - [`stubs`]: an SDK of names. - [`build`]: cargo, with that and a standard library of its own.
//! - [`payloads`]: what goes into the program, and whether it comes out again.
//! - [`entitlements`], [`macho`], [`signature`]: signing. - [`verify`]: reading it back.
//! - [`second_opinion`]: another's reader. - [`rcodesign`]: another's signer, which reads as well.

mod build;
mod entitlements;
mod macho;
mod payloads;
mod rcodesign;
mod second_opinion;
mod signature;
mod stubs;
mod verify;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{toolchain::NoSources, workspace};
use build::{Build, Profile};
use entitlements::Entitlements;
pub(crate) use payloads::Given;
use payloads::Payloads;
use verify::Signed;

/// By this name macOS knows the program.
const IDENTIFIER: &str = "dev.actiond.darwin-actiond";

#[derive(Default, clap::Args)]
pub(crate) struct Arguments {
    /// Have the hashes of all pages computed by rcodesign too, which is built once and takes minutes.
    #[arg(long)]
    rcodesign: bool,
}

/// The proof: lints, then makes a program with stand-ins for payloads.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let build = Build::new()?;
    build.lint()?;
    let output = build::folder().join("darwin-actiond");
    let signed = make(&build, None, Profile::Dev, &output)?;
    if arguments.rcodesign {
        rcodesign::check(&output, &signed, &our_entitlements()?)?;
        println!("darwin: rcodesign says the same of the signature");
    }
    println!("darwin: {}", output.display());
    Ok(())
}

/// The proof as a part of all tests, which skip it where nobody can build the standard library.
pub(crate) fn run_if_possible() -> Result<()> {
    if_possible(|| run(&Arguments::default()))
}

/// Lints alone, without a program.
pub(crate) fn lint_if_possible() -> Result<()> {
    if_possible(|| Build::new()?.lint())
}

fn if_possible(run: impl FnOnce() -> Result<()>) -> Result<()> {
    match run() {
        Err(error) if error.is::<NoSources>() => {
            println!("darwin: SKIPPED: {error:#}");
            Ok(())
        }
        outcome => outcome,
    }
}

/// The program for users at `output`, with the same proofs.
pub(crate) fn release(given: &Given, output: &Path) -> Result<()> {
    make(&Build::new()?, Some(given), Profile::Release, output)?;
    Ok(())
}

fn make(build: &Build, given: Option<&Given>, profile: Profile, output: &Path) -> Result<Signed> {
    let payloads = Payloads::stage(given, &build::folder().join("payloads"))?;
    let linked = build.link(&payloads, profile)?;
    sign(&linked, output)?;
    let file = fs::read(output)?;
    let signed = check(&file)?;
    println!("darwin: {} is signed, {} pages", signed.identifier, signed.pages.len());
    second_opinion::check(&file, &payloads, &signed, &our_entitlements()?)
        .context("macho-codesign, another's reader")?;
    println!("darwin: another's reader says the same of the signature and the sections");
    payloads.check_extraction(output)?;
    println!("darwin: extracted as they went in: {}", payloads.names());
    Ok(signed)
}

fn our_entitlements() -> Result<Entitlements> {
    let path = workspace::root().join("packaging/macos/darwin-actiond.entitlements");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Entitlements::parse(&text).with_context(|| path.display().to_string())
}

/// Signs `linked` into `output`, which appears as a new file: macOS remembers signatures by file,
/// and kills a program whose file was written over.
fn sign(linked: &Path, output: &Path) -> Result<()> {
    let mut file = fs::read(linked).with_context(|| format!("cannot read {}", linked.display()))?;
    signature::sign(&mut file, IDENTIFIER, &our_entitlements()?)
        .with_context(|| format!("cannot sign {}", linked.display()))?;
    let partial = output.with_extension("partial");
    fs::write(&partial, file).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    fs::rename(&partial, output).with_context(|| format!("cannot make {}", output.display()))
}

/// Verifies the signature of a file as it is on disk, and that it is ours.
fn check(file: &[u8]) -> Result<Signed> {
    let signed = verify::verify(file).context("the signature does not verify")?;
    let ours = our_entitlements()?;
    ensure!(signed.identifier == IDENTIFIER, "the identifier is {}", signed.identifier);
    ensure!(
        signed.entitlements.as_deref() == Some(ours.property_list()),
        "the entitlements are others"
    );
    ensure!(signed.entitlements_der == Some(ours.der()?), "the entitlements in DER are others");
    Ok(signed)
}
