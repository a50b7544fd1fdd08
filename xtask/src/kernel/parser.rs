//! `cargo xtask kernel parser`: actiondfs' reader of Directory messages, tested and fuzzed in user
//! space, under the address and undefined-behaviour sanitizers.
//!
//! With clang the fuzzer is libFuzzer, which is guided by coverage and keeps what it finds in
//! cargo's target folder; without, it brings a mutator of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{process, workspace};

const FLAGS: [&str; 9] = [
    "-std=gnu11",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Werror",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
];

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The time to fuzz, in seconds, after the unit tests.
    #[arg(long, default_value_t = 20)]
    fuzz_seconds: u32,
}

impl Arguments {
    /// Long enough to run through the corpus and find what is easily found.
    pub(super) fn briefly() -> Self {
        Self { fuzz_seconds: 5 }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let folder = workspace::target().join("kernel/parser");
    fs::create_dir_all(&folder)?;
    process::run(&mut Command::new(compile("cc", "parse_test.c", &[], &folder)?))?;
    if arguments.fuzz_seconds == 0 {
        return Ok(());
    }
    if process::is_installed("clang") {
        fuzz_guided(&folder, arguments.fuzz_seconds)
    } else {
        println!("kernel: no clang here: fuzzing without coverage");
        fuzz_blind(&folder, arguments.fuzz_seconds)
    }
}

fn fuzz_guided(folder: &Path, seconds: u32) -> Result<()> {
    let fuzzer = compile("clang", "parse_fuzz.c", &["-fsanitize=fuzzer"], folder)?;
    let corpus = folder.join("corpus");
    fs::create_dir_all(&corpus)?;
    process::run(
        Command::new(fuzzer)
            .arg(format!("-max_total_time={seconds}"))
            .args(["-max_len=4096", "-print_final_stats=1", "-verbosity=0"])
            .arg(&corpus)
            .current_dir(folder),
    )
}

fn fuzz_blind(folder: &Path, seconds: u32) -> Result<()> {
    let fuzzer = compile("cc", "parse_fuzz.c", &["-DSTANDALONE"], folder)?;
    // Some 100,000 rounds a second; the seed moves on, so that each second brings new inputs.
    for seed in 1..=seconds {
        process::run(Command::new(&fuzzer).args(["100000", &seed.to_string()]))?;
    }
    Ok(())
}

/// Compiles a test with the parser, and gives the program.
fn compile(compiler: &str, test: &str, more: &[&str], folder: &Path) -> Result<PathBuf> {
    let sources = workspace::root().join("kernel/actiondfs");
    let program = folder.join(test.trim_end_matches(".c"));
    process::run(
        Command::new(compiler)
            .args(FLAGS)
            .args(more)
            .arg(sources.join("parse.c"))
            .arg(sources.join("test").join(test))
            .arg("-o")
            .arg(&program),
    )?;
    Ok(program)
}
