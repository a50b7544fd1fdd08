//! Taking all there is, so that nothing is left for others.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tonic::Code;

use crate::case::{Case, Need, Skip, program, steps};
use crate::host::{self, Local};
use crate::judge::code_of;
use crate::world::{World, eventually};

/// The action was stopped by its own timeout.
const TIMED_OUT: &[Code] = &[Code::DeadlineExceeded];
/// The server stopped it because of what it took.
const EXHAUSTED: &[Code] = &[Code::ResourceExhausted];

pub(super) const CASES: &[Case] = &[
    program("signals-are-ignored", &["deaf"]).timeout_ms(300).refused(TIMED_OUT),
    program("everything-is-stopped", &["stopped"]).timeout_ms(300).refused(TIMED_OUT),
    program("waiting-in-the-kernel", &["in-vfork"]).timeout_ms(300).refused(TIMED_OUT),
    program("daemons", &["daemons"]).leaves(&[], &[]),
    program("threads", &["threads"]).properties(&[("pids", "50")]).prints("50 threads"),
    program("open-files", &["many-open"]).prints("EMFILE"),
    // The kernel counts them for the whole machine.
    program("terminals", &["many-terminals"]).prints("ENOSPC after 64"),
    program("memory-over-its-limit", &["allocate", "1073741824"])
        .properties(&[("memory", "256m")])
        .prints("refused"),
    steps("scratch-space", |world| Box::pin(scratch(world, "fill", "/tmp"))),
    steps("scratch-space-without-names", |world| Box::pin(scratch(world, "fill-unlinked", "/tmp"))),
    steps("shared-memory", |world| Box::pin(scratch(world, "fill", "/dev/shm"))),
    steps("files-in-scratch-space", |world| Box::pin(scratch(world, "inodes", "/dev/shm"))),
    steps("a-fork-bomb", |world| {
        Box::pin(beside(world, &["fork-bomb"], &[("pids", "200")], TIMED_OUT))
    }),
    steps("processors", |world| Box::pin(beside(world, &["spin"], &[], TIMED_OUT))),
    steps("pipes", |world| Box::pin(beside(world, &["pipes"], &[], TIMED_OUT))),
    steps("watchers-of-the-hosts-root", |world| {
        Box::pin(beside(world, &["watches"], &[], TIMED_OUT))
    }),
    steps("message-queues", |world| Box::pin(beside(world, &["queues"], &[], TIMED_OUT))),
    steps("a-fork-bomb-without-a-limit-of-its-own", |world| {
        Box::pin(beside(world, &["fork-bomb"], &[], TIMED_OUT))
    })
    .costly(),
    steps("endless-output", |world| Box::pin(flood(world, "stdout"))),
    steps("endless-errors", |world| Box::pin(flood(world, "stderr"))),
    steps("the-disk", |world| Box::pin(disk(world, "fill"))).needs(Need::Local),
    steps("the-disk-without-names", |world| Box::pin(disk(world, "fill-unlinked")))
        .needs(Need::Local),
    steps("inodes-of-the-disk", |world| Box::pin(disk(world, "inodes")))
        .needs(Need::Local)
        .costly(),
    // xtask tells the server what to accept.
    program("more-outputs-than-are-taken", &["links", "/execroot/out", "100001"])
        .declares(&["out"])
        .needs(Need::Local)
        .refused(EXHAUSTED)
        .costly(),
    steps("outputs-without-end", |world| Box::pin(outputs(world))),
    steps("many-quick-actions", |world| Box::pin(many_quick_actions(world, 500))),
    steps("thousands-of-quick-actions", |world| Box::pin(many_quick_actions(world, 2000))).costly(),
    steps("a-full-queue-that-nobody-waits-for", |world| Box::pin(full_queue(world)))
        .needs(Need::Local),
];

/// Scratch space has an end, and it is the server's again afterwards.
async fn scratch(world: &World, hog: &str, directory: &str) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(world.say(&[hog, directory]).await?);
    }
    let first = all.first().context("four runs")?;
    ensure!(first.trim_end().ends_with("ENOSPC"), "it ended otherwise: {first}");
    ensure!(all.iter().all(|said| said == first), "what there is differs: {all:?}");
    Ok(())
}

/// A hog runs until its timeout; others are served meanwhile.
async fn beside(
    world: &World,
    hog: &[&str],
    properties: &[(&str, &str)],
    expected: &[Code],
) -> anyhow::Result<()> {
    let mut action = world.ready(hog).await?.timeout(Duration::from_millis(1500));
    for (name, value) in properties {
        action = action.property(name, value);
    }
    let others = async {
        // The hog needs this long to take everything. Where it needs more or less time, the case shows less, but
        // it does not fail.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..3 {
            world.ensure_serves().await?;
            host::ensure_works()?;
        }
        anyhow::Ok(())
    };
    let (run, others) = tokio::join!(world.run(&action), others);
    others.context("beside it")?;
    let (code, message) = code_of(run)?;
    ensure!(expected.contains(&code), "{expected:?} was expected, and {code:?} came: {message}");
    Ok(())
}

/// A stream that never ends, which costs as much time as it may have bytes.
async fn flood(world: &World, stream: &str) -> anyhow::Result<()> {
    if world.local.is_none() {
        let why = "a server of unknown flags may take a gigabyte of it";
        return Err(Skip(why.into()).into());
    }
    beside_without_timeout(world, &["flood", stream]).await
}

/// The server must end it for what it takes.
async fn beside_without_timeout(world: &World, hog: &[&str]) -> anyhow::Result<()> {
    let action = world.ready(hog).await?;
    let (code, message) = code_of(world.run(&action).await)?;
    ensure!(EXHAUSTED.contains(&code), "{EXHAUSTED:?} was expected, and {code:?} came: {message}");
    Ok(())
}

/// More would take too long to fill.
const SMALL_DISK_BYTES: u64 = 8 << 30;

/// An action that fills the disk is ended, and what it had is there again.
async fn disk(world: &World, hog: &str) -> anyhow::Result<()> {
    let local = world.local.as_ref().context("needs a server of this machine")?;
    let before = free(local)?;
    if before.total_bytes > SMALL_DISK_BYTES {
        let why = format!("the disk has {} GiB: too much to fill", before.total_bytes >> 30);
        return Err(Skip(why).into());
    }
    beside_without_timeout(world, &[hog, "/execroot"]).await?;
    // The server deletes what was written after the answer.
    let mut after = free(local)?;
    let free_again = async || {
        after = free(local)?;
        Ok(after.bytes >= before.bytes / 10 * 9 && after.inodes >= before.inodes / 10 * 9)
    };
    let free_again = eventually(free_again).await?;
    ensure!(free_again, "the space is not there again: {before:?} before, {after:?} after");
    world.ensure_kept().await
}

/// Outputs for as long as the action may run: they take the inodes of a small disk.
async fn outputs(world: &World) -> anyhow::Result<()> {
    let action = world.ready(&["links", "/execroot/out", "1000000000"]).await?;
    let action = action.output("out").timeout(Duration::from_secs(1));
    let (code, message) = code_of(world.run(&action).await)?;
    let expected = [Code::DeadlineExceeded, Code::ResourceExhausted];
    ensure!(expected.contains(&code), "{expected:?} was expected, and {code:?} came: {message}");
    world.ensure_kept().await
}

#[derive(Debug)]
struct Free {
    total_bytes: u64,
    bytes: u64,
    inodes: u64,
}

fn free(local: &Local) -> anyhow::Result<Free> {
    let disk = rustix::fs::statvfs(&local.root)?;
    let (total_bytes, bytes) = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
    Ok(Free { total_bytes, bytes, inodes: disk.f_favail })
}

/// Many at a time, one after the other; no descriptor is left of them.
async fn many_quick_actions(world: &World, count: usize) -> anyhow::Result<()> {
    const AT_A_TIME: usize = 16;
    // Those of 64 idle staging directories, of which a busy machine takes more before others are free again, and a
    // few helpers and connections. It is less than one for each action.
    const KEPT: usize = 64 * 3 + 64;
    let open = || world.local.as_ref().map(open_files).transpose();
    world.ensure_serves().await?;
    let before = open()?;
    let action = world.ready(&["nothing"]).await?;
    action.upload().await?;
    for _ in 0..count / AT_A_TIME {
        let mut runs = tokio::task::JoinSet::new();
        for _ in 0..AT_A_TIME {
            let action = action.clone();
            runs.spawn(async move { action.run_without_upload().await?.exit_code() });
        }
        while let Some(code) = runs.join_next().await {
            ensure!(code?? == 0, "an action failed");
        }
    }
    let mut after = None;
    let closed = async || {
        after = open()?;
        // The server keeps mounts and helpers, up to their bounds; it closes the rest after the answer.
        Ok(before.zip(after).is_none_or(|(before, after)| after < before + KEPT))
    };
    let closed = eventually(closed).await?;
    ensure!(closed, "{before:?} descriptors were open, and {after:?} are now");
    Ok(())
}

fn open_files(local: &Local) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", local.pid))?.count())
}

/// More actions than the queue takes, of which nobody waits for the end.
async fn full_queue(world: &World) -> anyhow::Result<()> {
    let action = world.ready(&["sleep"]).await?.timeout(Duration::from_secs(600));
    action.upload().await?;
    let mut streams = Vec::new();
    let mut refused = 0;
    for _ in 0..300 {
        match world.client.execution().execute(action.request()).await {
            Ok(stream) => streams.push(stream),
            Err(status) if status.code() == Code::ResourceExhausted => refused += 1,
            Err(status) => return Err(status.into()),
        }
    }
    ensure!(refused > 0, "the server took {} actions that do not end", streams.len());
    drop(streams);
    world.wait_until_it_serves().await
}
