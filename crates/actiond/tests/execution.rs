//! `Execution`: what becomes of an action.

mod long_running;

use std::time::Duration;

use anyhow::Context as _;
use long_running::{endless, is_running, mark};
use testkit::proto;
use testkit::{Action, Client, Daemon, DigestFunction, Kit, Outcome, Run};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_output_comes_back_and_is_cached,
    every_timestamp_is_there_and_in_order,
    exit_codes_are_what_the_command_says,
    a_failure_is_not_cached,
    an_action_that_is_not_to_be_cached_is_not,
    a_lookup_can_be_skipped,
    instances_do_not_share_results,
    a_hit_with_a_missing_blob_runs_again,
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
    a_program_that_cannot_be_executed_is_a_failed_action,
    a_command_without_a_program_is_refused,
    actions_under_load_keep_apart,
}

async fn daemon(kit: &Kit) -> anyhow::Result<Daemon> {
    kit.daemon().host_rootfs().start().await
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
    (expected.stdout_raw, expected.stderr_raw) = Default::default();
    assert_eq!(second.result()?, &expected);
    Ok(())
}

async fn every_timestamp_is_there_and_in_order(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--name=the-worker").start().await?;
    let run = daemon.client().action("echo x > out").output("out").run().await?;
    let metadata = run.execution_metadata()?;
    assert_eq!(metadata.worker, "the-worker");
    let auxiliary: Vec<_> =
        metadata.auxiliary_metadata.iter().map(|any| any.type_url.as_str()).collect();
    let expected = [
        "type.googleapis.com/actiond.v1.ResourceUsage",
        "type.googleapis.com/buildbarn.resourceusage.POSIXResourceUsage",
    ];
    assert_eq!(auxiliary, expected);
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
    // The client's next step.
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

/// Runs an action that does not end with longer and longer timeouts, until it had the time to write
/// something.
async fn run_until_it_has_spoken(action: Action) -> anyhow::Result<(Action, Run)> {
    for seconds in [1, 4, 16, 64, 256] {
        let action = action.clone().timeout(Duration::from_secs(seconds));
        let run = action.run().await?;
        assert_eq!(run.code(), Code::DeadlineExceeded);
        if !run.stderr().await?.is_empty() {
            return Ok((action, run));
        }
    }
    anyhow::bail!("the action wrote nothing in minutes")
}

async fn a_timeout_keeps_the_output_so_far(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let mark = mark();
    let script =
        format!("echo out; echo file > out; echo err >&2; (sleep {mark} &) ; sleep {mark}");
    let action = client.action(&script).output("out");
    let (action, run) = run_until_it_has_spoken(action).await?;
    assert_eq!((run.stdout().await?, run.stderr().await?), ("out\n".into(), "err\n".into()));
    assert!(run.message().contains("after its timeout"), "{}", run.message());
    // Clients show both: the message has only what the status does not say.
    assert_eq!(run.response.message, "");
    assert!(!action.run().await?.from_cache());
    assert!(!is_running(&daemon, mark)?);
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
        assert_eq!(run.output_file("one")?.contents, b""[..]);
        assert_eq!(run.output_file("two")?.contents, b"two\n"[..]);
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

/// As under Bazel's linux-sandbox, where it is an action that failed and not a server.
async fn a_program_that_cannot_be_executed_is_a_failed_action(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    let client = daemon.client();
    let loader = "/nowhere/ld-linux.so.2";
    // Inputs that belong to the action's own user are not writable.
    let mode = if daemon.log().contains("in a user namespace of one id") { "0444" } else { "0644" };
    let cases: [(&str, i32, &[&str]); 9] = [
        ("/no/such/program", 127, &["does not exist"]),
        ("no-such-program", 127, &["not found in PATH (`/usr/bin:/bin`)"]),
        ("./no-such-input", 127, &["does not exist"]),
        ("/etc", 126, &["is a directory"]),
        ("./data", 126, &["permission denied", mode]),
        ("./text", 126, &["neither a `#!` line nor a format"]),
        ("./script", 126, &["its interpreter `/nowhere/sh` does not exist"]),
        ("./windows", 126, &["its interpreter `/bin/sh\\r` does not exist", "carriage return"]),
        ("./dynamic", 126, &["dynamically linked", loader, "does not exist"]),
    ];
    for (program, code, reasons) in cases {
        let action = client
            .bare_action([program])
            .with_programs()
            .env("PATH", "/usr/bin:/bin")
            .input("data", "this is no program")
            .executable("text", "this is no program")
            .executable("script", "#!/nowhere/sh -e\n")
            .executable("windows", "#!/bin/sh\r\necho\r\n")
            .executable("dynamic", testkit::elf::dynamic(loader))
            .output("out");
        let run = action.run().await?;
        let stderr = run.stderr().await?;
        assert_eq!((run.code(), run.exit_code()?), (Code::Ok, code), "{program}: {stderr}");
        assert!(stderr.starts_with(&format!("actiond: cannot run `{program}`: ")), "{stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
        for reason in reasons {
            assert!(stderr.contains(reason), "{program}: {stderr}");
        }
        assert_eq!((run.outputs()?, run.stdout().await?), (vec![], String::new()));
        assert_eq!(client.cached(&action.encode().0).await?, None);
        assert!(!action.run().await?.from_cache());
    }
    Ok(())
}

/// Nothing to run, or nothing that could be run anywhere, is a malformed request.
async fn a_command_without_a_program_is_refused(kit: Kit) -> Outcome {
    let daemon = daemon(&kit).await?;
    for arguments in [vec![], vec![""], vec!["a\0b"], vec!["/bin/sh", "a\0b"]] {
        let run = daemon.client().bare_action(arguments.clone()).run().await?;
        assert_eq!(run.code(), Code::InvalidArgument, "{arguments:?}");
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
