//! Bazel with a server of its own: `linux-actiond run`.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};

use super::{client::Bazel, stress};
use crate::e2e::{Place, steps::step};

/// The lines that `run` writes, as the client and as the server name their file.
const LINES: &str = "/client/server.bazelrc";
const LINES_BELOW_SCRATCH: &str = "client/server.bazelrc";

pub(super) fn run(place: &Place) -> Result<()> {
    if place.vm.is_some() {
        println!("  SKIPPED: `run` starts `serve`");
        return Ok(());
    }
    fs::create_dir_all(place.scratch.join("client"))?;
    let store = place.scratch.join("store");
    step("Bazel builds with the server that was started for it", || {
        let mut bazel = open(place, &store)?;
        let report = bazel.build(&["//:bare_files_0"])?;
        ensure!(report.remote() == 1, "Bazel says {report:?}");
        bazel.expunge()?;
        let status = bazel.close()?;
        ensure!(status.success(), "it ended with {status}");
        Ok("one action ran".into())
    })?;
    fs::remove_dir_all(place.scratch.join("client"))?;
    fs::create_dir_all(place.scratch.join("client"))?;
    step("the next server has the results of the store that was kept", || {
        let mut bazel = open(place, &store)?;
        let report = bazel.build(&["//:bare_files_0"])?;
        ensure!(report.remote() == 0 && report.cache_hits() == 1, "Bazel says {report:?}");
        let status = bazel.close()?;
        ensure!(status.success(), "it ended with {status}");
        Ok("one result came from the cache".into())
    })
}

/// Debian builds Bazel without the native library that it needs for sockets in the file system.
fn open(place: &Place, store: &Path) -> Result<Bazel> {
    let mut command = Command::new(&place.daemon);
    command.args(["run", "--listen=127.0.0.1:0", "--root"]).arg(store).args(&place.daemon_flags);
    command.arg("--bazelrc-out").arg(place.scratch.join(LINES_BELOW_SCRATCH)).args(["--", "bwrap"]);
    let bazel = Bazel::open_through(command, place, "stress", &format!("import {LINES}\n"))?;
    stress::generate_inputs(&bazel.workspace())?;
    fs::copy(&place.action_tool, bazel.workspace().join("action_tool"))?;
    Ok(bazel)
}
