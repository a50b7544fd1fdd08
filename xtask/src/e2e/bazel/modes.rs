//! The ways to use a server that Bazel has beside plain remote execution.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use super::{client::Bazel, events::Report};
use crate::{
    daemon::Daemon,
    e2e::{Place, steps::step},
};

/// A text that is made by a program of the project, from generated sources and a library.
const TARGET: &str = "//report:poem_report";

/// Debian's Bazel finds its library for zstd only where it is told to look.
const ZSTD: &str = "startup --host_jvm_args=-Djava.library.path=/usr/lib/x86_64-linux-gnu\n";

/// Flags for actions that run on the client, without the server's executor.
const LOCAL: [&str; 3] =
    ["--remote_executor=", "--spawn_strategy=local", "--genrule_strategy=local"];

/// Flags for actions that run on both, of which the first result counts.
const DYNAMIC: [&str; 5] = [
    "--internal_spawn_scheduler",
    "--spawn_strategy=dynamic",
    "--genrule_strategy=dynamic",
    "--dynamic_local_strategy=sandboxed",
    "--dynamic_remote_strategy=remote",
];

pub(super) fn run(place: &Place) -> Result<()> {
    let mut rootfs = std::ffi::OsString::from("--allow-host-rootfs=");
    rootfs.push(&place.client_root);
    let mut server = place.start_daemon(&[rootfs])?;
    let lines = format!("{ZSTD}build --remote_executor=grpc://{}\n", server.address());
    let mut bazel = Bazel::open_with(place, "cpp", &lines)?;
    let outcome = steps(&mut server, &mut bazel);
    outcome.with_context(|| server.log_tail())?;
    step("SIGTERM ends the server in order, and nothing of it is left", || {
        server.stop()?;
        Ok("no process, mount or loop device".into())
    })
}

fn steps(server: &mut Daemon, bazel: &mut Bazel) -> Result<()> {
    let (mut actions, mut expected) = (0, Outputs::default());
    let cache = format!("--remote_cache=grpc://{}", server.address());
    step("a build without a server is what the others are compared with", || {
        let report = bazel.build_anywhere(&[&LOCAL[..], &[TARGET]].concat())?;
        actions = report.ran_by("local");
        ensure!(actions > 10 && report.remote() == 0, "Bazel says {report:?}");
        expected = Outputs::read(bazel)?;
        Ok(format!("{actions} actions"))
    })?;

    step(
        "with compression, every action runs on the server, and the outputs are the same",
        || {
            let log = bazel.folder().join("calls");
            let words = [
                "--remote_cache_compression",
                "--remote_grpc_log=/client/calls",
                "--remote_download_outputs=all",
                TARGET,
            ];
            let report = build_from_nothing(bazel, &words)?;
            ensure!(report.remote() == actions, "Bazel says {report:?}");
            ensure!(Outputs::read(bazel)? == expected, "the outputs differ");
            let calls = fs::read(&log)?;
            let compressed = count(&calls, b"compressed-blobs/zstd/");
            ensure!(
                compressed > 0 && count(&calls, b"/blobs/") == 0,
                "{compressed} compressed blobs"
            );
            Ok(format!("{compressed} transfers were compressed, none was not"))
        },
    )?;

    step("without it, and with a disk cache beside, the same results are hits", || {
        let words = ["--disk_cache=/client/disk", "--remote_download_outputs=all", TARGET];
        let report = build_from_nothing(bazel, &words)?;
        ensure!(report.cache_hits() == actions, "Bazel says {report:?}");
        ensure!(Outputs::read(bazel)? == expected, "the outputs differ");
        let report = build_from_nothing(bazel, &words)?;
        // Bazel has compilations from the server again: it finds them in its disk cache only with their .d
        // files, which came inside of the results and were not put there.
        let (server, disk) = (report.cache_hits(), report.ran_by("disk cache hit"));
        ensure!(disk > 0 && server + disk == actions, "Bazel says {report:?}");
        ensure!(Outputs::read(bazel)? == expected, "the outputs differ");
        Ok(format!("{actions} hits of the server, then {disk} of the disk cache"))
    })?;

    step("a server that lost everything makes no build without the bytes fail", || {
        build_from_nothing(bazel, &["--remote_download_minimal", "//report"])?;
        server.kill()?;
        fs::remove_dir_all(server.root())?;
        server.restart()?;
        bazel.edit("text/normalizer.cc", "std::tolower", "std::toupper")?;
        let words = ["--experimental_remote_cache_eviction_retries=5", TARGET];
        let report = bazel.build(&words)?;
        ensure!(report.remote() > 0, "Bazel says {report:?}");
        let text = fs::read_to_string(bazel.output("report/poem_report.txt")?)?;
        ensure!(text.contains("BUILD 3\n"), "the report does not show the change:\n{text}");
        bazel.edit("text/normalizer.cc", "std::toupper", "std::tolower")?;
        Ok(format!("Bazel began again, and {} actions ran", report.remote()))
    })?;

    step("as a cache only, it has the results of actions that ran on the client", || {
        let before = server.executions()?;
        let words = [&LOCAL[..], &[&cache, "--remote_instance_name=cache", TARGET]].concat();
        let report = build_from_nothing(bazel, &words)?;
        ensure!(report.ran_by("local") == actions, "Bazel says {report:?}");
        let report = build_from_nothing(bazel, &words)?;
        ensure!(report.cache_hits() == actions, "Bazel says {report:?}");
        ensure!(Outputs::read(bazel)?.text == expected.text, "the outputs differ");
        ensure!(server.executions()? == before, "the server ran actions");
        Ok(format!("{actions} actions on the client, then {actions} hits"))
    })?;

    step("with dynamic execution, each action runs on both, and the first result counts", || {
        let words = [&DYNAMIC[..], &["--remote_instance_name=dynamic", TARGET]].concat();
        let report = build_from_nothing(bazel, &words)?;
        // Bazel takes the second where the first can't be made, as in the root of this test.
        let sandboxes = ["linux-sandbox", "processwrapper-sandbox"];
        let local: u64 = sandboxes.iter().map(|name| report.ran_by(name)).sum();
        let remote = report.remote();
        ensure!(remote + local == actions, "Bazel says {report:?}");
        ensure!(Outputs::read(bazel)?.text == expected.text, "the outputs differ");
        Ok(format!("the server was first with {remote}, the client with {local}"))
    })
}

/// Builds without anything that Bazel knows of earlier builds.
fn build_from_nothing(bazel: &mut Bazel, words: &[&str]) -> Result<Report> {
    bazel.expunge()?;
    bazel.build_anywhere(words)
}

/// The outputs that are compared.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outputs {
    text: String,
    program: Vec<u8>,
}

impl Outputs {
    fn read(bazel: &Bazel) -> Result<Self> {
        let path = |name: &str| -> Result<PathBuf> { bazel.output(name) };
        let program = fs::read(path("report/report")?).unwrap_or_default();
        Ok(Self { text: fs::read_to_string(path("report/poem_report.txt")?)?, program })
    }
}

/// The number of times that `words` are in `bytes`.
fn count(bytes: &[u8], words: &[u8]) -> usize {
    bytes.windows(words.len()).filter(|window| *window == words).count()
}
