//! The tool of the crate `apple-codesign`, which reads signatures and computes their hashes.
//!
//! It is a program that is run, not a library that is linked, so that neither its licence (MPL-2.0)
//! nor its four hundred crates are ours. It is built once, into the user's cache, which takes ten
//! minutes: too long for every change, so it has to be asked for.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::entitlements::Entitlements;
use super::verify::Signed;
use crate::{process, workspace};

const VERSION: &str = "0.29.0";

/// Has it compute the hashes of `program`'s pages and read the entitlements, in both of their forms.
///
/// Its verb `verify` is of no use: it says itself that it misleads, and refuses every ad-hoc signature,
/// its own included, for the empty CMS wrapper.
pub(super) fn check(program: &Path, signed: &Signed, entitlements: &Entitlements) -> Result<()> {
    let tool = tool()?;
    let ask = |verb: &str| process::output(Command::new(&tool).arg(verb).arg(program));
    let hashes = ask("compute-code-hashes")?;
    let ours: Vec<String> = signed.pages.iter().map(|hash| hex(hash)).collect();
    ensure!(hashes.lines().eq(&ours), "rcodesign computes other hashes");

    let said = ask("print-signature-info")?;
    let (before, der) = said.split_once("entitlements_der_plist:").context("it reads no DER")?;
    let (_, list) = before.split_once("entitlements_plist:").context("it reads no entitlements")?;
    for key in entitlements.keys() {
        let key = format!("<key>{key}</key>");
        ensure!(list.contains(&key), "rcodesign sees no {key}");
        ensure!(der.contains(&key), "rcodesign sees no {key} in DER");
    }
    ensure!(said.contains("CodeSignatureFlags(ADHOC)"), "rcodesign sees no ad-hoc signature");
    let identifier = format!("identifier: {}\n", signed.identifier);
    ensure!(said.contains(&identifier), "rcodesign sees another identifier");
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tool() -> Result<PathBuf> {
    let home = workspace::cache()?.join("darwin/tools");
    let tool = home.join("bin/rcodesign");
    if !tool.is_file() {
        println!("darwin: building rcodesign {VERSION}");
        process::run(
            process::cargo()
                .args(["install", "--locked", "--no-default-features", "--version", VERSION])
                .arg("--root")
                .arg(&home)
                .arg("apple-codesign"),
        )?;
    }
    Ok(tool)
}
