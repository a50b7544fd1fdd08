//! The release for macOS: the signed executable, and what installs it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{Runtimes, payloads::Payloads};
use crate::{arch::Arch, darwin, process, reproducible::Checkout, workspace};

const PROGRAM: &str = "darwin-actiond";

/// Files of `packaging/macos` that go along as they are.
const AS_THEY_ARE: [&str; 1] = ["dev.actiond.darwin-actiond.plist"];

/// The placeholder in the formula for the hash of the archive.
const FORMULA_HASH: &str = "RELEASE_SHA256";

/// Makes the release in `output`, with that time on everything in it.
pub(super) fn make(output: &Path, runtimes: &Runtimes, time_s: &str) -> Result<()> {
    let payloads = Payloads::provide(Arch::Aarch64, runtimes)?;
    fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    let given = darwin::Given {
        kernel: payloads.kernel,
        initramfs: payloads.initramfs,
        runtimes: payloads.runtimes,
    };
    let program = output.join(PROGRAM);
    darwin::release(&given, &program)?;
    Checkout::own()?.ensure_unnamed_in(&program)?;
    let sources = workspace::root().join("packaging/macos");
    for name in AS_THEY_ARE {
        fs::copy(sources.join(name), output.join(name)).with_context(|| name.to_owned())?;
    }
    let archive = archive(output, time_s)?;
    let formula = fs::read_to_string(sources.join("actiond.rb"))?;
    ensure!(formula.contains(FORMULA_HASH), "the formula has no place for a hash");
    fs::write(output.join("actiond.rb"), formula.replace(FORMULA_HASH, &sha256(&archive)?))?;
    Ok(())
}

/// The file that Homebrew fetches: the executable in a tar archive, which has no time or owner of its own.
fn archive(output: &Path, time_s: &str) -> Result<std::path::PathBuf> {
    let name = format!("{PROGRAM}-{}-aarch64.tar.gz", env!("CARGO_PKG_VERSION"));
    let path = output.join(name);
    process::run(
        Command::new("tar")
            .args(["--create", "--format=ustar", "--owner=root:0", "--group=wheel:0"])
            .arg(format!("--mtime=@{time_s}"))
            .args(["--use-compress-program=gzip --best --no-name", "--file"])
            .arg(&path)
            .arg("--directory")
            .arg(output)
            .arg(PROGRAM),
    )?;
    Ok(path)
}

fn sha256(path: &Path) -> Result<String> {
    let said = process::output(Command::new("sha256sum").arg(path))?;
    Ok(said.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}
