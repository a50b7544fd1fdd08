//! The results that are cached, and those that are not.

use anyhow::{Context as _, ensure};
use futures_util::future::join;
use testkit::{Action, Run, proto};
use tonic::Code;

use crate::check::{Check, Outcome, must, should};
use crate::expect::{refused, same};
use crate::server::{Server, unique, unique_text};

pub(super) const CHECKS: &[Check] = &[
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
];

fn output(run: &Run) -> anyhow::Result<proto::Digest> {
    let file = run.result()?.output_files.first();
    file.and_then(|file| file.digest.clone()).context("no output file")
}

/// The script's output differs each time that it runs.
const RANDOM: &str = "cat /proc/sys/kernel/random/uuid > out";

/// An action that can be seen to run again.
pub(crate) fn random(server: &Server) -> anyhow::Result<Action> {
    Ok(server.action(RANDOM)?.output("out"))
}

pub(crate) async fn is_cached(server: &Server, action: &Action) -> anyhow::Result<bool> {
    Ok(server.client.cached(&action.encode().0).await?.is_some())
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
