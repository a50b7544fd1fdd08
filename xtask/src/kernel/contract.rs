//! `cargo xtask kernel contract`: the contract tests of `crates/inputroot` in our own guest's kernel,
//! which alone has actiondfs.
//!
//! Their binaries are linked statically and lie beside the test program of `test/vm` in the VM, which
//! runs each line of the file `programs`. The same tests run with EROFS, as the guest falls back to
//! it, so that both strategies of the guest are seen to hold in its kernel.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Flavour, vm};
use crate::arch::Arch;
use crate::{binaries, process, workspace};

/// The test to run: the name of the test target (none: the library's own tests) and its arguments. In
/// the VM there is no python3, which the test of mappings needs; `test/vm/reading.c` has its cases.
const PROGRAMS: [Program; 2] = [
    Program {
        name: "contract",
        target: None,
        arguments: "--include-ignored actiondfs erofs_file_by_path \
                    --skip inputs_cannot_be_mapped_for_writing",
    },
    Program { name: "nothing-left", target: Some("nothing_left"), arguments: "--nocapture" },
];

struct Program {
    name: &'static str,
    target: Option<&'static str>,
    arguments: &'static str,
}

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The kernel to boot: `debug` looks for mistakes that do not show.
    #[arg(long, value_enum, default_value_t = Flavour::Release)]
    flavour: Flavour,
    /// Print the whole console.
    #[arg(long)]
    verbose: bool,
}

impl Arguments {
    /// On the kernel that is shipped.
    pub(super) fn of_release() -> Self {
        Self { flavour: Flavour::Release, verbose: false }
    }
}

/// The sum of libtest's lines.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    passed: usize,
    of_actiondfs: usize,
    skipped: Vec<String>,
}

impl Tally {
    fn take(&mut self, line: &str) {
        if line.starts_with("test ") && line.ends_with(" ... ok") {
            self.passed += 1;
            self.of_actiondfs += usize::from(line.contains("actiondfs"));
        } else if line.starts_with("SKIPPED: ") {
            self.skipped.push(line.to_owned());
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let folder = workspace::target().join("kernel/contract");
    fs::create_dir_all(&folder)?;
    let list = folder.join("programs");
    let lines = PROGRAMS.iter().map(|it| format!("/{} {}\n", it.name, it.arguments));
    fs::write(&list, lines.collect::<String>())?;
    let binaries = PROGRAMS.iter().map(build).collect::<Result<Vec<_>>>()?;
    let mut files = vec![("programs", list.as_path())];
    files.extend(PROGRAMS.iter().zip(&binaries).map(|(it, path)| (it.name, path.as_path())));

    let mut tally = Tally::default();
    let boot = vm::Boot {
        arch: Arch::host(),
        flavour: arguments.flavour,
        append: "quiet actiondfs.programs",
        fine_clock: false,
        files: &files,
    };
    let verdict = vm::judge(&boot, arguments.verbose, |line| tally.take(line))?;
    tally.skipped.iter().for_each(|line| println!("{line}"));
    println!("kernel: {} tests of input roots passed in the VM", tally.passed);
    ensure!(tally.of_actiondfs > 0, "no test of actiondfs was run");
    verdict.ensure_good("the contract of input roots")
}

/// Builds a test binary that needs no other file.
fn build(program: &Program) -> Result<PathBuf> {
    let mut build = process::cargo();
    build.args(["rustc", "--locked", "--package", "inputroot", "--profile", "test"]);
    match program.target {
        Some(target) => build.args(["--test", target]),
        None => build.arg("--lib"),
    };
    build.args(["--message-format", "json-render-diagnostics"]);
    build.args(["--", "-C", "target-feature=+crt-static", "-C", "strip=debuginfo"]);
    binaries::executable(&process::output(&mut build)?).context("cargo built no test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_actiondfs_are_counted() {
        let mut tally = Tally::default();
        for line in [
            "test tests::actiondfs::blake3 ... ok",
            "test tests::erofs_file_by_path::blake3 ... ok",
            "test tests::actiondfs::a ... FAILED",
            "test tests::measure ... ignored, by hand",
            "SKIPPED: bind: why",
        ] {
            tally.take(line);
        }
        let skipped = vec!["SKIPPED: bind: why".to_owned()];
        assert_eq!(tally, Tally { passed: 2, of_actiondfs: 1, skipped });
    }
}
