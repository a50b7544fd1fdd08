//! `cargo xtask darwin`: the macOS program, built on Linux, and all that can be proved of it here.
//!
//! ```text
//!  toolchain ─► lint ─► link with payloads in sections ─► sign ─► verify ─► extract on Linux
//!     │ std from source    │ rust-lld, stubs of Apple's      │ ad-hoc,        │ our reader, and
//!     │                    │ libraries                       │ entitlement    │ on demand rcodesign
//! ```
//! Nothing of it runs on macOS here: what somebody with a Mac has to look at is in
//! `docs/macos-checklist.md`. Without payloads of its own the verb uses stand-ins, and what it makes
//! is a proof; with a kernel, an initramfs and runtimes for arm64 it is a release.
//!
//! - [`toolchain`]: a standard library for a target that came without.
//! - [`stubs`]: an SDK of names. - [`build`]: cargo, with both.
//! - [`payloads`]: what goes into the program, and whether it comes out again.
//! - [`entitlements`], [`macho`], [`signature`]: signing. - [`verify`]: reading it back.
//! - [`second_opinion`]: another's reader.

mod build;
mod entitlements;
mod macho;
mod payloads;
mod second_opinion;
mod signature;
mod stubs;
pub(crate) mod toolchain;
mod verify;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::workspace;
use build::{Build, Profile};
use entitlements::Entitlements;
use payloads::{PayloadArguments, Payloads};
use verify::Signed;

/// By this name macOS knows the program.
const IDENTIFIER: &str = "dev.actiond.darwin-actiond";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    payloads: PayloadArguments,
    /// Optimize, as for users.
    #[arg(long)]
    release: bool,
    /// Have the signature read by rcodesign too, which is built once and takes minutes.
    #[arg(long)]
    second_opinion: bool,
    /// Where the program goes [default: target/darwin/darwin-actiond].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let output = arguments.output.clone();
    let output = output.unwrap_or_else(|| build::folder().join("darwin-actiond"));
    let build = Build::new()?;
    build.lint()?;
    let payloads = Payloads::stage(&arguments.payloads, &build::folder().join("payloads"))?;
    let profile = if arguments.release { Profile::Release } else { Profile::Dev };
    let linked = build.link(&payloads, profile)?;
    sign(&linked, &output)?;
    let signed = check(&output)?;
    println!("darwin: {} is signed, {} pages", signed.identifier, signed.pages.len());
    payloads.check_extraction(&output)?;
    println!("darwin: extracted as they went in: {}", payloads.names());
    if arguments.second_opinion {
        second_opinion::check(&output, &signed, &our_entitlements()?)?;
        println!("darwin: rcodesign says the same of the signature");
    }
    println!("darwin: {}", output.display());
    Ok(())
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

/// Reads the file back, as it is on disk.
fn check(program: &Path) -> Result<Signed> {
    let file = fs::read(program)?;
    let signed = verify::verify(&file).context("the signature does not verify")?;
    let ours = our_entitlements()?;
    ensure!(signed.identifier == IDENTIFIER, "the identifier is {}", signed.identifier);
    ensure!(
        signed.entitlements.as_deref() == Some(ours.property_list()),
        "the entitlements are others"
    );
    ensure!(signed.entitlements_der == Some(ours.der()?), "the entitlements in DER are others");
    Ok(signed)
}
