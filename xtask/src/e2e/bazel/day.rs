//! Two days of work on the C++ project, recorded: developers who edit and build, and builds of everything.
//!
//! Each developer has a Bazel of their own, which knows its earlier builds. Merged edits are built from nothing, as on
//! a machine for that, and every night everything is built with other flags. The execution logs of all these builds,
//! in which Bazel names the inputs and outputs of each action, become one trace in `target/recorded.trace`. The test
//! `hit_rates` of the crate `store` plays a copy of it against several orders of eviction. Only the hours are made:
//! the builds follow each other at once, and the trace has the times of the plan.

mod trace;

use std::fs;

use anyhow::{Context, Result, ensure};

use super::client::Bazel;
use crate::{
    daemon::Daemon,
    e2e::{Place, steps::step},
    workspace,
};
use trace::Trace;

const DAYS: u64 = 2;
const DEVELOPERS: usize = 3;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// Hours of work in a day.
const HOURS: u64 = 8;

/// The files that are edited. Those that come later have more that depends on them.
const FILES: [&str; 16] = [
    "report/report.cc",
    "text/counter.cc",
    "text/tokenizer.cc",
    "text/normalizer.cc",
    "codec/base64.cc",
    "codec/crc32.cc",
    "graph/order.cc",
    "graph/digraph.cc",
    "text/counter_test.cc",
    "codec/crc32_test.cc",
    "graph/order_test.cc",
    "tools/make_crc32_table.cc",
    "text/counter.h",
    "graph/order.h",
    "codec/crc32.h",
    "text/normalizer.h",
];

/// A generator of numbers, the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The number of the last edit of each file; 0 for none.
type Sources = [u64; FILES.len()];

/// A machine that builds.
struct Machine {
    bazel: Bazel,
    sources: Sources,
    written: Sources,
}

impl Machine {
    fn open(place: &Place, name: &str, server: &Daemon) -> Result<Self> {
        let place = Place { scratch: place.scratch.join(name), ..place.clone() };
        let bazel = Bazel::open(&place, "cpp", server)?;
        Ok(Self { bazel, sources: [0; FILES.len()], written: [0; FILES.len()] })
    }

    /// Brings the files to the state of the sources.
    fn write(&mut self) -> Result<()> {
        let original = workspace::root().join("e2e/bazel/cpp");
        for (index, file) in FILES.iter().enumerate() {
            let edit = self.sources[index];
            if edit == self.written[index] {
                continue;
            }
            let mut text = fs::read_to_string(original.join(file)).with_context(|| *file)?;
            if edit > 0 {
                // Another comment in a header has its users compiled again, to the same object files; a source changes its own.
                text += &if file.ends_with(".h") {
                    format!("// Edit {edit}.\n")
                } else {
                    let symbol = file.replace(['/', '.'], "_");
                    format!("extern const int edit_{symbol};\nconst int edit_{symbol} = {edit};\n")
                };
            }
            fs::write(self.bazel.workspace().join(file), text)?;
        }
        self.written = self.sources;
        Ok(())
    }

    /// Builds and tests everything; the trace has what Bazel did.
    fn build(&mut self, trace: &mut Trace, at: u64, flags: &[&str]) -> Result<()> {
        self.write()?;
        let log = self.bazel.folder().join("spawns.json");
        let _there_was_none = fs::remove_file(&log);
        let words = ["--execution_log_json_file=/client/spawns.json", "//..."];
        self.bazel.test(&[flags, &words].concat())?;
        trace.add(at, &fs::read_to_string(&log).context("Bazel's execution log")?)
    }

    fn build_from_nothing(&mut self, trace: &mut Trace, at: u64, flags: &[&str]) -> Result<()> {
        self.bazel.expunge()?;
        self.build(trace, at, flags)
    }
}

pub(super) fn run(place: &Place) -> Result<()> {
    let mut rootfs = std::ffi::OsString::from("--allow-host-rootfs=");
    rootfs.push(place.host_root()?);
    let server = place.start_daemon(&[rootfs])?;
    let outcome = record(place, &server);
    outcome.with_context(|| server.log_tail())?;
    step("SIGTERM ends the server in order, and nothing of it is left", || {
        server.stop()?;
        Ok("no process, mount or loop device".into())
    })
}

fn record(place: &Place, server: &Daemon) -> Result<()> {
    let mut trace = Trace::default();
    let mut merges = Machine::open(place, "merges", server)?;
    let mut developers = (0..DEVELOPERS)
        .map(|number| Machine::open(place, &format!("developer-{number}"), server))
        .collect::<Result<Vec<_>>>()?;
    step("two days of work are built, every action on the server", || {
        let mut numbers = Numbers(0x5eed);
        let (mut builds, mut edits) = (0, 0);
        for day in 0..DAYS {
            let morning = day * DAY + 9 * HOUR;
            merges.build_from_nothing(&mut trace, morning, &[])?;
            builds += 1;
            for hour in 0..HOURS {
                let at = morning + hour * HOUR;
                for (number, developer) in developers.iter_mut().enumerate() {
                    if numbers.below(3) == 0 {
                        continue;
                    }
                    for _ in 0..=numbers.below(2) {
                        // Headers with much behind them are edited less often.
                        let file =
                            numbers.below(FILES.len() as u64).min(numbers.below(20)) as usize;
                        edits += 1;
                        developer.sources[file] = edits;
                    }
                    developer.build(&mut trace, at + 300 + 700 * number as u64, &[])?;
                    builds += 1;
                }
                if hour % 3 == 2 {
                    let author = numbers.below(DEVELOPERS as u64) as usize;
                    merges.sources = developers[author].sources;
                    merges.build_from_nothing(&mut trace, at + 3000, &[])?;
                    builds += 1;
                    developers.iter_mut().for_each(|it| it.sources = merges.sources);
                }
            }
            let night = morning + 15 * HOUR;
            let stamp = format!("--copt=-DNIGHT={day}");
            for flags in [&["-c", "opt", &stamp][..], &["-c", "dbg", &stamp]] {
                merges.build_from_nothing(&mut trace, night, flags)?;
                builds += 1;
            }
        }
        let (lookups, hits) = (trace.lookups(), trace.hits());
        ensure!(hits > 0 && hits < lookups, "{hits} hits of {lookups}");
        Ok(format!("{builds} builds, {lookups} lookups, {hits} hits without a limit"))
    })?;
    step("the trace is written", || {
        let path = workspace::target().join("recorded.trace");
        fs::write(&path, trace.to_text()).with_context(|| path.display().to_string())?;
        Ok(path.display().to_string())
    })
}
