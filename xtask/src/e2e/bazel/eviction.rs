//! Builds on a store that their files fit into with 2 % to spare, and on one of a third of them.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{client::Bazel, events::Report};
use crate::{
    daemon::Daemon,
    e2e::{Place, steps::step},
    process,
};

/// The actions of `//:sums`, which have 48 MiB of outputs.
const ACTIONS: u64 = 49;
/// How Bazel ends when an output that only the server had is gone.
const LOST: i32 = 39;
const TARGET: &str = "//:sums";
/// Nothing but the text that was asked for comes to the client.
const WITHOUT_THE_BYTES: &str = "--remote_download_toplevel";
const WITH_ALL_BYTES: &str = "--remote_download_outputs=all";

/// The content of the file that all others begin with. Another one makes every action a new one.
const SEEDS: [&str; 3] = ["seed", "second", "third"];

pub(super) fn run(place: &Place) -> Result<()> {
    let unbounded = Scene::start(place, "unbounded", "--cas-size=1g")?;
    let used = |server: &Daemon| used_bytes(&place.daemon, server);
    let (first, used_bytes) = unbounded.run(|server, bazel| is_measured(server, bazel, used))?;
    let fitting = format!("--cas-size={}", used_bytes * 100 / 98);
    let texts = Scene::start(place, "fitting", &fitting)?
        .run(|server, bazel| fits(server, bazel, &first))?;
    let third = format!("--cas-size={}", used_bytes / 3);
    Scene::start(place, "third", &third)?.run(|server, bazel| is_too_small(server, bazel, &texts))
}

/// A server with a store of some size, and a client.
struct Scene {
    server: Daemon,
    bazel: Bazel,
}

impl Scene {
    fn start(place: &Place, name: &str, size: &str) -> Result<Self> {
        let place = Place { scratch: place.scratch.join(name), ..place.clone() };
        fs::create_dir_all(&place.scratch)?;
        let mut rootfs = std::ffi::OsString::from("--allow-host-rootfs=");
        rootfs.push(place.host_root()?);
        let server = place.start_daemon(&[rootfs, size.into()])?;
        let bazel = Bazel::open(&place, "eviction", &server)?;
        Ok(Self { server, bazel })
    }

    fn run<T>(mut self, steps: impl FnOnce(&Daemon, &mut Bazel) -> Result<T>) -> Result<T> {
        let outcome = steps(&self.server, &mut self.bazel);
        let outcome = outcome.with_context(|| self.server.log_tail())?;
        self.server.stop()?;
        Ok(outcome)
    }
}

/// Gives the text that the build makes, and the disk space of all that the store then has, in bytes.
fn is_measured(
    server: &Daemon,
    bazel: &mut Bazel,
    used: impl FnOnce(&Daemon) -> Result<u64>,
) -> Result<(String, u64)> {
    let (mut text, mut used_bytes) = (String::new(), 0);
    step("a build on a store that is large enough", || {
        let report = bazel.build(&[WITHOUT_THE_BYTES, TARGET])?;
        ensure!(report.remote() == ACTIONS, "Bazel says {report:?}");
        text = read(bazel)?;
        ensure!(text.lines().count() == 24, "the text is {text:?}");
        used_bytes = used(server)?;
        ensure!(used_bytes > 48 << 20, "the store has {used_bytes} bytes");
        Ok(format!("{ACTIONS} actions; the store has {used_bytes} bytes"))
    })?;
    Ok((text, used_bytes))
}

/// The disk space that `program` says its server's store takes, in bytes.
fn used_bytes(program: &Path, server: &Daemon) -> Result<u64> {
    let mut command = Command::new(program);
    command.args(["store", "du", "--json", "--root"]).arg(server.root());
    let usage: Value = serde_json::from_str(&process::output(&mut command)?)?;
    usage["used_bytes"].as_u64().context("used_bytes of `store du`")
}

/// Gives the text that the build makes of each seed.
fn fits(server: &Daemon, bazel: &mut Bazel, first: &str) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    step("with 2 % to spare, the build loses nothing", || {
        let report = bazel.build(&[WITHOUT_THE_BYTES, TARGET])?;
        ensure!(report.remote() == ACTIONS, "Bazel says {report:?}");
        texts.push(read(bazel)?);
        ensure!(texts[0] == first, "the text is {texts:?}");
        bazel.expunge()?;
        let report = bazel.build(&[WITHOUT_THE_BYTES, TARGET])?;
        ensure!(report.cache_hits() == ACTIONS && report.remote() == 0, "Bazel says {report:?}");
        ensure!(server.executions()? as u64 == ACTIONS, "the server ran actions again");
        ensure!(server.events_with("evicted blobs")? == 0, "the store evicted something");
        Ok(format!("{ACTIONS} actions, then {ACTIONS} hits"))
    })?;
    step("the next builds push it out, and lose nothing either", || {
        for seeds in SEEDS.windows(2) {
            bazel.edit("seed.txt", seeds[0], seeds[1])?;
            let report = bazel.build(&[WITHOUT_THE_BYTES, TARGET])?;
            ensure!(report.remote() == ACTIONS, "Bazel says {report:?}");
            texts.push(read(bazel)?);
        }
        ensure!(server.executions()? as u64 == 3 * ACTIONS, "the server ran actions again");
        ensure!(server.events_with("evicted blobs")? > 0, "the store evicted nothing");
        Ok(format!("{} actions more", 2 * ACTIONS))
    })?;
    Ok(texts)
}

fn is_too_small(server: &Daemon, bazel: &mut Bazel, expected: &[String]) -> Result<()> {
    step("a build of three times the store ends, as its client has the bytes", || {
        let report = bazel.build(&[WITH_ALL_BYTES, TARGET])?;
        ensure!(report.remote() == ACTIONS, "Bazel says {report:?}");
        ensure!(read(bazel)? == expected[0], "the text is another");
        let bytes = bazel.output("part_0.bin")?.metadata().context("part_0.bin")?.len();
        ensure!(bytes == 2 << 20, "{bytes} bytes of a part are here");
        let ran = server.executions()?;
        ensure!(ran as u64 == ACTIONS, "the server ran {ran} actions");
        ensure!(server.events_with("evicted blobs")? > 0, "the store evicted nothing");
        Ok(format!("{ran} actions"))
    })?;
    step("without the bytes, Bazel begins again until it ends", || {
        bazel.edit("seed.txt", SEEDS[0], SEEDS[1])?;
        let before = server.executions()?;
        let words = ["--experimental_remote_cache_eviction_retries=100", "--jobs=2"];
        let report = bazel.build(&[&words[..], &[WITHOUT_THE_BYTES, TARGET]].concat())?;
        ensure!(read(bazel)? == expected[1], "the text is another");
        let ran = server.executions()? - before;
        ensure!(ran as u64 > ACTIONS, "nothing was lost: {ran} actions");
        Ok(format!("{ran} actions; Bazel's last try says {}", told(&report)))
    })?;
    step("where it may not begin again, it says what is lost", || {
        bazel.edit("seed.txt", SEEDS[1], SEEDS[2])?;
        let words = ["--experimental_remote_cache_eviction_retries=0", WITHOUT_THE_BYTES, TARGET];
        let lost = bazel.fails_with(LOST, "build", &words)?;
        let line = lost.stderr().lines().find(|line| line.contains("ERROR")).unwrap_or_default();
        Ok(line.chars().take(200).collect())
    })
}

fn told(report: &Report) -> String {
    format!("{} remote, {} hits", report.remote(), report.cache_hits())
}

fn read(bazel: &Bazel) -> Result<String> {
    let path = bazel.output("sums.txt")?;
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}
