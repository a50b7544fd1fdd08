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

/// The actions of `//:sums`, which have 48 MiB of outputs: 24 parts, and a sum of each two of them.
const ACTIONS: u64 = 36;
/// Those of them that read `salt.txt`.
const SUMS: u64 = 12;
/// How Bazel ends when an output that only the server had is gone.
const LOST: i32 = 39;
const TARGET: &str = "//:sums";
/// Nothing but the sums comes to the client.
const WITHOUT_THE_BYTES: &str = "--remote_download_toplevel";
const WITH_ALL_BYTES: &str = "--remote_download_outputs=all";
/// Actions at a time: the inputs and outputs of two take 8 MiB of the store. Those of Bazel's usual 16 would not fit, and it
/// would give up.
const TWO_AT_A_TIME: &str = "--jobs=2";
/// The flag that `docs/clients.md` advises for builds without the bytes. With 5 tries, one of 249 builds on the store of a third
/// ended with [`LOST`].
const BEGIN_AGAIN: &str = "--experimental_remote_cache_eviction_retries=20";
const NEVER_BEGIN_AGAIN: &str = "--experimental_remote_cache_eviction_retries=0";

/// The history counts to `--cas-size`, and grows with each build: 2 % of this store are less than that.
const WITHOUT_HISTORY: &str = "--history-days=0";

/// The content of the file that all parts begin with. Another one makes every action a new one.
const SEEDS: [&str; 2] = ["seed", "second"];
/// The content of the file that all sums read, and no part.
const SALTS: [&str; 3] = ["salt", "sugar", "pepper"];

pub(super) fn run(place: &Place) -> Result<()> {
    let unbounded = Scene::start(place, "unbounded", &["--cas-size=1g", WITHOUT_HISTORY])?;
    let (first, used_bytes) =
        unbounded.run(|server, bazel| is_measured(&place.daemon, server, bazel))?;
    let fitting = format!("--cas-size={}", used_bytes * 100 / 98);
    let texts = Scene::start(place, "fitting", &[&fitting, WITHOUT_HISTORY])?
        .run(|server, bazel| fits(server, bazel, &first))?;
    let third = format!("--cas-size={}", used_bytes / 3);
    Scene::start(place, "third", &[&third])?
        .run(|server, bazel| is_too_small(server, bazel, &texts))
}

/// A server with a store of some size, and a client.
struct Scene {
    server: Daemon,
    bazel: Bazel,
}

impl Scene {
    fn start(place: &Place, name: &str, flags: &[&str]) -> Result<Self> {
        let place = Place { scratch: place.scratch.join(name), ..place.clone() };
        fs::create_dir_all(&place.scratch)?;
        let mut rootfs = std::ffi::OsString::from("--allow-host-rootfs=");
        rootfs.push(place.host_root()?);
        let flags: Vec<_> = flags.iter().map(Into::into).chain([rootfs]).collect();
        let server = place.start_daemon(&flags)?;
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

/// Builds where nothing but the text comes to the client, and gives that. So many actions must run.
fn builds(bazel: &mut Bazel, actions: u64) -> Result<String> {
    let report = bazel.build(&[WITHOUT_THE_BYTES, TARGET])?;
    ensure!(report.remote() == actions, "Bazel says {report:?}");
    read(bazel)
}

/// Gives the text that the build makes, and the disk space of all that the store then has, in bytes, as `program` says.
fn is_measured(program: &Path, server: &Daemon, bazel: &mut Bazel) -> Result<(String, u64)> {
    let (mut text, mut used_bytes) = (String::new(), 0);
    step("a build on a store that is large enough", || {
        text = builds(bazel, ACTIONS)?;
        ensure!(text.lines().count() as u64 == SUMS, "the text is {text:?}");
        used_bytes = self::used_bytes(program, server)?;
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

/// Gives the text that the build makes of the first seed, of the second, and of that with another salt.
fn fits(server: &Daemon, bazel: &mut Bazel, first: &str) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    step("with 2 % to spare, the build loses nothing", || {
        texts.push(builds(bazel, ACTIONS)?);
        ensure!(texts[0] == first, "the text is {texts:?}");
        bazel.expunge()?;
        let report = bazel.build(&[WITHOUT_THE_BYTES, TARGET])?;
        ensure!(report.cache_hits() == ACTIONS && report.remote() == 0, "Bazel says {report:?}");
        ensure!(server.executions()? as u64 == ACTIONS, "the server ran actions again");
        ensure!(server.events_with("evicted blobs")? == 0, "the store evicted something");
        Ok(format!("{ACTIONS} actions, then {ACTIONS} hits"))
    })?;
    step("the next build pushes it out, and loses nothing either", || {
        bazel.edit("seed.txt", SEEDS[0], SEEDS[1])?;
        texts.push(builds(bazel, ACTIONS)?);
        ensure!(server.executions()? as u64 == 2 * ACTIONS, "the server ran actions again");
        ensure!(server.events_with("evicted blobs")? > 0, "the store evicted nothing");
        Ok(format!("{ACTIONS} actions more"))
    })?;
    step("the one after it has all that only the server had", || {
        bazel.edit("salt.txt", SALTS[0], SALTS[1])?;
        texts.push(builds(bazel, SUMS)?);
        let ran = server.executions()? as u64;
        ensure!(ran == 2 * ACTIONS + SUMS, "the server ran {ran} actions");
        Ok(format!("{SUMS} actions more"))
    })?;
    Ok(texts)
}

fn is_too_small(server: &Daemon, bazel: &mut Bazel, expected: &[String]) -> Result<()> {
    step("a build of three times the store ends, as its client has the bytes", || {
        let report = bazel.build(&[TWO_AT_A_TIME, WITH_ALL_BYTES, TARGET])?;
        ensure!(report.remote() == ACTIONS, "Bazel says {report:?}");
        ensure!(read(bazel)? == expected[0], "the text is another");
        let bytes = bazel.output("part_0.bin")?.metadata().context("part_0.bin")?.len();
        ensure!(bytes == 2 << 20, "{bytes} bytes of a part are here");
        let ran = server.executions()?;
        ensure!(ran as u64 == ACTIONS, "the server ran {ran} actions");
        ensure!(server.events_with("evicted blobs")? > 0, "the store evicted nothing");
        Ok(format!("{ran} actions"))
    })?;
    step("and without the bytes", || {
        bazel.edit("seed.txt", SEEDS[0], SEEDS[1])?;
        ends_without_the_bytes(server, bazel, &expected[1])
    })?;
    step("files that only the server had are gone: Bazel begins again until it ends", || {
        bazel.edit("salt.txt", SALTS[0], SALTS[1])?;
        let before = server.executions()?;
        let told = ends_without_the_bytes(server, bazel, &expected[2])?;
        let ran = (server.executions()? - before) as u64;
        ensure!(ran > SUMS, "nothing was lost: {told}");
        Ok(told)
    })?;
    step("where it may not begin again, it says what is lost, and the next build ends", || {
        bazel.edit("salt.txt", SALTS[1], SALTS[2])?;
        let words = [NEVER_BEGIN_AGAIN, TWO_AT_A_TIME, WITHOUT_THE_BYTES, TARGET];
        let lost = bazel.fails_with(LOST, "build", &words)?;
        let line = lost.stderr().lines().find(|line| line.contains("ERROR")).unwrap_or_default();
        let line: String = line.chars().take(120).collect();
        bazel.edit("salt.txt", SALTS[2], SALTS[1])?;
        let told = ends_without_the_bytes(server, bazel, &expected[2])?;
        Ok(format!("{line}; {told}"))
    })
}

/// Builds on a store of a third, where only the text comes to the client. Gives what happened, in words.
fn ends_without_the_bytes(server: &Daemon, bazel: &mut Bazel, expected: &str) -> Result<String> {
    let before = server.executions()?;
    let report = bazel.build(&[BEGIN_AGAIN, TWO_AT_A_TIME, WITHOUT_THE_BYTES, TARGET])?;
    ensure!(read(bazel)? == expected, "the text is another");
    let ran = server.executions()? - before;
    Ok(format!("{ran} actions; Bazel's last try says {}", told(&report)))
}

fn told(report: &Report) -> String {
    format!("{} remote, {} hits", report.remote(), report.cache_hits())
}

/// All sums, a line each.
fn read(bazel: &Bazel) -> Result<String> {
    let sum = |number| {
        let path = bazel.output(&format!("sum_{number}.txt"))?;
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    (0..SUMS).map(sum).collect()
}
