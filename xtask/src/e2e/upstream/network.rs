//! Clean builds of Bazel with everything in a cache beyond a slow network, beside the same on local hits.
//!
//! No time is asserted, except that a build goes on at all: the figures are printed.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use launch::bounded;

use crate::{
    daemon::Daemon,
    e2e::{Place, bazel::Bazel, patience::within_patience, steps::step},
    process, state_volume,
};

use super::slow_link::{BEYOND, Quality, SlowLink};

/// The port of the cache. The namespace is ours, and every port is free.
const PORT: u16 = 9092;

/// How slow the network is, from best to worst.
const QUALITIES: [Quality; 5] = [
    Quality { round_trip_ms: 0, loss_percent: 0 },
    Quality { round_trip_ms: 20, loss_percent: 0 },
    Quality { round_trip_ms: 20, loss_percent: 1 },
    Quality { round_trip_ms: 100, loss_percent: 0 },
    Quality { round_trip_ms: 100, loss_percent: 1 },
];

/// Those of each run.
const QUALITIES_EACH_TIME: [Quality; 1] = [QUALITIES[4]];

/// How a cache is started with its files in a folder.
type Start = fn(&InsideArguments, &Path) -> Result<Command>;

/// The caches.
const CACHES: [(&str, Start); 2] =
    [("bazel-remote", start_bazel_remote), ("bb_storage", start_bb_storage)];

#[derive(clap::Args)]
pub(crate) struct InsideArguments {
    #[arg(long)]
    client_root: PathBuf,
    #[arg(long)]
    daemon: PathBuf,
    #[arg(long)]
    bazel_remote: PathBuf,
    #[arg(long)]
    bb_storage: PathBuf,
    /// Every quality of the network.
    #[arg(long)]
    all: bool,
}

/// The part that runs as root on a state volume, in a network namespace of its own.
pub(crate) fn run_inside(arguments: &InsideArguments) -> Result<()> {
    let state = std::env::var_os(state_volume::STATE_VARIABLE)
        .context("this part of e2e runs on a state volume")?;
    process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    for (name, start) in CACHES {
        println!("e2e upstream: Bazel with {name} beyond a network");
        let folder = Path::new(&state).join(name);
        fs::create_dir(&folder)?;
        let mut here = Build::start(arguments, &folder, start(arguments, &folder)?)?;
        here.steps()?;
    }
    println!("e2e upstream: passed");
    Ok(())
}

fn start_bazel_remote(arguments: &InsideArguments, folder: &Path) -> Result<Command> {
    let mut command = bounded(&arguments.bazel_remote);
    command.arg("--dir").arg(folder.join("cache")).args(["--max_size", "4"]);
    command.arg(format!("--grpc_address=0.0.0.0:{PORT}"));
    command.args(["--http_address", "127.0.0.1:0"]);
    Ok(command)
}

fn start_bb_storage(arguments: &InsideArguments, folder: &Path) -> Result<Command> {
    let settings = folder.join("bb_storage.jsonnet");
    let text = fs::read_to_string(crate::workspace::root().join("e2e/bb_storage.jsonnet"))?;
    fs::write(&settings, text.replace("ADDRESS", &format!("0.0.0.0:{PORT}")))?;
    let mut command = bounded(&arguments.bb_storage);
    command.arg(settings);
    Ok(command)
}

/// A cache that has everything, and Bazel; the cache is killed when dropped.
struct Build<'a> {
    arguments: &'a InsideArguments,
    folder: &'a Path,
    cache: Child,
    bazel: Bazel,
    /// The actions of the build.
    actions: u64,
    /// Daemons so far.
    daemons: u32,
}

impl<'a> Build<'a> {
    fn start(arguments: &'a InsideArguments, folder: &'a Path, mut cache: Command) -> Result<Self> {
        let log = fs::File::create(folder.join("cache.log"))?;
        cache.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let cache = cache.spawn().context("cannot start the cache")?;
        let place = Place::for_a_client(&arguments.client_root, &arguments.daemon, folder);
        let bazel = Bazel::open_with(&place, "cpp", "")?;
        Ok(Self { arguments, folder, cache, bazel, actions: 0, daemons: 0 })
    }

    /// A daemon with an empty store above the cache at this address, or above none.
    fn daemon(&mut self, cache: Option<&str>) -> Result<Daemon> {
        self.daemons += 1;
        let folder = self.folder.join(format!("daemon-{}", self.daemons));
        fs::create_dir(&folder)?;
        let mut flags = vec!["--allow-host-rootfs=".to_owned()];
        flags[0].push_str(self.arguments.client_root.to_str().context("a path in UTF-8")?);
        if let Some(address) = cache {
            let address = format!("grpc://{address}:{PORT}");
            flags.push(format!("--upstream-cas={address}"));
            flags.push(format!("--upstream-ac={address}"));
            flags.push("--upstream-writes=through".to_owned());
        }
        flags.push("--http=off".to_owned());
        let flags: Vec<_> = flags.into_iter().map(OsString::from).collect();
        let daemon = Daemon::start(&self.arguments.daemon, &folder, &flags, None)?;
        if cache.is_some() {
            let is_up = || Ok(daemon.log()?.matches("the upstream is up").count() == 2);
            let answers = within_patience(is_up)?;
            ensure!(answers, "the cache does not answer\n{}", daemon.log_tail());
        }
        Ok(daemon)
    }

    fn steps(&mut self) -> Result<()> {
        let alone = self.daemon(None)?;
        step("a clean build without the cache runs every action", || {
            let (took, remote, hits) = self.clean_build(&alone)?;
            ensure!(hits == 0 && remote > 0, "{hits} hits, {remote} run");
            self.actions = remote;
            Ok(format!("{remote} actions in {}", seconds(took)))
        })?;
        let first = self.daemon(Some("127.0.0.1"))?;
        step("a clean build has everything copied to the cache", || {
            let (took, remote, _) = self.clean_build(&first)?;
            ensure!(remote == self.actions, "{remote} run, not {}", self.actions);
            Ok(format!("{remote} actions in {}", seconds(took)))
        })?;
        first.stop()?;
        alone.stop()?;
        let qualities = if self.arguments.all { &QUALITIES[..] } else { &QUALITIES_EACH_TIME };
        for quality in qualities {
            self.a_clean_build_through(*quality)?;
        }
        self.a_network_that_swallows_everything()
    }

    fn a_clean_build_through(&mut self, quality: Quality) -> Result<()> {
        let Quality { round_trip_ms, loss_percent } = quality;
        let sentence = format!(
            "everything comes through a network with round trips of {round_trip_ms} ms and losses of \
             {loss_percent} %, and is here then"
        );
        step(&sentence, || {
            let link = SlowLink::start(quality)?;
            let daemon = self.daemon(Some(BEYOND))?;
            let cold = self.clean_build_of_hits(&daemon)?;
            // Local blobs need no network.
            drop(link);
            let warm = self.clean_build_of_hits(&daemon)?;
            daemon.stop()?;
            let ratio = cold.as_secs_f64() / warm.as_secs_f64();
            let (cold, warm) = (seconds(cold), seconds(warm));
            Ok(format!("{cold}, then {warm} on local hits: {ratio:.1} times"))
        })
    }

    fn a_network_that_swallows_everything(&mut self) -> Result<()> {
        step("a network that swallows everything ends no build", || {
            let link = SlowLink::start(QUALITIES[1])?;
            let daemon = self.daemon(Some(BEYOND))?;
            link.swallow_everything()?;
            let (first, remote, hits) = self.clean_build(&daemon)?;
            ensure!(remote + hits == self.actions, "{remote} run and {hits} hits");
            let second = self.clean_build_of_hits(&daemon)?;
            let log = daemon.log()?;
            ensure!(log.contains("given up"), "the cache is not given up\n{}", daemon.log_tail());
            daemon.stop()?;
            let (first, second) = (seconds(first), seconds(second));
            Ok(format!(
                "{remote} of {} actions ran, {first}; then {second} on local hits",
                self.actions
            ))
        })
    }

    fn clean_build_of_hits(&mut self, daemon: &Daemon) -> Result<Duration> {
        let (took, remote, hits) = self.clean_build(daemon)?;
        let is_right = remote == 0 && hits == self.actions;
        ensure!(is_right, "{remote} run, {hits} of {} hits\n{}", self.actions, daemon.log_tail());
        Ok(took)
    }

    /// The time of a clean build, and the actions that ran and that were hits.
    fn clean_build(&mut self, daemon: &Daemon) -> Result<(Duration, u64, u64)> {
        let server = format!("--remote_executor=grpc://{}", daemon.address());
        self.bazel.clean()?;
        let begin = Instant::now();
        let report = self.bazel.build(&[&server, "//..."])?;
        Ok((begin.elapsed(), report.remote(), report.cache_hits()))
    }
}

impl Drop for Build<'_> {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _gone = self.cache.kill();
        let _reaped = self.cache.wait();
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
