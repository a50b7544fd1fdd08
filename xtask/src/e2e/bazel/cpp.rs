//! A C++ project with the toolchain of the client's own root.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{client::Bazel, events::Report};
use crate::{
    daemon::Daemon,
    e2e::{Place, steps::step},
};

/// How Bazel ends when the server refuses an action.
const REFUSED: i32 = 34;

/// The targets of `//trees`, which only work in a directory of their own.
const TREES: [&str; 6] = ["unpacked", "copied", "installed", "unzipped", "replaced", "owned"];

/// Test runs of `//...`: eight tests, one of them in two shards.
const TEST_RUNS: usize = 9;

pub(super) fn run(place: &Place) -> Result<()> {
    let mut rootfs = std::ffi::OsString::from("--allow-host-rootfs=");
    rootfs.push(place.host_root()?);
    let mut server = place.start_daemon(&[rootfs])?;
    let mut bazel = Bazel::open(place, "cpp", &server)?;
    let outcome = steps(&mut server, &mut bazel);
    outcome.with_context(|| server.log_tail())?;
    step("SIGTERM ends the server in order, and nothing of it is left", || {
        let strategy = server.strategy()?;
        server.stop()?;
        Ok(format!("no process, mount or loop device; input roots were {strategy}"))
    })
}

fn steps(server: &mut Daemon, bazel: &mut Bazel) -> Result<()> {
    let mut actions = 0;
    step("the project builds and its tests pass, every action on the server", || {
        let report = bazel.test(&["//..."])?;
        actions = report.remote();
        ensure!(
            report.tests.len() == TEST_RUNS,
            "{} test runs, not {TEST_RUNS}",
            report.tests.len()
        );
        ensure_every_test(&report, |test| test.strategy == "remote" && !test.cached_remotely)?;
        let executions = server.executions()? as u64;
        ensure!(
            executions == actions,
            "Bazel had {actions} actions run, the server ran {executions}"
        );
        ensure!(report.cache_hits() == 0, "an empty cache had hits");
        Ok(format!("{actions} actions, {TEST_RUNS} test runs"))
    })?;

    step("declared directories are the actions' own, as under linux-sandbox", || {
        for name in TREES {
            let kept = fs::read_to_string(bazel.output(&format!("trees/{name}/kept"))?);
            ensure!(kept.with_context(|| name)? == "kept\n", "{name} has other content");
        }
        Ok(TREES.join(", "))
    })?;

    step("a second clean build is served from the action cache", || {
        bazel.expunge()?;
        let report = bazel.test(&["//..."])?;
        ensure!(report.cache_hits() == actions && report.remote() == 0, "Bazel says {report:?}");
        ensure_every_test(&report, |test| test.cached_remotely)?;
        ensure!(server.executions()? as u64 == actions, "the server ran actions again");
        Ok(format!("{actions} cache hits, none run"))
    })?;

    step("a build without the bytes goes on from what only the server has", || {
        bazel.expunge()?;
        bazel.build(&["--remote_download_minimal", "//report"])?;
        ensure!(!bazel.output("report/report")?.exists(), "the program was downloaded");
        bazel.edit("text/normalizer.cc", "std::tolower", "std::toupper")?;
        let report = bazel.build(&["--remote_download_toplevel", "//report:poem_report"])?;
        ensure!(report.remote() > 0, "nothing was built again");
        let text = fs::read_to_string(bazel.output("report/poem_report.txt")?)?;
        ensure!(text.contains("BUILD 3\n"), "the report does not show the change:\n{text}");
        ensure!(
            !bazel.output("codec/libcrc32.so")?.exists(),
            "an intermediate output was downloaded"
        );
        Ok(format!("{} actions after a change, only the report was downloaded", report.remote()))
    })?;

    step("a killed and restarted server still has what the client never downloaded", || {
        server.kill()?;
        server.restart()?;
        bazel.edit(
            "codec/crc32.h",
            "Crc32(std::string_view bytes)",
            "Crc32(std::string_view all_bytes)",
        )?;
        let report = bazel.build(&["--remote_download_toplevel", "//report:poem_report"])?;
        ensure!(report.remote() > 0, "a changed header built nothing again");
        Ok(format!("{} actions after a changed header", report.remote()))
    })?;

    step("a failed action is told whole, and is run again the next time", || {
        let before = server.executions()?;
        for _ in 0..2 {
            let invocation = bazel.fails_with(1, "build", &["//testing:fails"])?;
            for part in ["(Exit 7)", "words on stdout", "words on stderr"] {
                ensure!(
                    invocation.stderr().contains(part),
                    "{part:?} is not in:\n{}",
                    invocation.stderr()
                );
            }
        }
        let failed = server
            .finished_actions()?
            .iter()
            .filter(|action| action.exit_code == 7 && !action.cached)
            .count();
        ensure!(
            failed == 2 && server.executions()? == before + 2,
            "the server's log has {failed} failed runs"
        );
        Ok("exit code 7 twice, with both streams".into())
    })?;

    step("a test that takes too long times out with its output so far", || {
        let invocation =
            bazel.fails_with(3, "test", &["--test_timeout=2", "//testing:endless_test"])?;
        let statuses: Vec<_> =
            invocation.report.tests.iter().map(|test| test.status.as_str()).collect();
        ensure!(statuses == ["TIMEOUT"], "the test's status is {statuses:?}");
        let log = fs::read_to_string(bazel.test_log("testing/endless_test/test.log")?)?;
        ensure!(log.contains("still here"), "the output is lost:\n{log}");
        Ok("TIMEOUT, with the log".into())
    })?;

    step("limits hold on a target and on a platform, and a misspelled one is named", || {
        let small = "--extra_execution_platforms=//limits:small";
        for words in [&["//limits:limited"][..], &[small, "//limits:limited_by_platform"]] {
            bazel.fails_with(1, "build", words)?;
        }
        bazel.fails_with(1, "build", &["//limits:crowded"])?;
        let report = bazel.build(&["//limits:unlimited", "//limits:limited_by_platform"])?;
        ensure!(report.remote() > 0, "without the platform nothing ran: {report:?}");
        let words = ["--noverbose_failures", "//limits:misspelled"];
        let invocation = bazel.fails_with(REFUSED, "build", &words)?;
        ensure_told_once(invocation.stderr(), "did you mean limits_memory?")?;
        Ok("64 MiB, 16 processes".into())
    })?;

    step("an output that cannot be stored is told once, as any other refusal", || {
        let words = ["--noverbose_failures", "//trees:with_pipe"];
        let invocation = bazel.fails_with(REFUSED, "build", &words)?;
        ensure_told_once(invocation.stderr(), "is a socket, a pipe or a device")?;
        Ok("a pipe in a declared directory".into())
    })
}

fn ensure_told_once(stderr: &str, words: &str) -> Result<()> {
    let told = stderr.matches(words).count();
    ensure!(told == 1, "{words:?} is told {told} times:\n{stderr}");
    Ok(())
}

fn ensure_every_test(
    report: &Report,
    holds: impl Fn(&super::events::TestRun) -> bool,
) -> Result<()> {
    for test in &report.tests {
        ensure!(test.status == "PASSED" && holds(test), "{test:?}");
    }
    Ok(())
}
