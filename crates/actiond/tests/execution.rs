//! `Execution`: an action's way as its client sees it.

use std::time::Duration;

use anyhow::Context as _;
use testkit::proto::execution_stage::Value as Stage;
use testkit::proto::{self, ExecutedActionMetadata};
use testkit::run::metadata;
use testkit::{Action, Client, Daemon, DigestFunction, Kit, Outcome, Run, google};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_output_comes_back_and_is_cached,
    every_stage_is_told,
    a_cached_result_is_told_in_stages_too,
    the_first_message_comes_while_the_action_waits,
    every_timestamp_is_there_and_in_order,
    exit_codes_are_what_the_command_says,
    a_failure_is_not_cached,
    an_action_that_is_not_to_be_cached_is_not,
    a_lookup_can_be_skipped,
    instances_do_not_share_results,
    a_hit_with_a_missing_blob_runs_again,
    equal_actions_in_flight_run_once,
    actions_that_may_not_be_shared_are_not,
    a_broken_stream_does_not_stop_the_action,
    an_action_that_is_over_can_still_be_asked_for,
    an_unknown_operation_is_not_found,
    an_action_that_nobody_waits_for_is_stopped,
    a_cancelled_action_is_stopped,
    a_waiting_action_can_be_cancelled,
    operations_can_be_listed_and_waited_for,
    no_more_than_the_jobs_run_at_once,
    a_full_queue_refuses,
    missing_inputs_of_any_depth_are_all_listed,
    a_missing_action_and_a_missing_command_are_listed,
    a_missing_directory_is_listed,
    missing_inputs_under_blake3_name_their_function,
    a_timeout_keeps_the_output_so_far,
    a_timeout_above_the_maximum_is_refused,
    the_default_timeout_holds_where_none_is_asked_for,
    output_streams_are_inlined_up_to_a_bound,
    output_files_are_inlined_when_asked_for,
    endless_output_is_stopped,
    blake3_actions_work,
    blake3_is_found_out_where_it_is_not_said,
    a_command_that_is_not_there_is_named,
    actions_under_load_keep_apart,
}

/// A daemon whose actions can use the shell.
async fn daemon(kit: &Kit) -> anyhow::Result<Daemon> {
    kit.daemon().host_rootfs().start().await
}

/// An action that goes on until it is stopped. `mark` is found in its command
/// line.
fn endless(client: &Client, mark: u32) -> Action {
    client.action(&format!("echo begun; sleep {mark}"))
}

/// Whether a process with `mark` in its command line lives on this machine.
fn is_running(mark: u32) -> anyhow::Result<bool> {
    let sleep = format!("sleep\0{mark}\0");
    for entry in std::fs::read_dir("/proc")? {
        let command = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        if command == sleep.as_bytes() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A number of seconds that no other test sleeps for.
fn mark() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1_000_000 + std::process::id() % 100_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

async fn an_output_comes_back_and_is_cached(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("cp in out; echo hello; echo oops >&2");
    let action = action.input("in", "hi").output("out");
    let first = action.run().await?;
    assert_eq!(first.succeeded().await?.file("out").await?, "hi");
    assert_eq!((first.stdout().await?, first.stderr().await?), ("hello\n".into(), "oops\n".into()));
    assert!(!first.from_cache());
    let second = action.run().await?;
    assert!(second.from_cache());
    let mut expected = first.result()?.clone();
    // A cached result holds its streams as digests only.
    (expected.stdout_raw, expected.stderr_raw) = (Vec::new(), Vec::new());
    assert_eq!(second.result()?, &expected);
    Ok(())
}

async fn every_stage_is_told(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let run = daemon.client().action("true").run().await?;
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

async fn a_cached_result_is_told_in_stages_too(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("true");
    action.run().await?;
    let stages = action.run().await?.stages()?;
    assert_eq!(stages.last(), Some(&Stage::Completed));
    assert!(!stages.contains(&Stage::Executing), "{stages:?}");
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

fn execution_metadata(run: &Run) -> anyhow::Result<&ExecutedActionMetadata> {
    run.result()?.execution_metadata.as_ref().context("execution metadata")
}

async fn every_timestamp_is_there_and_in_order(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let run = daemon.client().action("echo x > out").output("out").run().await?;
    let metadata = execution_metadata(&run)?;
    assert!(!metadata.worker.is_empty());
    let times = [
        &metadata.queued_timestamp,
        &metadata.worker_start_timestamp,
        &metadata.input_fetch_start_timestamp,
        &metadata.input_fetch_completed_timestamp,
        &metadata.execution_start_timestamp,
        &metadata.execution_completed_timestamp,
        &metadata.output_upload_start_timestamp,
        &metadata.output_upload_completed_timestamp,
        &metadata.worker_completed_timestamp,
    ];
    let times: Option<Vec<_>> = times
        .into_iter()
        .map(|time| time.as_ref().map(|time| (time.seconds, time.nanos)))
        .collect();
    let times = times.with_context(|| format!("a timestamp is missing: {metadata:?}"))?;
    assert!(times.is_sorted(), "{times:?}");
    assert!(metadata.virtual_execution_duration.is_some());
    Ok(())
}

async fn exit_codes_are_what_the_command_says(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let run = client.action(script).run().await?;
        assert_eq!((run.code(), run.exit_code()?), (Code::Ok, expected), "{script}");
    }
    Ok(())
}

async fn a_failure_is_not_cached(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("echo failed > out; exit 3").output("out");
    let run = action.run().await?;
    assert_eq!((run.exit_code()?, run.file("out").await?), (3, "failed\n".into()));
    assert!(!action.run().await?.from_cache());
    assert_eq!(daemon.client().cached(&action.encode().0).await?, None);
    Ok(())
}

async fn an_action_that_is_not_to_be_cached_is_not(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = daemon.client().action("true").do_not_cache();
    action.run().await?.succeeded().await?;
    assert!(!action.run().await?.from_cache());
    assert_eq!(daemon.client().cached(&action.encode().0).await?, None);
    Ok(())
}

/// An action whose output is another one each time.
fn random(client: &Client) -> Action {
    client.action("head -c 16 /dev/urandom | od -An -tx1 > out").output("out")
}

async fn a_lookup_can_be_skipped(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let action = random(&daemon.client());
    let first = action.run().await?.file("out").await?;
    let again = action.clone().skip_cache_lookup().run().await?;
    assert!(!again.from_cache());
    let second = again.file("out").await?;
    assert_ne!(first, second);
    // The newer result is the one that is cached now.
    assert_eq!(action.run().await?.file("out").await?, second);
    Ok(())
}

async fn instances_do_not_share_results(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let one = daemon.client().with_instance("team/one");
    let first = random(&one).run().await?.file("out").await?;
    assert_eq!(random(&one).run().await?.file("out").await?, first);
    let two = daemon.client().with_instance("team/two");
    assert_ne!(random(&two).run().await?.file("out").await?, first);
    Ok(())
}

async fn a_hit_with_a_missing_blob_runs_again(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let action =
        client.action("mkdir d; echo inside > d/f; echo top > out").output("out").output("d");
    action.run().await?.succeeded().await?;
    for content in ["top\n", "inside\n"] {
        assert!(action.run().await?.from_cache());
        client.delete(&[client.digest(content)]).await?;
        let again = action.run().await?;
        assert!(!again.from_cache(), "{content}");
        assert_eq!(again.succeeded().await?.file("out").await?, "top\n");
        assert_eq!(client.missing(&[client.digest(content)]).await?, []);
    }
    Ok(())
}

/// Starts the action twice while it runs, and returns what came of both.
async fn run_twice(action: Action, client: &Client) -> anyhow::Result<(Run, Run)> {
    let mut one = action.start().await?;
    wait_for_stage(&mut one, Stage::Executing).await?;
    let two = action.start().await?;
    let two = tokio::spawn(Run::collect(client.clone(), two));
    let one = Run::collect(client.clone(), one).await?;
    Ok((one, two.await??))
}

async fn equal_actions_in_flight_run_once(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=2").start().await?;
    let client = daemon.client();
    let action = client.action("sleep 1; head -c 9 /dev/urandom | od -An -tx1 > out").output("out");
    let (one, two) = run_twice(action, &client).await?;
    assert_eq!(one.name(), two.name());
    assert_eq!(one.file("out").await?, two.file("out").await?);
    assert!(!one.from_cache() && !two.from_cache());
    Ok(())
}

async fn actions_that_may_not_be_shared_are_not(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=2").start().await?;
    let client = daemon.client();
    let action = client.action("sleep 1; head -c 9 /dev/urandom | od -An -tx1 > out").output("out");
    for action in [action.clone().do_not_cache(), action.clone().skip_cache_lookup()] {
        let (one, two) = run_twice(action, &client).await?;
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
    let mut stream = client.action("sleep 1; echo done > out").output("out").start().await?;
    let name = wait_for_stage(&mut stream, Stage::Executing).await?;
    drop(stream);
    let other = daemon.client();
    let run = Run::collect(other.clone(), wait_execution(&other, &name).await?).await?;
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
    testkit::eventually("the action runs", || is_running(mark)).await?;
    drop(stream);
    testkit::eventually("the action is stopped", || Ok(!is_running(mark)?)).await?;
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
    testkit::eventually("the action runs", || is_running(mark)).await?;
    cancel(&client, &name).await?;
    let run = Run::collect(client.clone(), stream).await?;
    assert_eq!(run.code(), Code::Cancelled);
    assert!(!is_running(mark)?, "the answer comes when it is dead");
    Ok(())
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
    let mut stream = client.action("sleep 1; echo done").start().await?;
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
        let metadata = execution_metadata(&run)?;
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

async fn missing_inputs_of_any_depth_are_all_listed(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let action = client
        .action("cat here a/b/c/deep top > out")
        .output("out")
        .input("here", "here")
        .input("a/b/c/deep", "deep")
        .input("top", "top");
    action.upload().await?;
    let absent = ["deep", "top"].map(|content| client.digest(content));
    client.delete(&absent).await?;
    let run = action.run_without_upload().await?;
    assert_eq!(run.code(), Code::FailedPrecondition);
    let mut expected = absent.map(|digest| format!("blobs/{digest}"));
    expected.sort();
    assert_eq!(run.missing()?, expected);
    assert!(!run.stages()?.is_empty());
    // What a client does then.
    client.put_all([b"deep".to_vec(), b"top".to_vec()]).await?;
    let run = action.run_without_upload().await?;
    assert_eq!(run.succeeded().await?.file("out").await?, "heredeeptop");
    Ok(())
}

async fn a_missing_action_and_a_missing_command_are_listed(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let action = client.action("true").input("file", "content");
    let (digest, blobs) = action.encode();
    let run = action.run_without_upload().await?;
    assert_eq!(
        (run.code(), run.missing()?),
        (Code::FailedPrecondition, vec![format!("blobs/{digest}")])
    );
    // With the Action alone, both what it names directly is told.
    client.put(blobs[&digest].clone()).await?;
    let run = action.run_without_upload().await?;
    assert_eq!((run.code(), run.missing()?.len()), (Code::FailedPrecondition, 2));
    Ok(())
}

async fn a_missing_directory_is_listed(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let action = client.action("true").input("a/b/file", "content").input("z", "other");
    let (_, blobs) = action.encode();
    action.upload().await?;
    let directory = |name: &str| {
        let mut tree = testkit::Tree::new();
        tree.file(name, "content");
        tree.encode(client.function(), &mut Default::default())
    };
    let (inner, file) = (directory("file"), client.digest("other"));
    assert!(blobs.contains_key(&inner));
    client.delete(&[inner, file]).await?;
    let mut expected = [inner, file].map(|digest| format!("blobs/{digest}"));
    expected.sort();
    let run = action.run_without_upload().await?;
    assert_eq!((run.code(), run.missing()?.as_slice()), (Code::FailedPrecondition, &expected[..]));
    Ok(())
}

async fn missing_inputs_under_blake3_name_their_function(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client().with_function(DigestFunction::Blake3);
    let action = client.action("true").input("file", "content");
    action.upload().await?;
    let digest = client.digest("content");
    client.delete(&[digest]).await?;
    let run = action.run_without_upload().await?;
    assert_eq!(run.missing()?, [format!("blobs/blake3/{digest}")]);
    Ok(())
}

async fn a_timeout_keeps_the_output_so_far(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let mark = mark();
    let script =
        format!("echo out; echo err >&2; echo file > out; (sleep {mark} &) ; sleep {mark}");
    let action = client.action(&script).output("out").timeout(Duration::from_secs(1));
    let run = action.run().await?;
    assert_eq!(run.code(), Code::DeadlineExceeded);
    assert_eq!((run.stdout().await?, run.stderr().await?), ("out\n".into(), "err\n".into()));
    assert!(!run.response.message.is_empty());
    assert!(!is_running(mark)?);
    assert!(!action.run().await?.from_cache());
    Ok(())
}

async fn a_timeout_above_the_maximum_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--max-timeout-ms=60000").start().await?;
    let client = daemon.client();
    let action = client.action("true");
    let run = action.clone().timeout(Duration::from_secs(61)).run().await?;
    assert_eq!(run.code(), Code::InvalidArgument);
    action.timeout(Duration::from_secs(60)).run().await?.succeeded().await?;
    Ok(())
}

async fn the_default_timeout_holds_where_none_is_asked_for(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--default-timeout-ms=500").start().await?;
    let client = daemon.client();
    assert_eq!(endless(&client, mark()).run().await?.code(), Code::DeadlineExceeded);
    Ok(())
}

async fn output_streams_are_inlined_up_to_a_bound(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let print = |bytes: usize| client.action(&format!("head -c {bytes} /dev/zero"));
    for (bytes, inlined) in [(0, true), (1, true), (64 << 10, true), ((64 << 10) + 1, false)] {
        let run = print(bytes).run().await?;
        let result = run.result()?;
        assert_eq!(result.stdout_raw.len(), if inlined { bytes } else { 0 }, "{bytes}");
        assert_eq!(run.stdout().await?.len(), bytes);
        // Empty streams need no digest; all others have one, inlined or not.
        assert_eq!(result.stdout_digest.is_some(), bytes > 0, "{bytes}");
        assert_eq!(run.stderr().await?, "");
    }
    Ok(())
}

async fn output_files_are_inlined_when_asked_for(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let action = client.action("echo one > one; echo two > two").output("one").output("two");
    action.upload().await?;
    for expect_cached in [false, true] {
        let message = proto::ExecuteRequest {
            inline_output_files: vec!["two".to_owned()],
            ..action.request()
        };
        let stream = client.execution().execute(message).await?.into_inner();
        let run = Run::collect(client.clone(), stream).await?;
        assert_eq!(run.from_cache(), expect_cached);
        assert_eq!(run.output_file("one")?.contents, b"");
        assert_eq!(run.output_file("two")?.contents, b"two\n");
    }
    Ok(())
}

async fn endless_output_is_stopped(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--stream-limit-bytes=1m").start().await?;
    let client = daemon.client();
    let run = client.action("cat /dev/zero").run().await?;
    assert_eq!(run.code(), Code::ResourceExhausted);
    let run = client.action("cat /dev/zero >&2").run().await?;
    assert_eq!(run.code(), Code::ResourceExhausted);
    client.action("echo fine").run().await?.succeeded().await?;
    Ok(())
}

async fn blake3_actions_work(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client().with_function(DigestFunction::Blake3);
    let action = client.action("mkdir d; cp in d/f; cp in out; cat in");
    let action = action.input("in", "content").output("out").output("d");
    let run = action.run().await?;
    assert_eq!(run.succeeded().await?.file("out").await?, "content");
    assert_eq!(run.stdout().await?, "content");
    assert_eq!(run.tree("d").await?.root.context("a root")?.files.len(), 1);
    assert!(action.run().await?.from_cache());
    Ok(())
}

async fn blake3_is_found_out_where_it_is_not_said(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client().with_function(DigestFunction::Blake3);
    let action = client.action("cp in out").input("in", "content").output("out");
    let digest = action.upload().await?;
    let unsaid = proto::ExecuteRequest { digest_function: 0, ..action.request() };
    let stream = client.execution().execute(unsaid).await?.into_inner();
    let run = Run::collect(client.clone(), stream).await?;
    assert_eq!(run.succeeded().await?.file("out").await?, "content");
    let unsaid = proto::GetActionResultRequest {
        action_digest: Some(digest.to_proto()),
        ..Default::default()
    };
    client.action_cache().get_action_result(unsaid).await?;
    Ok(())
}

async fn a_command_that_is_not_there_is_named(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    for program in ["/no/such/program", "no-such-program", "./no-such-input", "/etc", "data"] {
        let action = client
            .bare_action([program])
            .property("rootfs", "host")
            .env("PATH", "/usr/bin:/bin")
            .input("data", "this is no program");
        let run = action.run().await?;
        assert_eq!(run.code(), Code::InvalidArgument, "{program}: {}", run.message());
        assert!(run.message().contains(program), "{}", run.message());
    }
    Ok(())
}

async fn actions_under_load_keep_apart(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=4").start().await?;
    let client = daemon.client();
    let runs = (0..60).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            let script = "ls /tmp; cat in > /tmp/file; cat /tmp/file > out";
            let action = client.action(script).input("in", format!("{number}")).output("out");
            let run = action.run().await?;
            anyhow::Ok((run.stdout().await?, run.file("out").await?))
        })
    });
    for (number, run) in runs.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(run.await??, (String::new(), number.to_string()));
    }
    Ok(())
}
