//! Builds the programs that end-to-end tests, measurements and releases run: each crate once.
//!
//! Cargo compiles a crate again for other features, and the features of a crate depend on all packages that
//! are chosen. So programs that share crates are built with the same choice of packages, whichever of them
//! is asked for: those of a release with [`OF_A_RELEASE`], those that run unoptimized with the whole
//! workspace, as the tests are. The test [`one_build`](crate::one_build) compares what cargo would compile.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{process, reproducible::Checkout, toolchain, workspace};

/// Paths of programs that were just built.
pub(crate) struct Binaries {
    /// `linux-actiond`.
    pub(crate) daemon: PathBuf,
    /// The program that the actions of the tests run. It is linked statically, for it runs in sandboxes that
    /// hold nothing but an action's inputs.
    pub(crate) action_tool: PathBuf,
}

impl Binaries {
    pub(crate) fn build() -> Result<Self> {
        let daemon = build("actiond", "linux-actiond")?;
        let action_tool = build_static(&Checkout::own()?, "action-tool", "action-tool", &[])?;
        Ok(Self { daemon, action_tool })
    }
}

/// After all other arguments of `cargo rustc`: one file without symbols, which needs no other.
pub(crate) const STATIC: [&str; 5] =
    ["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"];

/// The packages that are chosen for each program in release. `actiond` alone resolves the same features, as
/// it must: cargo takes one package where a program is linked statically.
pub(crate) const OF_A_RELEASE: [&str; 3] = ["actiond", "attack", "bench"];

/// The packages that are chosen beside these for their own programs only. The compressor for images and gRPC's
/// compression of messages bring features of zstd that the daemon must not have, such as the decoders of old
/// formats.
const WITH_ALL_OF_ZSTD: [&str; 2] = ["packaging", "conformance"];

/// Builds one program's release, and gives its path.
pub(crate) fn build(package: &str, program: &str) -> Result<PathBuf> {
    build_in(&Checkout::own()?, package, program)
}

/// The same in another checkout.
pub(crate) fn build_in(checkout: &Checkout, package: &str, program: &str) -> Result<PathBuf> {
    compile(checkout, "build", &selection(package, program)?, program, &[])
}

/// The same for a program that needs no other file to run, with these features of its package only.
pub(crate) fn build_static(
    checkout: &Checkout,
    package: &str,
    program: &str,
    features: &[&str],
) -> Result<PathBuf> {
    let words = [&["--package", package, "--bin", program], features].concat();
    compile(checkout, "rustc", &words, program, &STATIC)
}

/// The arguments of cargo that choose a program in release.
fn selection<'a>(package: &'a str, program: &'a str) -> Result<Vec<&'a str>> {
    let own = WITH_ALL_OF_ZSTD.into_iter().filter(|name| *name == package);
    let packages = OF_A_RELEASE.into_iter().chain(own);
    let words: Vec<&str> = packages.flat_map(|name| ["--package", name]).collect();
    if !words.contains(&package) {
        bail!("{package} has no program in release");
    }
    Ok([&words[..], &["--bin", program]].concat())
}

fn compile(
    checkout: &Checkout,
    verb: &str,
    selection: &[&str],
    program: &str,
    more: &[&str],
) -> Result<PathBuf> {
    let triple = workspace::host_triple()?;
    let mut command = process::cargo();
    command.args([verb, "--locked", "--release"]).args(selection);
    command.args(["--target", &triple]).args(more);
    checkout.apply(&mut command, &toolchain::sysroot()?, &[])?;
    process::run(&mut command)?;
    Ok(checkout.target.join(triple).join("release").join(program))
}

/// A program that runs unoptimized.
#[derive(Clone, Copy)]
pub(crate) enum Unoptimized {
    /// The example that writes manual pages and completions.
    Documents,
    /// The program for macOS, built for this machine.
    DarwinActiond,
    /// The daemon, as its own tests start it.
    Daemon,
    /// The program with the checks of `cargo xtask conformance`.
    Conformance,
}

impl Unoptimized {
    /// Builds it as `cargo test --workspace` does, and gives its path.
    pub(crate) fn build(self) -> Result<PathBuf> {
        let mut cargo = process::cargo();
        cargo.args(["build", "--locked", "--quiet"]).args(self.selection());
        cargo.args(["--message-format", "json-render-diagnostics"]);
        let messages = process::output(&mut cargo)?;
        executable_named(&messages, self.name())
            .with_context(|| format!("cargo built no {}", self.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::DarwinActiond => "darwin-actiond",
            Self::Daemon => "linux-actiond",
            Self::Conformance => "actiond-conformance",
        }
    }

    /// The arguments of cargo that choose it. An example is always chosen: without, and without tests, cargo
    /// leaves out the features that tests ask for.
    pub(crate) fn selection(self) -> Vec<&'static str> {
        let mut words = vec!["--workspace", "--example", "documents"];
        match self {
            Self::Documents => {}
            Self::DarwinActiond | Self::Daemon | Self::Conformance => {
                words.extend(["--bin", self.name()]);
            }
        }
        words
    }
}

/// The last executable that cargo's messages name, one JSON object a line.
pub(crate) fn executable(messages: &str) -> Option<PathBuf> {
    executables(messages).next_back()
}

pub(crate) fn executable_named(messages: &str, name: &str) -> Option<PathBuf> {
    executables(messages).find(|path| path.file_name().is_some_and(|file| file == name))
}

/// The binary of the tests that are called `name`; its file has a hash after that.
pub(crate) fn test_named(messages: &str, name: &str) -> Option<PathBuf> {
    executables(messages).find(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.rsplit_once('-').is_some_and(|(before, _)| before == name)
    })
}

fn executables(messages: &str) -> impl DoubleEndedIterator<Item = PathBuf> {
    messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(|path| Path::new(path).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_in_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/a-1\"}\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/b-2\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\n";
        assert_eq!(executable(messages), Some("/t/b-2".into()));
        assert_eq!(executable_named(messages, "a-1"), Some("/t/a-1".into()));
        assert_eq!(executable_named(messages, "c-3"), None);
        assert_eq!(test_named(messages, "b"), Some("/t/b-2".into()));
        assert_eq!(test_named(messages, "b-2"), None);
        assert_eq!(executable(""), None);
    }

    #[test]
    fn only_their_own_programs_are_built_with_all_of_zstd() {
        for package in WITH_ALL_OF_ZSTD {
            assert!(selection(package, "x").unwrap().contains(&package));
            assert!(!selection("actiond", "x").unwrap().contains(&package));
        }
        selection("testkit", "x").unwrap_err();
    }
}
