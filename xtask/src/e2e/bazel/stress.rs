//! Few tools, many inputs, trees of outputs, and nothing of a root file system.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use launch::StartAs;

use super::client::Bazel;
use crate::{
    daemon::Daemon,
    e2e::{Place, steps::step},
};

/// The actions of `//:stress_all`.
const ACTIONS: u64 = 26;

pub(super) fn run(place: &Place) -> Result<()> {
    // Two at a time, so that there is a build to interrupt.
    let mut server = place.start_daemon(&["--jobs=2".into()])?;
    if place.vm.is_some() {
        step("the guest boots", || {
            Ok(format!("in {}", server.wait_for_event("guest ready in ")?))
        })?;
    }
    let mut bazel = Bazel::open(place, "stress", &server)?;
    generate_inputs(&bazel.workspace())?;
    fs::copy(&place.action_tool, bazel.workspace().join("action_tool"))?;
    if place.start_as.is_some_and(|way| way != StartAs::SubordinateIds) {
        // With one id inputs belong to the action's user, who may change their modes in the action's own view.
        bazel.edit("BUILD.bazel", "inputs-are-read-only", "inputs-are-not-writable")?;
    }
    let outcome = steps(&mut server, &mut bazel, place.vm.is_some());
    outcome.with_context(|| server.log_tail())?;
    step("SIGTERM ends the server in order, and nothing of it is left", || {
        let strategy = server.strategy()?;
        server.stop()?;
        Ok(format!("no process, mount or loop device; input roots were {strategy}"))
    })
}

fn steps(server: &mut Daemon, bazel: &mut Bazel, in_vm: bool) -> Result<()> {
    let who = if in_vm { "guest" } else { "server" };
    let sentence = format!("the {who} is killed amid a build and restarted, and the build goes on");
    let mut before_kill = 0;
    step(&sentence, || {
        // Bazel tries 5 times by default, within three seconds. A busy machine takes longer to start a server.
        bazel.start_build(&["//:stress_all", "--remote_retries=20"])?;
        let before = server.wait_for_executions(3)?;
        if in_vm {
            server.kill_vmm()?;
            server.wait_for_event("booting the guest again")?;
            before_kill = server.executions()? as u64;
        } else {
            server.kill()?;
            server.restart()?;
        }
        let report = bazel.finish_build()?;
        let after = server.executions()?;
        // A result that was stored just before the kill and never answered is a hit afterwards.
        let done = report.remote() + report.cache_hits();
        ensure!(done == ACTIONS && report.remote() > 0, "Bazel says {report:?}");
        ensure!(after > before, "nothing ran after the restart");
        Ok(format!("{before} actions before, {} after", after - before))
    })?;

    step("every action ran on the server, and its outputs are here", || {
        let distinct = distinct_executions(server)?;
        ensure!(
            distinct as u64 == ACTIONS,
            "the server's log has {distinct} actions, not {ACTIONS}"
        );
        let summary = fs::read_to_string(bazel.output("mixed_all.summary")?)?;
        ensure!(summary.starts_with("files=1440 "), "mixed_all saw {summary}");
        let files = count_files(&bazel.output("shared_generated_tree.tree")?)?;
        ensure!(files == 256, "the shared tree has {files} files");
        Ok(format!("{distinct} actions in the server's log, 256 files in the shared tree"))
    })?;

    if in_vm {
        // To the guest it was a power cut: what it had not synced yet may be gone, and no more.
        step("a clean build runs at most what the killed guest had not synced", || {
            bazel.expunge()?;
            let report = bazel.build(&["//:stress_all"])?;
            let (hits, ran) = (report.cache_hits(), report.remote());
            ensure!(hits + ran == ACTIONS && ran <= before_kill, "Bazel says {report:?}");
            Ok(format!("{hits} cache hits, {ran} of {before_kill} run again"))
        })?;
    }

    step("a clean build is served from the action cache", || {
        let before = server.executions()?;
        bazel.expunge()?;
        let report = bazel.build(&["//:stress_all"])?;
        ensure!(report.cache_hits() == ACTIONS && report.remote() == 0, "Bazel says {report:?}");
        ensure!(server.executions()? == before, "the server ran actions again");
        Ok(format!("{ACTIONS} cache hits, none run"))
    })?;

    step("actions may change their inputs where asked for, in their own view only", || {
        let before = server.executions()?;
        bazel.build(&["//:changes_its_inputs"])?;
        let report = bazel.build(&["--noremote_accept_cached", "//:reads_the_same_inputs"])?;
        ensure!(report.remote() == 1, "Bazel says {report:?}");
        ensure!(server.executions()? == before + 2, "not both actions ran");
        Ok("one rewrote and removed inputs, the next one found them whole".into())
    })?;

    step("trees come back with links, modes, and directories that hold nothing", || {
        bazel.build(&["//:rare_shapes", "//:empty_tree", "//:looks_at_rare_shapes"])?;
        let tree = bazel.output("rare_shapes.tree")?;
        ensure!(fs::read_link(tree.join("link"))? == Path::new("file"), "the symlink is not one");
        ensure!(is_executable(&tree.join("tool"))?, "the executable is none");
        ensure!(bazel.output("empty_tree.tree")?.is_dir(), "the empty tree is not there");
        // To Bazel a tree is its files (bazelbuild/bazel#15901): it drops directories that hold
        // none, here and in the inputs of the next action. The server's answer is in its
        // store, which a VM does not show.
        let names = ["empty", "file", "link", "nested", "tool"];
        let is_told = in_vm || server.has_blob_naming(&names)?;
        ensure!(is_told, "the server's tree has no empty directories");
        let summary = fs::read_to_string(bazel.output("looks_at_rare_shapes.summary")?)?;
        Ok(format!("the next action saw {}", summary.trim()))
    })
}

fn distinct_executions(server: &Daemon) -> Result<usize> {
    let actions = server.finished_actions()?;
    let mut digests: Vec<_> = actions
        .iter()
        .filter(|action| action.exit_code == 0)
        .map(|action| &action.digest)
        .collect();
    digests.sort();
    digests.dedup();
    Ok(digests.len())
}

/// 160 files in one directory, 8 directories of 32, and 8 groups of 96 further down.
pub(in crate::e2e) fn generate_inputs(workspace: &Path) -> Result<()> {
    write_files(&workspace.join("bare"), 160)?;
    for index in 0..8 {
        write_files(&workspace.join(format!("source_dirs/dir_{index}/inner")), 32)?;
        write_files(&workspace.join(format!("nested/group_{index}/foo/bar/baz")), 96)?;
    }
    Ok(())
}

fn write_files(directory: &Path, count: u32) -> Result<()> {
    fs::create_dir_all(directory)?;
    for index in 0..count {
        let path = directory.join(format!("file_{index:03}.txt"));
        fs::write(&path, format!("{}\n", path.display()))?;
    }
    Ok(())
}

fn count_files(directory: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

fn is_executable(path: &Path) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::metadata(path)?.permissions().mode() & 0o111 != 0)
}
