//! `Execution` and `Operations`: an action's way as its client sees it.

mod long_running;

use anyhow::Context as _;
use long_running::{endless, is_running, mark};
use testkit::proto;
use testkit::proto::execution_stage::Value as Stage;
use testkit::run::metadata;
use testkit::{Action, Client, Daemon, DigestFunction, Gate, Kit, Outcome, Run, google};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    every_stage_is_told,
    a_cached_result_is_told_in_one_message,
    the_first_message_comes_while_the_action_waits,
    equal_actions_in_flight_run_once,
    actions_that_may_not_be_shared_are_not,
    a_broken_stream_does_not_stop_the_action,
    an_action_that_is_over_can_still_be_asked_for,
    an_unknown_operation_is_not_found,
    an_action_that_nobody_waits_for_is_stopped,
    a_cancelled_action_is_stopped,
    an_action_whose_outputs_are_being_stored_can_be_cancelled,
    a_waiting_action_can_be_cancelled,
    operations_can_be_listed_and_waited_for,
    no_more_than_the_jobs_run_at_once,
    a_full_queue_refuses,
}

async fn daemon(kit: &Kit) -> anyhow::Result<Daemon> {
    kit.daemon().host_rootfs().start().await
}

async fn every_stage_is_told(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let (client, gate) = (daemon.client(), daemon.gate());
    // The stream begins when this is no short action any more, of which only the answer is told.
    let stream = client.action(&gate.wait()).start().await?;
    gate.open(1).await?;
    let run = Run::collect(client.clone(), stream).await?;
    let stages = run.stages()?;
    assert!(stages.ends_with(&[Stage::Queued, Stage::Executing, Stage::Completed]), "{stages:?}");
    let names: Vec<_> = run.operations.iter().map(|operation| &operation.name).collect();
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    let done: Vec<_> = run.operations.iter().map(|operation| operation.done).collect();
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    assert!(run.operations.last().context("messages")?.done);
    for operation in &run.operations {
        let metadata = metadata(operation)?;
        assert!(metadata.action_digest.is_some());
        assert_eq!(metadata.digest_function, DigestFunction::Sha256.to_proto());
    }
    Ok(())
}

async fn a_cached_result_is_told_in_one_message(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("true");
    action.run().await?;
    assert_eq!(action.run().await?.stages()?, [Stage::Completed]);
    Ok(())
}

async fn the_first_message_comes_while_the_action_waits(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=1").start().await?;
    let client = daemon.client();
    let mut first = endless(&client, mark()).start().await?;
    wait_for_stage(&mut first, Stage::Executing).await?;
    let mut second = client.action("true").start().await?;
    let stage = wait_for_stage(&mut second, Stage::Queued).await;
    assert!(stage.is_ok(), "{stage:?}");
    Ok(())
}

type Operations = tonic::Streaming<google::longrunning::Operation>;

/// Reads messages up to the first of that stage, and returns the operation's
/// name.
async fn wait_for_stage(stream: &mut Operations, stage: Stage) -> anyhow::Result<String> {
    loop {
        let operation = stream.message().await?.context("the stream ended")?;
        if metadata(&operation)?.stage == stage as i32 {
            return Ok(operation.name);
        }
        anyhow::ensure!(!operation.done, "it ended before {stage:?}: {operation:?}");
    }
}

/// Starts an action of `processes` processes in total twice, the second time while the first one runs;
/// then lets it end, and returns what came of both.
async fn run_twice(
    action: &Action,
    client: &Client,
    gate: &Gate,
    processes: usize,
) -> anyhow::Result<(Run, Run)> {
    let mut one = action.start().await?;
    wait_for_stage(&mut one, Stage::Executing).await?;
    let mut two = action.start().await?;
    wait_for_stage(&mut two, Stage::Executing).await?;
    gate.open(processes).await?;
    let two = tokio::spawn(Run::collect(client.clone(), two));
    let one = Run::collect(client.clone(), one).await?;
    Ok((one, two.await??))
}

/// A script whose output differs each time that it runs.
fn random_output(gate: &Gate) -> String {
    format!("{}; head -c 9 /dev/urandom | od -An -tx1 > out", gate.wait())
}

async fn equal_actions_in_flight_run_once(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=2").start().await?;
    let client = daemon.client();
    let gate = daemon.gate();
    let action = client.action(&random_output(&gate)).output("out");
    let (one, two) = run_twice(&action, &client, &gate, 1).await?;
    // Each client has an operation of its own, which it can cancel without the other's.
    assert_ne!(one.name(), two.name());
    assert_eq!(one.file("out").await?, two.file("out").await?);
    assert!(!one.from_cache() && !two.from_cache());
    Ok(())
}

async fn actions_that_may_not_be_shared_are_not(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=2").start().await?;
    let client = daemon.client();
    let gate = daemon.gate();
    let action = client.action(&random_output(&gate)).output("out");
    for action in [action.clone().do_not_cache(), action.clone().skip_cache_lookup()] {
        let (one, two) = run_twice(&action, &client, &gate, 2).await?;
        assert_ne!(one.name(), two.name());
        assert_ne!(one.file("out").await?, two.file("out").await?);
    }
    Ok(())
}

async fn wait_execution(client: &Client, name: &str) -> Result<Operations, tonic::Status> {
    let message = proto::WaitExecutionRequest { name: name.to_owned() };
    Ok(client.execution().wait_execution(message).await?.into_inner())
}

async fn a_broken_stream_does_not_stop_the_action(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let gate = daemon.gate();
    let script = format!("{}; echo done > out", gate.wait());
    let mut stream = client.action(&script).output("out").start().await?;
    let name = wait_for_stage(&mut stream, Stage::Executing).await?;
    drop(stream);
    let other = daemon.client();
    let stream = wait_execution(&other, &name).await?;
    gate.open(1).await?;
    let run = Run::collect(other.clone(), stream).await?;
    assert_eq!(run.stages()?, [Stage::Executing, Stage::Completed], "where it stands comes first");
    assert_eq!(run.succeeded().await?.file("out").await?, "done\n");
    Ok(())
}

async fn an_action_that_is_over_can_still_be_asked_for(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let run = client.action("echo x > out").output("out").run().await?;
    let again = Run::collect(client.clone(), wait_execution(&client, run.name()).await?).await?;
    assert_eq!(again.result()?, run.result()?);
    assert_eq!(again.stages()?, [Stage::Completed]);
    Ok(())
}

async fn an_unknown_operation_is_not_found(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    for name in ["", "operations/none", "operations/6ba7b810-9dad-41d1-80b4-00c04fd430c8"] {
        let status = wait_execution(&client, name).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{name}");
        assert_eq!(get_operation(&client, name).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(cancel(&client, name).await.unwrap_err().code(), Code::NotFound);
    }
    Ok(())
}

async fn get_operation(
    client: &Client,
    name: &str,
) -> Result<google::longrunning::Operation, tonic::Status> {
    let message = google::longrunning::GetOperationRequest { name: name.to_owned() };
    Ok(client.operations().get_operation(message).await?.into_inner())
}

async fn cancel(client: &Client, name: &str) -> Result<(), tonic::Status> {
    let message = google::longrunning::CancelOperationRequest { name: name.to_owned() };
    client.operations().cancel_operation(message).await.map(drop)
}

async fn an_action_that_nobody_waits_for_is_stopped(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--orphan-grace-ms=100").start().await?;
    let client = daemon.client();
    let mark = mark();
    let mut stream = endless(&client, mark).start().await?;
    let name = wait_for_stage(&mut stream, Stage::Executing).await?;
    testkit::eventually("the action runs", || is_running(&daemon, mark)).await?;
    drop(stream);
    // To ask for it, or to list it, is not to wait for it.
    testkit::eventually_async("the action is stopped", async || {
        get_operation(&client, &name).await?;
        let list = google::longrunning::ListOperationsRequest::default();
        client.operations().list_operations(list).await?;
        is_running(&daemon, mark).map(|is_running| !is_running)
    })
    .await?;
    let run = Run::collect(client.clone(), wait_execution(&client, &name).await?).await?;
    assert_eq!(run.code(), Code::Cancelled);
    Ok(())
}

async fn a_cancelled_action_is_stopped(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let mark = mark();
    let mut stream = endless(&client, mark).start().await?;
    let name = wait_for_stage(&mut stream, Stage::Executing).await?;
    testkit::eventually("the action runs", || is_running(&daemon, mark)).await?;
    cancel(&client, &name).await?;
    let run = Run::collect(client.clone(), stream).await?;
    assert_eq!(run.code(), Code::Cancelled);
    assert!(!is_running(&daemon, mark)?, "the answer comes when it is dead");
    Ok(())
}

async fn an_action_whose_outputs_are_being_stored_can_be_cancelled(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    // On a busy machine the outputs may be stored before this looks.
    for _ in 0..20 {
        let mark = mark();
        // Holes, which take an action no time and the server some.
        let gate = daemon.gate();
        let script = format!(
            "sleep {mark} & mkdir d; for i in $(seq 40); do truncate -s 64M d/$i; done; {}",
            gate.wait()
        );
        let mut stream = client.action(&script).output("d").start().await?;
        let name = wait_for_stage(&mut stream, Stage::Executing).await?;
        testkit::eventually("the action runs", || is_running(&daemon, mark)).await?;
        gate.open(1).await?;
        testkit::eventually("the action is over", || Ok(!is_running(&daemon, mark)?)).await?;
        cancel(&client, &name).await?;
        let run = Run::collect(client.clone(), stream).await?;
        if run.code() != Code::Ok {
            assert_eq!(run.code(), Code::Cancelled);
            return Ok(());
        }
    }
    anyhow::bail!("the outputs were stored before each look")
}

async fn a_waiting_action_can_be_cancelled(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=1").start().await?;
    let client = daemon.client();
    let mut first = endless(&client, mark()).start().await?;
    wait_for_stage(&mut first, Stage::Executing).await?;
    let mut second = client.action("echo never").start().await?;
    let name = wait_for_stage(&mut second, Stage::Queued).await?;
    cancel(&client, &name).await?;
    assert_eq!(Run::collect(client.clone(), second).await?.code(), Code::Cancelled);
    Ok(())
}

async fn operations_can_be_listed_and_waited_for(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let gate = daemon.gate();
    let mut stream = client.action(&format!("{}; echo done", gate.wait())).start().await?;
    let name = wait_for_stage(&mut stream, Stage::Executing).await?;
    assert!(!get_operation(&client, &name).await?.done);
    let list = google::longrunning::ListOperationsRequest::default();
    let listed = client.operations().list_operations(list).await?.into_inner();
    assert_eq!(listed.operations.iter().filter(|operation| operation.name == name).count(), 1);
    let short = google::longrunning::WaitOperationRequest {
        name: name.clone(),
        timeout: Some(google::protobuf::Duration { seconds: 0, nanos: 1 }),
    };
    assert!(!client.operations().wait_operation(short).await?.into_inner().done);
    gate.open(1).await?;
    let long = google::longrunning::WaitOperationRequest { name: name.clone(), timeout: None };
    assert!(client.operations().wait_operation(long).await?.into_inner().done);
    assert!(get_operation(&client, &name).await?.done);
    Ok(())
}

async fn no_more_than_the_jobs_run_at_once(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=2").start().await?;
    let client = daemon.client();
    let runs = (0..8).map(|number| {
        let action = client.action(&format!("sleep 0.2; echo {number}"));
        tokio::spawn(async move { action.run().await })
    });
    let mut changes = Vec::new();
    for run in runs.collect::<Vec<_>>() {
        let run = run.await??;
        let metadata = run.execution_metadata()?;
        let time = |time: &Option<google::protobuf::Timestamp>| {
            time.as_ref().map(|time| (time.seconds, time.nanos)).context("a timestamp")
        };
        changes.push((time(&metadata.worker_start_timestamp)?, 1));
        changes.push((time(&metadata.worker_completed_timestamp)?, -1));
    }
    changes.sort_unstable();
    let mut running = 0;
    for (_, change) in changes {
        running += change;
        assert!(running <= 2);
    }
    Ok(())
}

async fn a_full_queue_refuses(kit: Kit) -> Outcome {
    let daemon =
        kit.daemon().host_rootfs().flag("--jobs=1").flag("--queue-limit=1").start().await?;
    let client = daemon.client();
    let mut running = endless(&client, mark()).start().await?;
    wait_for_stage(&mut running, Stage::Executing).await?;
    let mut waiting = client.action("echo waiting").start().await?;
    wait_for_stage(&mut waiting, Stage::Queued).await?;
    let refused = client.action("echo refused").start().await.unwrap_err();
    let status = refused.downcast::<tonic::Status>()?;
    assert_eq!(status.code(), Code::ResourceExhausted);
    Ok(())
}
