//! Whether a checkout elsewhere gives the same programs.
//!
//! The sources are copied to a folder with another name, of another length, and built there into an
//! empty target folder with another cargo home: what depends on any of those paths differs. The
//! packages around the programs are made from bytes alone.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::linux;
use crate::{guest_program, process, reproducible::Checkout, workspace};

/// Builds the daemon and the guest here and there, and compares them.
pub(super) fn run() -> Result<()> {
    let here = Checkout::own()?;
    let folder = workspace::target().join("elsewhere");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let there = Checkout {
        root: folder.join("a checkout of another name"),
        target: folder.join("built"),
        cargo_home: folder.join("cargo"),
    };
    copy_sources(&here.root, &there.root)?;
    mirror(&here.cargo_home, &there.cargo_home)?;
    for build in [linux::stripped, guest_program::build_native] {
        same(&build(&here)?, &build(&there)?)?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn same(here: &Path, there: &Path) -> Result<()> {
    ensure!(
        fs::read(here)? == fs::read(there)?,
        "{} and {} differ",
        here.display(),
        there.display()
    );
    println!("dist: {} is the same, built elsewhere", here.display());
    Ok(())
}

/// The files that git knows, or would take, as they are now.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut git = Command::new("git");
    git.current_dir(from);
    let files = process::output(git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--deduplicate",
    ]))?;
    let there: Vec<&str> =
        files.split_terminator('\0').filter(|it| from.join(it).exists()).collect();
    let mut cp = Command::new("xargs")
        .args([
            "--null",
            "cp",
            "--parents",
            "--no-dereference",
            "--preserve=mode",
            "--target-directory",
        ])
        .arg(to)
        .current_dir(from)
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start xargs")?;
    cp.stdin.take().context("it reads names")?.write_all(there.join("\0").as_bytes())?;
    ensure!(cp.wait()?.success(), "the sources can't be copied");
    Ok(())
}

/// A folder with a link to everything that is in another, such as the registry and the settings.
fn mirror(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let link: PathBuf = to.join(entry.file_name());
        std::os::unix::fs::symlink(entry.path(), link)?;
    }
    Ok(())
}
