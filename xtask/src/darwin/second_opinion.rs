//! Another's reader of signatures: rcodesign, the tool of the crate `apple-codesign`.
//!
//! It is a program that is run, not a library that is linked, so that neither its licence (MPL-2.0)
//! nor its four hundred crates are ours. Built once, into the user's cache.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::entitlements::Entitlements;
use crate::{process, workspace};

const VERSION: &str = "0.29.0";

/// Has it find the hashes and the entitlements in `program`.
pub(super) fn check(program: &Path, entitlements: &Entitlements) -> Result<()> {
    let tool = tool()?;
    let ask = |verb: &str| process::output(Command::new(&tool).arg(verb).arg(program));
    ask("verify").context("rcodesign does not verify the signature")?;
    let said = ask("print-signature-info")?;
    for key in entitlements.keys() {
        ensure!(said.contains(key.as_str()), "rcodesign sees no entitlement {key}");
    }
    ensure!(said.contains("ADHOC"), "rcodesign does not see an ad-hoc signature");
    Ok(())
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
