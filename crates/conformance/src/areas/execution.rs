//! `Execution`: an action from the request to the answer, and what is cached of it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::join;
use testkit::google::longrunning::{Operation, operation};
use testkit::proto::execution_stage::Value as Stage;
use testkit::run::metadata;
use testkit::{Action, Digest, Run, elf, proto};
use tonic::{Code, Status};

use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{refused, same, same_bytes};
use crate::server::{Server, unique, unique_text};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        an_action_runs,
        "Execution.Execute",
        "The server will run the action and eventually return the result."
    ),
    must!(
        a_program_of_the_inputs_runs,
        "Command.arguments",
        "The first argument specifies the command to run, which may be either an absolute path, a path relative to the working directory, or an unqualified path"
    ),
    must!(a_failed_command_is_no_error, "ActionResult.exit_code", "The exit code of the command."),
    must!(
        every_message_has_the_metadata,
        "Execution.Execute",
        "The `metadata` on the operation is of type"
    ),
    must!(
        the_operation_has_one_name,
        "Operation.name",
        "The server-assigned name, which is only unique within the same service that originally returns it."
    ),
    must!(
        the_error_field_is_never_set,
        "Execution.Execute",
        "The server MUST NOT set the `error` field of the `Operation` proto."
    ),
    must!(
        only_the_last_message_is_done,
        "Operation.done",
        "If `true`, the operation is completed, and either `error` or `response` is available."
    ),
    must!(
        the_last_stage_is_completed,
        "ExecutionStage",
        "If and only if the remote execution system reports that an operation has reached the COMPLETED stage, it MUST set the"
    ),
    must!(
        the_metadata_names_the_action,
        "ExecuteOperationMetadata.action_digest",
        "being executed."
    ),
    should!(
        the_metadata_tells_when_what_happened,
        "ActionResult.execution_metadata",
        "The details of the execution that originally produced this result."
    ),
    should!(
        times_are_in_order,
        "ExecutedActionMetadata.worker_completed_timestamp",
        "When the worker completed the action, including all stages."
    ),
    should!(
        the_worker_has_a_name,
        "ExecutedActionMetadata.worker",
        "The name of the worker which ran the execution."
    ),
    should!(
        the_virtual_duration_covers_the_execution,
        "ExecutedActionMetadata.virtual_execution_duration",
        "the amount of time the worker spent executing the action command"
    ),
    must!(
        streams_are_returned,
        "ActionResult.stdout_digest",
        "The digest for a blob containing the standard output of the action, which can be retrieved from the"
    ),
    must!(
        streams_of_a_failed_command_are_returned,
        "ActionResult.stderr_digest",
        "The digest for a blob containing the standard error of the action, which can be retrieved from the"
    ),
    should!(
        streams_are_sent_where_asked_for,
        "ExecuteRequest.inline_stdout",
        "A hint to the server to request inlining stdout in the"
    ),
    should!(
        outputs_are_sent_where_asked_for,
        "ExecuteRequest.inline_output_files",
        "A hint to the server to inline the contents of the listed output files."
    ),
    must!(
        much_output_does_not_break_the_answer,
        "ActionResult.stdout_raw",
        "MUST do so if inlining would cause the response to exceed message size limits."
    ),
    must!(
        much_output_in_all_does_not_break_the_answer,
        "OutputFile.contents",
        "MUST do so if inlining would cause the response to exceed message size limits."
    ),
    must!(
        a_missing_action_is_told,
        "Execution.Execute",
        "`FAILED_PRECONDITION`: One or more errors occurred in setting up the action requested, such as a missing input or command or no worker being available."
    ),
    should!(
        a_missing_command_is_named,
        "Execution.Execute",
        "In the case of a missing input or command, the server SHOULD additionally send a"
    ),
    should!(
        a_missing_input_root_is_named,
        "Execution.Execute",
        "In the case of a missing input or command, the server SHOULD additionally send a"
    ),
    should!(
        every_missing_input_is_named,
        "Execution.Execute",
        "where, for each requested blob not present in the CAS, there is a `Violation` with a `type` of `MISSING` and a `subject` of"
    ),
    must!(
        an_action_runs_once_its_inputs_are_there,
        "Execution.Execute",
        "The client may be able to fix the errors and retry."
    ),
    must!(
        a_bad_digest_is_refused,
        "Execution.Execute",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    must!(
        an_action_that_is_none_is_refused,
        "Execution.Execute",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    must!(
        a_command_without_arguments_is_refused,
        "Execution.Execute",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    should!(
        an_unknown_property_is_refused,
        "Platform.Property",
        "the server SHOULD reject the execution request."
    ),
    should!(
        properties_of_the_action_come_first,
        "Action.platform",
        "Servers SHOULD prefer those set here."
    ),
    should!(a_result_is_cached, "Action", "Clients SHOULD expect the server to do so."),
    should!(
        a_cached_result_is_in_the_action_cache,
        "ActionCache",
        "The action cache API is used to query whether a given action has already been performed and, if so, retrieve its result."
    ),
    must!(
        another_salt_is_another_action,
        "Action.salt",
        "An optional additional salt value used to place this `Action` into a separate cache namespace from other instances having the same field contents."
    ),
    must!(
        a_cached_result_is_not_used_where_not_wanted,
        "ExecuteRequest.skip_cache_lookup",
        "If true, the action will be executed even if its result is already present in the"
    ),
    should!(
        a_new_result_replaces_the_cached_one,
        "ExecuteRequest.skip_cache_lookup",
        "services SHOULD overwrite any existing entries that may exist."
    ),
    should!(
        a_new_failure_removes_the_cached_result,
        "ExecuteRequest.skip_cache_lookup",
        "This allows skip_cache_lookup requests to be used as a mechanism for replacing action cache entries that reference outputs no longer available or that are poisoned in any way."
    ),
    must!(
        a_failed_command_is_not_cached,
        "ExecuteResponse.cached_result",
        "True if the result was served from cache, false if it was executed."
    ),
    must!(
        an_action_that_may_not_be_cached_runs_again,
        "Action.do_not_cache",
        "If true, then the `Action`'s result cannot be cached, and in-flight requests for the same `Action` may not be merged."
    ),
    must!(
        an_action_that_may_not_be_cached_is_not_in_the_cache,
        "Action.do_not_cache",
        "If true, then the `Action`'s result cannot be cached"
    ),
    must!(
        a_clients_result_of_an_action_that_may_not_be_cached_is_not_served,
        "Action.do_not_cache",
        "If true, then the `Action`'s result cannot be cached"
    ),
    must!(
        actions_that_may_not_be_merged_are_not,
        "Action.do_not_cache",
        "in-flight requests for the same `Action` may not be merged."
    ),
    should!(
        a_cached_result_with_lost_blobs_runs_again,
        "ActionCache.GetActionResult",
        "Implementations SHOULD ensure that any blobs referenced from the"
    ),
    should!(
        the_digest_function_is_inferred_for_actions,
        "ExecuteRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the action digest hash and the digest functions announced in the server's capabilities."
    ),
    must!(
        every_announced_digest_function_executes,
        "ExecutionCapabilities.digest_functions",
        "All the digest functions supported by the remote execution system."
    ),
    must!(
        results_use_the_digest_function_of_the_action,
        "ExecutionCapabilities.digest_functions",
        "The CAS objects referenced by action results generated by the remote execution system MUST use the same digest function as the one used to construct the action."
    ),
    must!(
        an_operation_is_waited_for,
        "Execution.WaitExecution",
        "The server will leave the request stream open until the operation completes, and then respond with the completed operation."
    ),
    must!(
        waiting_answers_at_once,
        "Execution.WaitExecution",
        "When the client initially makes the request, the server immediately responds with the current status of the execution."
    ),
    must!(
        an_unknown_operation_is_not_waited_for,
        "Execution.WaitExecution",
        "`NOT_FOUND`: The operation no longer exists due to any of a transient condition, an unknown operation name"
    ),
    must!(
        one_client_that_leaves_does_not_end_the_others_action,
        "Execution.Execute",
        "If the client remains connected after the first response is returned after the server, then updates are streamed as if the client had called"
    ),
];

fn output(run: &Run) -> anyhow::Result<proto::Digest> {
    let file = run.result()?.output_files.first();
    file.and_then(|file| file.digest.clone()).context("no output file")
}

/// The script's output differs each time that it runs.
const RANDOM: &str = "cat /proc/sys/kernel/random/uuid > out";

/// A script that runs until it is ended.
const ENDLESS: &str = "while :; do sleep 0.1; done";

/// An action that can be seen to run again.
pub(super) fn random(server: &Server) -> anyhow::Result<Action> {
    Ok(server.action(RANDOM)?.output("out"))
}

pub(super) async fn is_cached(server: &Server, action: &Action) -> anyhow::Result<bool> {
    Ok(server.client.cached(&action.encode().0).await?.is_some())
}

/// Runs `action` with a changed request.
async fn run_with(
    server: &Server,
    action: &Action,
    change: impl FnOnce(&mut proto::ExecuteRequest),
) -> anyhow::Result<Run> {
    action.upload().await?;
    let mut request = action.request();
    change(&mut request);
    // As a client that was not told to take larger messages.
    let mut execution = proto::execution_client::ExecutionClient::new(server.client.channel());
    let stream = execution.execute(request).await?.into_inner();
    Run::collect(server.client.clone(), stream).await
}

async fn an_action_runs(server: Server) -> Outcome {
    server.action("exit 0")?.run().await?.succeeded().await?;
    Ok(())
}

async fn a_program_of_the_inputs_runs(server: Server) -> Outcome {
    server.action("exit 0")?;
    let action = server.command(["dir/program"]).executable("dir/program", elf::exit_with(42));
    let run = action.run().await?;
    if run.code() != Code::Ok && run.message().contains("xec format") {
        return skip(format!("the worker is another machine: {}", run.message()));
    }
    same("the exit code", run.exit_code()?, 42)
}

async fn a_failed_command_is_no_error(server: Server) -> Outcome {
    let run = server.action("exit 3")?.run().await?;
    same("the status", run.code(), Code::Ok)?;
    same("the exit code", run.exit_code()?, 3)
}

async fn every_message_has_the_metadata(server: Server) -> Outcome {
    let run = server.action("exit 0")?.run().await?;
    for operation in &run.operations {
        metadata(operation)?;
    }
    Ok(())
}

async fn the_operation_has_one_name(server: Server) -> Outcome {
    let run = server.action("exit 0")?.run().await?;
    ensure!(!run.name().is_empty(), "the operation has no name");
    for operation in &run.operations {
        same("the name", operation.name.as_str(), run.name())?;
    }
    let other = server.action("exit 0")?.run().await?;
    ensure!(other.name() != run.name(), "two operations have the name {}", run.name());
    Ok(())
}

async fn the_error_field_is_never_set(server: Server) -> Outcome {
    let failed = server.action("exit 1")?.run().await?;
    let timed_out = server.action(ENDLESS)?.timeout(Duration::from_millis(500)).run().await?;
    let missing = server.action("exit 0")?.input_root(server.client.digest(unique("absent")));
    let missing = missing.run().await;
    let runs = [Some(&failed), Some(&timed_out), missing.as_ref().ok()];
    for operation in runs.into_iter().flatten().flat_map(|run| &run.operations) {
        let error = matches!(operation.result, Some(operation::Result::Error(_)));
        ensure!(!error, "{operation:?}");
    }
    Ok(())
}

async fn only_the_last_message_is_done(server: Server) -> Outcome {
    let run = server.action("exit 0")?.run().await?;
    let done: Vec<_> = run.operations.iter().map(|operation| operation.done).collect();
    let (last, before) = done.split_last().context("no message")?;
    ensure!(*last && !before.contains(&true), "done is {done:?}");
    Ok(())
}

async fn the_last_stage_is_completed(server: Server) -> Outcome {
    let run = server.action("exit 0")?.run().await?;
    for operation in &run.operations {
        let completed = metadata(operation)?.stage == i32::from(Stage::Completed);
        same("done at that stage", operation.done, completed)?;
    }
    Ok(())
}

async fn the_metadata_names_the_action(server: Server) -> Outcome {
    let action = server.action("exit 0")?;
    let digest = action.encode().0.to_proto();
    for operation in &action.run().await?.operations {
        same("the digest", metadata(operation)?.action_digest, Some(digest.clone()))?;
    }
    Ok(())
}

async fn the_metadata_tells_when_what_happened(server: Server) -> Outcome {
    let run = server.action("exit 0")?.run().await?;
    let metadata = run.execution_metadata()?;
    for (name, time) in [
        ("queued_timestamp", metadata.queued_timestamp),
        ("worker_start_timestamp", metadata.worker_start_timestamp),
        ("worker_completed_timestamp", metadata.worker_completed_timestamp),
        ("execution_start_timestamp", metadata.execution_start_timestamp),
        ("execution_completed_timestamp", metadata.execution_completed_timestamp),
    ] {
        ensure!(time.is_some(), "{name} is not set");
    }
    Ok(())
}

async fn times_are_in_order(server: Server) -> Outcome {
    let run = server.action("exit 0")?.output("out").run().await?;
    let metadata = run.execution_metadata()?;
    let times = [
        metadata.queued_timestamp,
        metadata.worker_start_timestamp,
        metadata.input_fetch_start_timestamp,
        metadata.input_fetch_completed_timestamp,
        metadata.execution_start_timestamp,
        metadata.execution_completed_timestamp,
        metadata.output_upload_start_timestamp,
        metadata.output_upload_completed_timestamp,
        metadata.worker_completed_timestamp,
    ];
    let times: Vec<_> = times.iter().flatten().map(|it| (it.seconds, it.nanos)).collect();
    ensure!(times.is_sorted(), "{metadata:?}");
    Ok(())
}

async fn the_worker_has_a_name(server: Server) -> Outcome {
    let run = server.action("exit 0")?.run().await?;
    ensure!(!run.execution_metadata()?.worker.is_empty(), "it has none");
    Ok(())
}

async fn the_virtual_duration_covers_the_execution(server: Server) -> Outcome {
    let run = server.action("sleep 1")?.run().await?;
    let duration = run.execution_metadata()?.virtual_execution_duration;
    let duration = duration.context("virtual_execution_duration is not set")?;
    // A worker's clock may be another one, but not one that a second does not show on.
    let nanos = duration.seconds * 1_000_000_000 + i64::from(duration.nanos);
    ensure!(nanos > 900_000_000, "{duration:?} for a second");
    Ok(())
}

async fn streams_are_returned(server: Server) -> Outcome {
    let run = server.action("echo out; echo err >&2")?.run().await?;
    same("stdout", run.stdout().await?, "out\n".to_owned())?;
    same("stderr", run.stderr().await?, "err\n".to_owned())
}

async fn streams_of_a_failed_command_are_returned(server: Server) -> Outcome {
    let run = server.action("echo out; echo err >&2; exit 9")?.run().await?;
    same("stdout", run.stdout().await?, "out\n".to_owned())?;
    same("stderr", run.stderr().await?, "err\n".to_owned())
}

async fn streams_are_sent_where_asked_for(server: Server) -> Outcome {
    let action = server.action("echo out; echo err >&2")?;
    let run = run_with(&server, &action, |request| {
        request.inline_stdout = true;
        request.inline_stderr = true;
    });
    let run = run.await?;
    same_bytes("stdout_raw", &run.result()?.stdout_raw, b"out\n")?;
    same_bytes("stderr_raw", &run.result()?.stderr_raw, b"err\n")
}

async fn outputs_are_sent_where_asked_for(server: Server) -> Outcome {
    let action = server.action("echo one > out; echo two > other")?.output("other").output("out");
    let wanted = vec!["out".to_owned()];
    let run = run_with(&server, &action, |request| request.inline_output_files = wanted).await?;
    same_bytes("contents", &run.output_file("out")?.contents, b"one\n")?;
    same_bytes("contents not asked for", &run.output_file("other")?.contents, b"")
}

async fn much_output_does_not_break_the_answer(server: Server) -> Outcome {
    let action = server.action("head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2")?;
    let run = run_with(&server, &action, |request| {
        request.inline_stdout = true;
        request.inline_stderr = true;
    });
    let run = run.await?;
    run.result()?;
    ensure!(run.exit_code()? == 0, "exit code {}", run.exit_code()?);
    Ok(())
}

async fn much_output_in_all_does_not_break_the_answer(server: Server) -> Outcome {
    let script = "for i in 1 2 3 4 5 6; do head -c 900000 /dev/urandom > out$i; done";
    let names: Vec<_> = (1..=6).map(|number| format!("out{number}")).collect();
    let action = names.iter().fold(server.action(script)?, |action, name| action.output(name));
    let wanted = names.clone();
    let run = run_with(&server, &action, |request| request.inline_output_files = wanted).await?;
    same("output files", run.result()?.output_files.len(), 6)
}

/// The code that an Execute ends with, be it of the call or of the response.
pub(super) async fn code_of(action: &Action) -> anyhow::Result<Code> {
    match action.run_without_upload().await {
        Ok(run) => Ok(run.code()),
        Err(error) => match error.downcast::<Status>() {
            Ok(status) => Ok(status.code()),
            Err(error) => Err(error),
        },
    }
}

async fn a_missing_action_is_told(server: Server) -> Outcome {
    let code = code_of(&server.action("exit 0")?).await?;
    let good = [Code::FailedPrecondition, Code::NotFound, Code::InvalidArgument];
    ensure!(good.contains(&code), "{code:?} in place of {good:?}");
    Ok(())
}

/// What is named as missing of an action of which some blobs are not stored.
async fn missing_of(server: &Server, action: &Action, absent: &[Digest]) -> Outcome {
    let (_, mut blobs) = action.encode();
    for digest in absent {
        blobs.remove(digest);
    }
    server.client.put_all(blobs.into_values()).await?;
    let run = action.run_without_upload().await;
    let mut named = match run {
        Ok(run) => {
            same("the status", run.code(), Code::FailedPrecondition)?;
            run.missing()?
        }
        Err(error) => {
            let status = error.downcast::<Status>()?;
            let status = refused::<()>(Err(status), &[Code::FailedPrecondition])?;
            missing_subjects(status.details())?
        }
    };
    let mut expected: Vec<_> = absent.iter().map(|it| server.client.download_name(it)).collect();
    let instance = server.client.instance();
    for name in &mut expected {
        if let Some(rest) = name.strip_prefix(&format!("{instance}/")) {
            *name = rest.to_owned();
        }
    }
    named.sort();
    expected.sort();
    same("the subjects", named, expected)
}

/// The subjects in a status' details.
fn missing_subjects(details: &[u8]) -> anyhow::Result<Vec<String>> {
    use prost::Message as _;
    use testkit::google::rpc::{self, PreconditionFailure};
    let mut subjects = Vec::new();
    for any in rpc::Status::decode(details)?.details {
        if any.type_url.ends_with("google.rpc.PreconditionFailure") {
            let failure = PreconditionFailure::decode(any.value.as_slice())?;
            for violation in failure.violations {
                same("the type", violation.r#type.as_str(), "MISSING")?;
                subjects.push(violation.subject);
            }
        }
    }
    Ok(subjects)
}

async fn a_missing_command_is_named(server: Server) -> Outcome {
    use prost::Message as _;
    let action = server.action(&format!("echo {}", unique_text("unlike").trim()))?;
    let (digest, blobs) = action.encode();
    let message = proto::Action::decode(blobs[&digest].as_slice())?;
    let function = server.client.function();
    let command = Digest::from_proto_field(message.command_digest.as_ref(), function)?;
    missing_of(&server, &action, &[command]).await
}

async fn a_missing_input_root_is_named(server: Server) -> Outcome {
    let root = server.client.digest(unique("absent"));
    missing_of(&server, &server.action("exit 0")?.input_root(root), &[root]).await
}

async fn every_missing_input_is_named(server: Server) -> Outcome {
    let (one, two, stored) = (unique("1"), unique("2"), unique("stored"));
    let absent = [server.client.digest(&one), server.client.digest(&two)];
    let action = server.action("exit 0")?;
    let action = action.input("a/one", one).input("b/c/two", two).input("stored", stored);
    missing_of(&server, &action, &absent).await
}

async fn an_action_runs_once_its_inputs_are_there(server: Server) -> Outcome {
    let content = unique("late");
    let digest = server.client.digest(&content);
    let action = server.action("cat in > out")?.input("in", content.clone()).output("out");
    missing_of(&server, &action, &[digest]).await?;
    let run = action.run().await?;
    run.succeeded().await?;
    same_bytes("out", run.file("out").await?.as_bytes(), &content)
}

async fn a_bad_digest_is_refused(server: Server) -> Outcome {
    server.execution()?;
    let digest = proto::Digest { hash: "no hash".to_owned(), size_bytes: 3 };
    let request = proto::ExecuteRequest {
        instance_name: server.client.instance().to_owned(),
        action_digest: Some(digest),
        ..Default::default()
    };
    refused(server.client.execution().execute(request).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn an_action_that_is_none_is_refused(server: Server) -> Outcome {
    server.execution()?;
    let digest = server.client.put([&[0xff; 20][..], &unique("no action")].concat()).await?;
    let request = proto::ExecuteRequest {
        action_digest: Some(digest.to_proto()),
        ..server.command(["/bin/true"]).request()
    };
    let answer = server.client.execution().execute(request).await;
    let code = match answer {
        Err(status) => status.code(),
        Ok(stream) => Run::collect(server.client.clone(), stream.into_inner()).await?.code(),
    };
    same("the code", code, Code::InvalidArgument)
}

async fn a_command_without_arguments_is_refused(server: Server) -> Outcome {
    let action = server.action("exit 0")?.change_command(|command| command.arguments.clear());
    action.upload().await?;
    same("the code", code_of(&action).await?, Code::InvalidArgument)
}

async fn an_unknown_property_is_refused(server: Server) -> Outcome {
    let action = server.action("exit 0")?.property("actiond-conformance-unknown", "x");
    action.upload().await?;
    let code = code_of(&action).await?;
    let good = [Code::InvalidArgument, Code::FailedPrecondition];
    ensure!(good.contains(&code), "{code:?} in place of {good:?}");
    Ok(())
}

/// The Command's platform asks for what no worker has; the Action's is what works.
#[expect(deprecated, reason = "older clients send the platform with the Command")]
async fn properties_of_the_action_come_first(server: Server) -> Outcome {
    use prost::Message as _;
    let mut action = server.action("exit 0")?;
    let (digest, blobs) = action.encode();
    let platform = proto::Action::decode(blobs[&digest].as_slice())?.platform;
    if platform.as_ref().is_none_or(|platform| platform.properties.is_empty()) {
        return skip("no property is needed here: see --platform");
    }
    let is_shell =
        |command: &proto::Command| command.arguments.first().is_some_and(|it| it == "/bin/sh");
    let mut commands = blobs.values().filter_map(|it| proto::Command::decode(it.as_slice()).ok());
    let mut command = commands.find(is_shell).context("the command")?;
    let other = proto::platform::Property {
        name: "OSFamily".to_owned(),
        value: "actiond-conformance".to_owned(),
    };
    command.platform = Some(proto::Platform { properties: vec![other] });
    let command = server.client.put(command.encode_to_vec()).await?;
    action.upload().await?;
    let mut message = proto::Action::decode(blobs[&digest].as_slice())?;
    message.command_digest = Some(command.to_proto());
    let digest = server.client.put(message.encode_to_vec()).await?;
    action = action.skip_cache_lookup();
    let request =
        proto::ExecuteRequest { action_digest: Some(digest.to_proto()), ..action.request() };
    let stream = server.client.execution().execute(request).await?.into_inner();
    Run::collect(server.client.clone(), stream).await?.succeeded().await?;
    Ok(())
}

async fn a_result_is_cached(server: Server) -> Outcome {
    let action = random(&server)?;
    let first = action.run().await?;
    same("cached_result at first", first.from_cache(), false)?;
    let second = action.run().await?;
    same("cached_result", second.from_cache(), true)?;
    same("the output", output(&second)?, output(&first)?)
}

async fn a_cached_result_is_in_the_action_cache(server: Server) -> Outcome {
    let action = random(&server)?;
    let run = action.run().await?;
    let cached = server.client.cached(&action.encode().0).await?;
    let cached = cached.context("the action cache does not have it")?;
    same("output_files", cached.output_files, run.result()?.output_files.clone())
}

async fn another_salt_is_another_action(server: Server) -> Outcome {
    let action = random(&server)?;
    action.run().await?;
    let other = action.salt(&unique_text("another")).run().await?;
    same("cached_result", other.from_cache(), false)
}

async fn a_cached_result_is_not_used_where_not_wanted(server: Server) -> Outcome {
    let action = random(&server)?;
    let first = action.run().await?;
    let second = action.skip_cache_lookup().run().await?;
    same("cached_result", second.from_cache(), false)?;
    ensure!(output(&first)? != output(&second)?, "it did not run again");
    Ok(())
}

async fn a_new_result_replaces_the_cached_one(server: Server) -> Outcome {
    let action = random(&server)?;
    action.run().await?;
    let second = action.clone().skip_cache_lookup().run().await?;
    let third = action.run().await?;
    same("the output", output(&third)?, output(&second)?)
}

/// A result that a client kept says success, and the command fails.
async fn a_new_failure_removes_the_cached_result(server: Server) -> Outcome {
    server.updates_results()?;
    let action = server.action("exit 1")?;
    keep_success(&server, &action).await?;
    ensure!(is_cached(&server, &action).await?, "the client's result is not kept");
    let run = action.clone().skip_cache_lookup().run().await?;
    same("the exit code", run.exit_code()?, 1)?;
    ensure!(!is_cached(&server, &action).await?, "the older success is still served");
    same("cached_result", action.run().await?.from_cache(), false)
}

async fn keep_success(server: &Server, action: &Action) -> anyhow::Result<()> {
    let digest = action.upload().await?;
    let metadata = proto::ExecutedActionMetadata {
        worker: "actiond-conformance".to_owned(),
        ..Default::default()
    };
    let request = proto::UpdateActionResultRequest {
        instance_name: server.client.instance().to_owned(),
        action_digest: Some(digest.to_proto()),
        action_result: Some(proto::ActionResult {
            execution_metadata: Some(metadata),
            ..Default::default()
        }),
        digest_function: server.client.function().to_proto(),
        ..Default::default()
    };
    match server.client.action_cache().update_action_result(request).await {
        Ok(_) => Ok(()),
        Err(status) => {
            refused::<()>(Err(status), &[Code::FailedPrecondition, Code::InvalidArgument])?;
            Ok(())
        }
    }
}

async fn a_failed_command_is_not_cached(server: Server) -> Outcome {
    let action = server.action("exit 1")?;
    action.run().await?;
    let second = action.run().await?;
    same("cached_result", second.from_cache(), false)?;
    ensure!(!is_cached(&server, &action).await?, "the action cache has it");
    Ok(())
}

async fn an_action_that_may_not_be_cached_runs_again(server: Server) -> Outcome {
    let action = random(&server)?.do_not_cache();
    let first = action.run().await?;
    let second = action.run().await?;
    same("cached_result", second.from_cache(), false)?;
    ensure!(output(&first)? != output(&second)?, "it did not run again");
    Ok(())
}

async fn an_action_that_may_not_be_cached_is_not_in_the_cache(server: Server) -> Outcome {
    let action = random(&server)?.do_not_cache();
    action.run().await?;
    ensure!(!is_cached(&server, &action).await?, "the action cache has it");
    Ok(())
}

async fn a_clients_result_of_an_action_that_may_not_be_cached_is_not_served(
    server: Server,
) -> Outcome {
    server.updates_results()?;
    let action = server.action("exit 5")?.do_not_cache();
    keep_success(&server, &action).await?;
    let run = action.run().await?;
    same("cached_result", run.from_cache(), false)?;
    same("the exit code", run.exit_code()?, 5)
}

async fn actions_that_may_not_be_merged_are_not(server: Server) -> Outcome {
    let action = server.action(&format!("sleep 0.3; {RANDOM}"))?.output("out").do_not_cache();
    action.upload().await?;
    let (one, other) = join(action.run_without_upload(), action.run_without_upload()).await;
    ensure!(output(&one?)? != output(&other?)?, "both have the output of one run");
    Ok(())
}

/// The result names a file that no server has, so it is as if the blob were gone.
async fn a_cached_result_with_lost_blobs_runs_again(server: Server) -> Outcome {
    server.updates_results()?;
    let action = random(&server)?;
    let digest = action.upload().await?;
    let file = proto::OutputFile {
        path: "out".to_owned(),
        digest: Some(server.client.digest(unique("lost")).to_proto()),
        ..Default::default()
    };
    let request = proto::UpdateActionResultRequest {
        instance_name: server.client.instance().to_owned(),
        action_digest: Some(digest.to_proto()),
        action_result: Some(proto::ActionResult { output_files: vec![file], ..Default::default() }),
        digest_function: server.client.function().to_proto(),
        ..Default::default()
    };
    if let Err(status) = server.client.action_cache().update_action_result(request).await {
        refused::<()>(Err(status), &[Code::FailedPrecondition, Code::InvalidArgument])?;
    }
    let run = action.run().await?;
    same("cached_result", run.from_cache(), false)?;
    run.file("out").await?;
    Ok(())
}

async fn the_digest_function_is_inferred_for_actions(server: Server) -> Outcome {
    server.infers()?;
    let action = server.action("exit 0")?;
    let run = run_with(&server, &action, |request| request.digest_function = 0).await?;
    run.succeeded().await?;
    Ok(())
}

async fn every_announced_digest_function_executes(server: Server) -> Outcome {
    for function in server.execution_functions()? {
        let server = server.with_function(function);
        let action = server.action("cat in > out")?.input("in", unique("in")).output("out");
        action.run().await.with_context(|| function.to_string())?.succeeded().await?;
    }
    Ok(())
}

async fn results_use_the_digest_function_of_the_action(server: Server) -> Outcome {
    for function in server.execution_functions()? {
        let server = server.with_function(function);
        let content = unique("in");
        let action = server.action("cat in | tee out")?.input("in", content.clone()).output("out");
        let run = action.run().await?;
        let digest = Some(server.client.digest(&content).to_proto());
        same("the digest of out", run.output_file("out")?.digest.clone(), digest.clone())?;
        same("stdout_digest", run.result()?.stdout_digest.clone(), digest)?;
    }
    Ok(())
}

/// Starts an action, and returns its stream after the first message, with the name.
async fn started(action: &Action) -> anyhow::Result<(tonic::Streaming<Operation>, String)> {
    let mut stream = action.start().await?;
    let first = stream.message().await?.context("the stream is empty")?;
    Ok((stream, first.name))
}

async fn wait(server: &Server, name: &str) -> Result<tonic::Streaming<Operation>, Status> {
    let request = proto::WaitExecutionRequest { name: name.to_owned() };
    Ok(server.client.execution().wait_execution(request).await?.into_inner())
}

async fn an_operation_is_waited_for(server: Server) -> Outcome {
    let action = server.action("sleep 1; echo end > out")?.output("out");
    let (stream, name) = started(&action).await?;
    let waiting = wait(&server, &name).await?;
    drop(stream);
    let run = Run::collect(server.client.clone(), waiting).await?;
    same("the name", run.name(), name.as_str())?;
    run.succeeded().await?;
    run.output_file("out")?;
    Ok(())
}

async fn waiting_answers_at_once(server: Server) -> Outcome {
    // On a busy machine a short action may be over before its client waits.
    for seconds in [1, 4, 16, 64] {
        let (mut stream, name) = started(&server.action(&format!("sleep {seconds}"))?).await?;
        let mut waiting = wait(&server, &name).await?;
        let first = waiting.message().await?.context("the stream is empty")?;
        while stream.message().await?.is_some() {}
        if !first.done {
            return Ok(());
        }
    }
    anyhow::bail!("the first message came with the end of the action")
}

async fn an_unknown_operation_is_not_waited_for(server: Server) -> Outcome {
    server.execution()?;
    let answer = match wait(&server, "operations/actiond-conformance-unknown").await {
        // The status may come with the stream's first message.
        Ok(mut stream) => stream.message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    refused(answer, &[Code::NotFound])?;
    Ok(())
}

async fn one_client_that_leaves_does_not_end_the_others_action(server: Server) -> Outcome {
    let action = server.action("sleep 1; echo end > out")?.output("out");
    let (one, _) = started(&action).await?;
    let (other, name) = started(&action).await?;
    drop(one);
    let mut last = None;
    let mut other = other;
    while let Some(operation) = other.message().await? {
        same("the name", operation.name.as_str(), name.as_str())?;
        last = Some(operation);
    }
    let last = last.context("the stream ended")?;
    ensure!(last.done, "the stream ended before the action");
    let waited = wait(&server, &name).await?;
    Run::collect(server.client.clone(), waited).await?.succeeded().await?;
    Ok(())
}
