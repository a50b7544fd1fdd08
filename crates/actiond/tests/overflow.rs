//! Actions that another engine runs: those that wait too long, and those for another machine. The operation stays ours,
//! and what the engine answers is used once all of it is here.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::proto::google::longrunning::{
    CancelOperationRequest, GetOperationRequest, ListOperationsRequest, Operation,
};
use testkit::proto::{self, execution_stage::Value as Stage};
use testkit::run::metadata;
use testkit::{
    Daemon, DaemonBuilder, Digest, DigestFunction, Kit, Outcome, ReservedAddress, Run,
    eventually_async,
};
use tonic::{Code, Streaming};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    what_waits_too_long_runs_elsewhere_and_is_cached_here,
    an_action_for_another_machine_runs_elsewhere,
    what_fails_elsewhere_is_told_and_not_cached,
    inputs_that_are_missing_are_named_and_not_asked_for_elsewhere,
    an_engine_that_is_away_is_not_waited_for,
    an_engine_that_is_killed_amid_actions_fails_none,
    what_the_engine_can_not_run_runs_here,
    an_overdue_action_that_no_machine_can_run_is_refused,
    a_daemon_that_is_its_own_engine_ends_actions,
    a_cancelled_action_ends_elsewhere_too,
    an_engine_that_has_lost_an_output_is_not_believed,
}

/// A property that only the engine of these tests has.
const OTHER: (&str, &str) = ("ISA", "arm-a64");

/// A property that the engine refuses.
const ONLY_HERE: (&str, &str) = ("ISA", "riscv64");

/// The engine: another daemon, which claims to be another machine as well.
fn engine(kit: &Kit) -> anyhow::Result<DaemonBuilder> {
    kit.only_on_the_host("a guest has no network for an engine")?;
    Ok(kit
        .daemon()
        .host_rootfs()
        .flag("--platform=ISA=arm-a64")
        .flag("--name=engine")
        .flag("--jobs=4"))
}

/// A daemon of one slot, whose actions go to the engine after a while. The one that fills the slot must not wait for so
/// long, even on a busy machine.
fn overflowing(kit: &Kit, address: &str, wait: &str) -> DaemonBuilder {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=1").flag("--name=here");
    let daemon = daemon.flag("--overflow").flag(format!("grpc://{address}"));
    // On a busy machine the engine may take its time.
    daemon.flag("--overflow-wait").flag(wait).flag("--upstream-timeout=120s")
}

fn above(kit: &Kit, engine: &Daemon, wait: &str) -> DaemonBuilder {
    overflowing(kit, &engine.address().to_string(), wait)
}

/// The worker that ran it.
fn worker(run: &Run) -> anyhow::Result<&str> {
    Ok(&run.execution_metadata()?.worker)
}

/// An action that fills the only slot until its gate opens.
async fn fill_the_slot(
    daemon: &Daemon,
    gate: &testkit::Gate,
) -> anyhow::Result<Streaming<Operation>> {
    let client = daemon.client();
    let action = client.action(&gate.wait()).salt("fills the slot").do_not_cache();
    let mut stream = action.start().await?;
    wait_for(&mut stream, Stage::Executing).await?;
    gate.reached(1).await?;
    Ok(stream)
}

/// Reads up to the first message of that stage. Returns the operation's name.
async fn wait_for(stream: &mut Streaming<Operation>, stage: Stage) -> anyhow::Result<String> {
    loop {
        let operation = stream.message().await?.context("the stream ended")?;
        if metadata(&operation)?.stage == stage as i32 {
            return Ok(operation.name);
        }
        ensure!(!operation.done, "it ended before {stage:?}: {operation:?}");
    }
}

async fn what_waits_too_long_runs_elsewhere_and_is_cached_here(kit: Kit) -> Outcome {
    let mut engine = engine(&kit)?.start().await?;
    let daemon = above(&kit, &engine, "5s").start().await?;
    let gate = daemon.gate();
    let first = fill_the_slot(&daemon, &gate).await?;
    let client = daemon.client();
    let action = |number: usize| {
        let script =
            format!("mkdir -p dir/sub; cp a/b/in dir/sub/file; cp a/b/in out; echo {number}");
        let action = client.action(&script).input("a/b/in", vec![b'x'; 1 << 20]);
        action.output("out").output("dir")
    };
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..6 {
        let action = action(number);
        runs.spawn(async move { action.run().await });
    }
    while let Some(run) = runs.join_next().await {
        let run = run??;
        run.succeeded().await?;
        assert_eq!(worker(&run)?, "engine");
        assert!(run.name().starts_with("operations/"));
        let name = run.name().to_owned();
        let ours = client.operations().get_operation(GetOperationRequest { name }).await;
        assert!(ours?.into_inner().done);
        assert_eq!(run.stages()?.last(), Some(&Stage::Completed), "{:?}", run.stages()?);
    }
    // All of it is here.
    engine.kill()?;
    for number in 0..6 {
        let run = action(number).run_without_upload().await?;
        assert!(run.succeeded().await?.from_cache(), "action {number}");
        assert_eq!(run.stdout().await?, format!("{number}\n"));
        assert_eq!(run.file("out").await?.len(), 1 << 20);
        assert_eq!(run.tree("dir").await?.children.len(), 1);
    }
    gate.open(1).await?;
    let first = Run::collect(client.clone(), first).await?;
    assert_eq!(worker(&first)?, "here");
    Ok(())
}

async fn an_action_for_another_machine_runs_elsewhere(kit: Kit) -> Outcome {
    let mut engine = engine(&kit)?.start().await?;
    // However long others wait here.
    let daemon = above(&kit, &engine, "1h").start().await?;
    let client = daemon.client();
    let (name, value) = OTHER;
    let action = |script: &str| client.action(script).property(name, value).output("out");
    let run = action("echo there > out").run().await?;
    assert_eq!(worker(run.succeeded().await?)?, "engine");
    assert_eq!(run.file("out").await?, "there\n");
    let run = client.action("echo here").run().await?;
    assert_eq!(worker(run.succeeded().await?)?, "here");
    engine.kill()?;
    assert!(action("echo there > out").run().await?.succeeded().await?.from_cache());
    let refused = action("echo never > out").run().await?;
    assert_eq!(refused.code(), Code::Unavailable, "{}", refused.message());
    // As without an engine.
    let alone = kit.daemon().host_rootfs().start().await?;
    let refused = alone.client().action("true").property(name, value).run().await?;
    assert_eq!(refused.code(), Code::InvalidArgument);
    Ok(())
}

async fn what_fails_elsewhere_is_told_and_not_cached(kit: Kit) -> Outcome {
    let engine = engine(&kit)?.start().await?;
    let daemon = above(&kit, &engine, "1h").start().await?;
    let client = daemon.client();
    let (name, value) = OTHER;
    let action = |script: &str| client.action(script).property(name, value);
    let failing = action("echo words >&2; echo log > out; exit 3").output("out");
    for _ in 0..2 {
        let run = failing.run().await?;
        assert_eq!((run.code(), run.exit_code()?, run.from_cache()), (Code::Ok, 3, false));
        assert_eq!(
            (run.stderr().await?, run.file("out").await?),
            ("words\n".into(), "log\n".into())
        );
    }
    let slow = action("sleep 1000").timeout(Duration::from_secs(1)).run().await?;
    assert_eq!(slow.code(), Code::DeadlineExceeded, "{}", slow.message());
    let wrong = action("mkdir out").output_file("out").run().await?;
    assert!(wrong.code() != Code::Ok, "{}", wrong.message());
    Ok(())
}

async fn inputs_that_are_missing_are_named_and_not_asked_for_elsewhere(kit: Kit) -> Outcome {
    let engine = engine(&kit)?.start().await?;
    let daemon = above(&kit, &engine, "1h").start().await?;
    let (name, value) = OTHER;
    let client = daemon.client();
    let action = client.action("cat in").input("in", "nobody has it").property(name, value);
    let lost = client.digest(b"nobody has it");
    action.upload().await?;
    client.delete(&[lost]).await?;
    let run = action.run_without_upload().await?;
    assert_eq!(run.code(), Code::FailedPrecondition);
    ensure!(
        run.missing()?.iter().any(|subject| subject.contains(&lost.hex())),
        "{:?}",
        run.missing()?
    );
    Ok(())
}

async fn an_engine_that_is_away_is_not_waited_for(kit: Kit) -> Outcome {
    kit.only_on_the_host("a guest has no network for an engine")?;
    let nowhere = ReservedAddress::new()?;
    let daemon = overflowing(&kit, &nowhere.get().to_string(), "0s").start().await?;
    let client = daemon.client();
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..8 {
        let action = client.action(&format!("echo {number}"));
        runs.spawn(async move { action.run().await });
    }
    while let Some(run) = runs.join_next().await {
        assert_eq!(worker(run??.succeeded().await?)?, "here");
    }
    Ok(())
}

async fn an_engine_that_is_killed_amid_actions_fails_none(kit: Kit) -> Outcome {
    let address = ReservedAddress::new()?;
    let mut engine = engine(&kit)?.listen(address.get()).start().await?;
    let daemon = above(&kit, &engine, "0s").start().await?;
    let client = daemon.client();
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..40 {
        let script = format!("sleep 0.2; cp in out; echo {number}");
        let action = client.action(&script).input("in", "content").output("out");
        runs.spawn(async move { (number, action.run().await) });
    }
    let (mut elsewhere, mut ended, mut kills) = (0, 0, 0);
    while let Some(run) = runs.join_next().await {
        let (number, run) = run?;
        let run = run?;
        run.succeeded().await?;
        assert_eq!(run.stdout().await?, format!("{number}\n"));
        assert_eq!(run.file("out").await?, "content");
        elsewhere += usize::from(worker(&run)? == "engine");
        ended += 1;
        // Two times amid actions, of which some were there.
        if elsewhere > 0 && (kills == 0 && ended >= 8 || kills == 1 && ended >= 20) {
            kills += 1;
            engine.kill()?;
            engine = engine.successor().start().await?;
        }
    }
    ensure!(elsewhere > 0, "none ran elsewhere:\n{}", daemon.log());
    Ok(())
}

async fn what_the_engine_can_not_run_runs_here(kit: Kit) -> Outcome {
    let engine = engine(&kit)?.start().await?;
    let (name, value) = ONLY_HERE;
    let daemon = above(&kit, &engine, "5s").flag(format!("--platform={name}={value}"));
    let daemon = daemon.start().await?;
    let gate = daemon.gate();
    let first = fill_the_slot(&daemon, &gate).await?;
    let client = daemon.client();
    let action = client.action("echo here").property(name, value);
    let run = tokio::spawn(async move { action.run().await });
    let theirs = engine.client();
    eventually_async("the engine was asked", async || Ok(!operations(&theirs).await?.is_empty()))
        .await?;
    gate.open(1).await?;
    assert_eq!(worker(run.await??.succeeded().await?)?, "here");
    assert_eq!(worker(&Run::collect(client.clone(), first).await?)?, "here");
    Ok(())
}

async fn an_overdue_action_that_no_machine_can_run_is_refused(kit: Kit) -> Outcome {
    let engine = engine(&kit)?.start().await?;
    let daemon = above(&kit, &engine, "5s").flag("--http=127.0.0.1:0").start().await?;
    let gate = daemon.gate();
    let first = fill_the_slot(&daemon, &gate).await?;
    // No slot here looks at it.
    let (name, value) = ONLY_HERE;
    let client = daemon.client();
    let run = client.action("echo nowhere").property(name, value).run().await?;
    ensure!(run.code() != Code::Ok && run.message().contains("ISA"), "{}", run.message());
    let ended = |end: &str| daemon.metric(&format!("overflow_actions_total{{end=\"{end}\"}}"));
    assert_eq!((ended("answered")?, ended("refused")?, ended("unavailable")?), (1, 0, 0));
    assert_eq!(daemon.metric("overflow_running_actions")?, 0);
    ensure!(daemon.metric("overflow_action_microseconds_total")? > 0, "the time is counted");
    assert_eq!(daemon.metric("upstream_up{tier=\"overflow\"}")?, 1);
    gate.open(1).await?;
    assert_eq!(worker(&Run::collect(client.clone(), first).await?)?, "here");
    Ok(())
}

async fn a_daemon_that_is_its_own_engine_ends_actions(kit: Kit) -> Outcome {
    kit.only_on_the_host("a guest has no network for an engine")?;
    let address = ReservedAddress::new()?;
    let daemon = overflowing(&kit, &address.get().to_string(), "0s").listen(address.get());
    let daemon = daemon.start().await?;
    let client = daemon.client();
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..8 {
        let action = client.action(&format!("sleep 0.2; echo {number}"));
        runs.spawn(async move { action.run().await });
    }
    while let Some(run) = runs.join_next().await {
        run??.succeeded().await?;
    }
    Ok(())
}

async fn a_cancelled_action_ends_elsewhere_too(kit: Kit) -> Outcome {
    let engine = engine(&kit)?.start().await?;
    let daemon = above(&kit, &engine, "1h").start().await?;
    let client = daemon.client();
    let (name, value) = OTHER;
    let gate = daemon.gate();
    let mut stream = client.action(&gate.wait()).property(name, value).start().await?;
    let operation = wait_for(&mut stream, Stage::Executing).await?;
    gate.reached(1).await?;
    client.operations().cancel_operation(CancelOperationRequest { name: operation }).await?;
    let run = Run::collect(client.clone(), stream).await?;
    assert_eq!(run.code(), Code::Cancelled);
    // The engine ran nothing else, and is idle again.
    let theirs = engine.client();
    eventually_async("no operation is left there", async || {
        Ok(operations(&theirs).await?.iter().all(|operation| operation.done))
    })
    .await
}

/// All operations that a server knows.
async fn operations(client: &testkit::Client) -> anyhow::Result<Vec<Operation>> {
    let list = client.operations().list_operations(ListOperationsRequest::default()).await?;
    Ok(list.into_inner().operations)
}

async fn an_engine_that_has_lost_an_output_is_not_believed(kit: Kit) -> Outcome {
    let engine = engine(&kit)?.start().await?;
    let theirs = engine.client();
    // A result whose output the engine says it has, and has not.
    let (name, value) = OTHER;
    let daemon = above(&kit, &engine, "1h").start().await?;
    let client = daemon.client();
    let action = client.action("echo out > out").property(name, value).output("out");
    let digest = action.upload().await?;
    let content = theirs.put("forged later").await?;
    let result = proto::ActionResult {
        output_files: vec![proto::OutputFile {
            path: "out".to_owned(),
            digest: Some(content.to_proto()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let update = proto::UpdateActionResultRequest {
        action_digest: Some(digest.to_proto()),
        action_result: Some(result),
        ..Default::default()
    };
    theirs.action_cache().update_action_result(update).await?;
    let hex = content.hex();
    std::fs::remove_file(engine.store()?.join("cas/blobs/sha256").join(&hex[..2]).join(&hex))?;
    let run = action.run_without_upload().await?;
    // Or the engine has noticed it and has run the action.
    ensure!(
        run.code() == Code::Unavailable
            || (run.code() == Code::Ok && run.file("out").await? == "out\n"),
        "{:?} {}",
        run.code(),
        run.message()
    );
    ensure!(!is_named(&daemon, &digest, &content).await?, "a result with a lost output is cached");
    Ok(())
}

/// Whether the cached result of an action names that blob.
async fn is_named(daemon: &Daemon, action: &Digest, blob: &Digest) -> anyhow::Result<bool> {
    let Some(result) = daemon.client().cached(action).await? else { return Ok(false) };
    let mut digests = Vec::new();
    for file in &result.output_files {
        digests.push(Digest::from_proto_field(file.digest.as_ref(), DigestFunction::Sha256)?);
    }
    Ok(digests.contains(blob))
}
