//! `cargo xtask fuzz`: runs the fuzz targets in `fuzz/src/bin`, guided by coverage.
//!
//! libFuzzer steers by counters on the edges of the code under test. The LLVM pass that inserts them
//! is in the stable compiler; only the sanitizers, which find mistakes of unsafe code, need a nightly
//! one. libFuzzer itself comes with `libfuzzer-sys` and needs a C++ compiler.
//!
//! A target starts with the inputs in `fuzz/corpus`, and keeps those that reached new code in the
//! target folder, for the next run. An input that made it fail is there too.

use std::{
    fs::{self, File},
    io, iter,
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    process,
    setup::{self, Need},
    workspace,
};

pub(crate) const CXX: Need = Need { program: "c++", package: "g++", why: "compiles libFuzzer" };

/// The flags that `cargo fuzz` passes as well, but for sanitizers: counters on edges, a table of the code that
/// they count, and calls that show the operands of comparisons to the fuzzer.
const RUSTFLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
];

/// The memory that a target may take. No input is near it, so that one which makes a parser hoard
/// memory is found.
const MAX_MEMORY: &str = "-rss_limit_mb=512";
/// The longest that one input may take, in seconds: busy machines stall a process for some.
const MAX_INPUT_TIME: &str = "-timeout=20";
/// The longest input, in bytes. Mutations of longer ones rarely hit what matters.
const MAX_INPUT_BYTES: &str = "-max_len=8192";

/// A tmpfs on every distribution; containers may have none, or one of 64 MiB.
const SHARED_MEMORY: &str = "/dev/shm";
/// The free space there from which on it is used. No target has more than some MiB at a time.
const ROOM_BYTES: u64 = 256 << 20;

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// How long each target runs.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// The targets; default: all of them.
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

impl Arguments {
    /// Every target for a moment: it starts with its corpus, and a fault that is easily found is found.
    pub(crate) fn for_a_moment() -> Self {
        Self { seconds: 5, targets: Vec::new() }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let known = targets()?;
    let chosen = if arguments.targets.is_empty() { &known } else { &arguments.targets };
    for name in chosen {
        ensure!(known.contains(name), "no fuzz target {name}: there are {}", known.join(", "));
    }
    setup::ensure(&[CXX])?;
    let programs = build()?;
    side_by_side(chosen, |name| fuzz(&programs, name, arguments.seconds))
}

/// Runs targets, as many at once as there are processors. The others run on when one fails.
fn side_by_side(names: &[String], run: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
    let left = Mutex::new(names.iter());
    let next = || left.lock().expect("nothing panics in `next`").next();
    let run_next = || {
        let results = iter::from_fn(next).map(|name| run(name));
        results.filter_map(Result::err).map(|error| format!("{error:#}")).collect::<Vec<_>>()
    };
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let failures: Vec<_> = thread::scope(|scope| {
        let runners: Vec<_> = (0..processors).map(|_| scope.spawn(run_next)).collect();
        let joined = runners.into_iter().map(|it| it.join().expect("a failure is an error"));
        joined.flatten().collect()
    });
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// The names of all targets: a file in `fuzz/src/bin` each.
fn targets() -> Result<Vec<String>> {
    let folder = workspace::root().join("fuzz/src/bin");
    let entries = fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets; returns the folder that holds them.
fn build() -> Result<PathBuf> {
    let (triple, target) = (workspace::host_triple()?, workspace::target().join("fuzz"));
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--release", "--locked", "--bins", "--target", &triple, "--target-dir"])
        .arg(&target)
        .arg("--manifest-path")
        .arg(workspace::root().join("fuzz/Cargo.toml"))
        // With a target named, these are not for build scripts and macros.
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"));
    process::run(&mut cargo)?;
    Ok(target.join(triple).join("release"))
}

fn fuzz(programs: &Path, name: &str, seconds: u32) -> Result<()> {
    let work = workspace::target().join("fuzz").join("work").join(name);
    let found = work.join("found");
    fs::create_dir_all(&found)?;
    let temporary = temporary(Path::new(SHARED_MEMORY), &work)?;
    let log = work.join("log");
    let mut program = Command::new(programs.join(name));
    program
        .arg(format!("-max_total_time={seconds}"))
        .args([MAX_MEMORY, MAX_INPUT_TIME, MAX_INPUT_BYTES])
        .arg(format!("-artifact_prefix={}/", work.display()))
        // The first folder takes what is new.
        .arg(&found)
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?);
    let seeds = workspace::root().join("fuzz/corpus").join(name);
    if seeds.is_dir() {
        program.arg(&seeds);
    }
    let status = program.status().with_context(|| format!("cannot run the target {name}"))?;
    temporary.close()?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let panicked = text.lines().find(|line| line.contains("panicked at")).unwrap_or_default();
        bail!("{name} failed ({status}); {} has its last words. {panicked}", log.display());
    }
    let Summary { runs, coverage } = Summary::of(&text)
        .with_context(|| format!("{name} did not say what it did; see {}", log.display()))?;
    println!("fuzz: {name}: {runs} inputs, {coverage} edges");
    Ok(())
}

/// A new folder for the files that a target makes for its inputs: in `memory`, or in `work` where memory has no room. On a
/// disk that others use, a target made three inputs in a second, and 5,000 in memory.
fn temporary(memory: &Path, work: &Path) -> Result<TempDir> {
    let make = |place| tempfile::Builder::new().prefix("actiond-fuzz-").tempdir_in(place);
    let has_room = rustix::fs::statvfs(memory)
        .is_ok_and(|memory| memory.f_bavail.saturating_mul(memory.f_frsize) >= ROOM_BYTES);
    let in_memory = has_room.then(|| make(memory)).and_then(io::Result::ok);
    in_memory
        .map_or_else(|| make(work).with_context(|| format!("no folder in {}", work.display())), Ok)
}

/// The outcome of a run.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    runs: u64,
    /// How many edges of the code were reached.
    coverage: u64,
}

impl Summary {
    /// Reads libFuzzer's line `#RUNS DONE cov: EDGES ft: …`.
    fn of(log: &str) -> Option<Self> {
        let done = log.lines().rev().find(|line| line.contains("DONE"))?;
        let mut words = done.split_whitespace();
        let runs = words.next()?.strip_prefix('#')?.parse().ok()?;
        let coverage = words.skip_while(|word| *word != "cov:").nth(1)?.parse().ok()?;
        Some(Self { runs, coverage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_runs_and_every_failure_is_told() {
        let names: Vec<_> = (0..20).map(|number| format!("target-{number}")).collect();
        let ran = Mutex::new(Vec::new());
        let run = |name: &str| {
            ran.lock().unwrap().push(name.to_owned());
            ensure!(!name.ends_with('7'), "{name} failed");
            Ok(())
        };
        let failed = side_by_side(&names, run).unwrap_err().to_string();
        let mut failed: Vec<_> = failed.lines().collect();
        failed.sort_unstable();
        assert_eq!(failed, ["target-17 failed", "target-7 failed"]);
        let mut ran = ran.into_inner().unwrap();
        ran.sort_unstable();
        let mut expected = names.clone();
        expected.sort_unstable();
        assert_eq!(ran, expected);
        side_by_side(&names, |_| Ok(())).unwrap();
    }

    #[test]
    fn targets_are_files() {
        assert!(targets().unwrap().iter().any(|name| name == "erofs_image"));
    }

    #[test]
    fn files_of_targets_are_in_memory_where_it_has_room() {
        let (memory, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let check = |memory: &Path, expected: &Path| {
            let made = temporary(memory, work.path()).unwrap();
            assert_eq!(made.path().parent(), Some(expected), "{}", memory.display());
            let path = made.path().to_owned();
            made.close().unwrap();
            assert!(!path.exists());
        };
        check(memory.path(), memory.path());
        check(&memory.path().join("not-there"), work.path());
        // A file system without free space.
        check(Path::new("/proc"), work.path());
    }

    #[test]
    fn the_summary_is_read_from_the_log() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 3 ft: 4\n\
                   #271844\tDONE   cov: 153 ft: 490 corp: 147/10821b lim: 1730 exec/s: 30204\n\
                   ###### Recommended dictionary. ######\n";
        assert_eq!(Summary::of(log), Some(Summary { runs: 271_844, coverage: 153 }));
        assert_eq!(Summary::of("Done 12 runs in 9 second(s)"), None);
    }
}
