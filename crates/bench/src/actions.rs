//! Actions that do nothing: all of their time is the server's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use model::Digest;
use model::proto::{self, google::protobuf::Timestamp};

use crate::Load;
use crate::client::Client;
use crate::content::{Blob, Tree, exit_program, tree, unique};
use crate::report::{Figure, Split};
use crate::sample::{per_second, percentiles};

/// Files and directories of the trees.
const TREES: [(usize, usize); 3] = [(1, 1), (1_000, 50), (10_000, 200)];
/// Small files that the writing action leaves.
const OUTPUTS: usize = 1_000;

pub(crate) async fn run(load: &mut Load) -> Result<()> {
    let program = Blob::new(exit_program());
    for (files, directories) in TREES {
        let tree = tree(&program, files, directories, false);
        load.client.upload(&tree.blobs).await?;
        for at_once in [1, 8] {
            seen_before(load, files, &tree, at_once).await?;
        }
        if files > 1 {
            first_seen(load, &program, files, directories).await?;
        }
    }
    many_outputs(load).await
}

/// The same tree over and over, as most of a build's actions have it.
async fn seen_before(load: &mut Load, files: usize, tree: &Tree, at_once: usize) -> Result<()> {
    let name = format!("no-op action, {files} input files, {at_once} at a time");
    if !load.wants(&name) {
        return Ok(());
    }
    let count = load.samples * at_once.min(4);
    let actions = make(&load.client, &[tree.root], count, &["program"], &[]).await?;
    let warm_up = make(&load.client, &[tree.root], 20, &["program"], &[]).await?;
    execute_all(load, warm_up, at_once).await?;
    let started = Instant::now();
    let ran = execute_all(load, actions, at_once).await?;
    let rate = per_second(count as f64, started);
    let split = split(&ran);
    let latencies = ran.into_iter().map(|(latency, _)| latency).collect();
    load.report.add(&name, Figure::Latency(percentiles(latencies)), Some(split));
    let rate = Figure::Rate { value: rate, unit: "actions/s" };
    load.report.add(format!("{name}, rate"), rate, None);
    Ok(())
}

/// Each action with a tree that differs a little from all before it.
async fn first_seen(
    load: &mut Load,
    program: &Blob,
    files: usize,
    directories: usize,
) -> Result<()> {
    let name = format!("no-op action, {files} input files, tree seen first");
    if !load.wants(&name) {
        return Ok(());
    }
    let mut roots = Vec::new();
    for _ in 0..load.samples.min(100) {
        let tree = tree(program, files, directories, true);
        load.client.upload(&tree.blobs).await?;
        roots.push(tree.root);
    }
    let actions = make(&load.client, &roots, roots.len(), &["program"], &[]).await?;
    let ran = execute_all(load, actions, 1).await?;
    let split = split(&ran);
    let latencies = ran.into_iter().map(|(latency, _)| latency).collect();
    load.report.add(name, Figure::Latency(percentiles(latencies)), Some(split));
    Ok(())
}

async fn many_outputs(load: &mut Load) -> Result<()> {
    let name = format!("action that writes {OUTPUTS} small files");
    if !load.wants(&name) {
        return Ok(());
    }
    let Some(writer) = load.writer.clone() else {
        let reason = "no program was given with --writer".to_owned();
        load.report.add(name, Figure::Skipped { reason }, None);
        return Ok(());
    };
    let tree = tree(&Blob::new(writer), 1, 1, false);
    load.client.upload(&tree.blobs).await?;
    let mut ran = Vec::new();
    for _ in 0..load.samples.min(30) {
        // The action must write new content, or the store has nothing to do.
        let files = format!("--tree-files={OUTPUTS}");
        let seed = format!("--seed={}", unique());
        let arguments = ["program", "--tree=out", &files, &seed];
        let actions = make(&load.client, &[tree.root], 1, &arguments, &["out"]).await?;
        let one = execute_all(load, actions, 1).await?;
        ensure!(one.iter().all(|(_, result)| result.output_directories.len() == 1));
        ran.extend(one);
    }
    let split = split(&ran);
    let latencies = ran.into_iter().map(|(latency, _)| latency).collect();
    load.report.add(name, Figure::Latency(percentiles(latencies)), Some(split));
    Ok(())
}

/// Makes and uploads `count` actions that all differ by their salt, over the
/// trees in turn.
async fn make(
    client: &Client,
    roots: &[Digest],
    count: usize,
    arguments: &[&str],
    outputs: &[&str],
) -> Result<Vec<Digest>> {
    let mut arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    arguments[0] = format!("./{}", arguments[0]);
    let command = Blob::of_message(&proto::Command {
        arguments,
        output_paths: outputs.iter().map(|path| (*path).to_owned()).collect(),
        #[expect(deprecated, reason = "servers of API 2.1 and before read it here")]
        platform: client.platform(),
        ..Default::default()
    });
    let action = |number: usize| {
        Blob::of_message(&proto::Action {
            command_digest: Some(command.digest.to_proto()),
            input_root_digest: Some(roots[number % roots.len()].to_proto()),
            salt: unique().to_le_bytes().to_vec().into(),
            do_not_cache: true,
            platform: client.platform(),
            ..Default::default()
        })
    };
    let mut blobs: Vec<Blob> = (0..count).map(action).collect();
    let digests = blobs.iter().map(|blob| blob.digest).collect();
    blobs.push(command);
    client.upload(&blobs).await?;
    Ok(digests)
}

type Ran = (Duration, proto::ActionResult);

/// Runs the actions, `at_once` at a time, each as soon as one before it ends and the pause is over.
async fn execute_all(load: &Load, actions: Vec<Digest>, at_once: usize) -> Result<Vec<Ran>> {
    let (client, pause) = (&load.client, load.pause);
    let actions = Arc::new(actions);
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let (client, actions, next) = (client.clone(), Arc::clone(&actions), Arc::clone(&next));
        tasks.spawn(async move {
            let mut ran = Vec::new();
            while let Some(action) = actions.get(next.fetch_add(1, Ordering::Relaxed)) {
                let started = Instant::now();
                let result = client.execute(action).await?;
                ran.push((started.elapsed(), result));
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
            anyhow::Ok(ran)
        });
    }
    let mut all = Vec::new();
    while let Some(ran) = tasks.join_next().await {
        all.extend(ran??);
    }
    Ok(all)
}

/// The median of each phase that the server tells of.
fn split(ran: &[Ran]) -> Split {
    let median = |from: Pick, to: Pick| {
        let mut spans: Vec<f64> = ran
            .iter()
            .filter_map(|(_, result)| result.execution_metadata.as_ref())
            .map(|metadata| millis(from(metadata), to(metadata)))
            .collect();
        spans.sort_unstable_by(f64::total_cmp);
        spans.get(spans.len() / 2).copied().unwrap_or_default()
    };
    Split {
        queued_ms: median(|m| m.queued_timestamp, |m| m.worker_start_timestamp),
        input_fetch_ms: median(
            |m| m.input_fetch_start_timestamp,
            |m| m.input_fetch_completed_timestamp,
        ),
        set_up_ms: median(|m| m.input_fetch_completed_timestamp, |m| m.execution_start_timestamp),
        execution_ms: median(|m| m.execution_start_timestamp, |m| m.execution_completed_timestamp),
        tear_down_ms: median(
            |m| m.execution_completed_timestamp,
            |m| m.output_upload_start_timestamp,
        ),
        output_upload_ms: median(
            |m| m.output_upload_start_timestamp,
            |m| m.output_upload_completed_timestamp,
        ),
    }
}

type Pick = fn(&proto::ExecutedActionMetadata) -> Option<Timestamp>;

fn millis(from: Option<Timestamp>, to: Option<Timestamp>) -> f64 {
    let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
    (to.seconds - from.seconds) as f64 * 1e3 + f64::from(to.nanos - from.nanos) / 1e6
}
