//! `Action.timeout`, and the time that an action is said to have taken.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::{Action, Run};
use tonic::Code;

use super::execution::{code_of, is_cached, random};
use crate::check::{Check, Outcome, must, should};
use crate::expect::same;
use crate::server::Server;

pub(crate) const CHECKS: &[Check] = &[
    must!(
        a_timeout_ends_the_command,
        "ExecuteResponse.status",
        "For example, if the operation times out during execution, the status will have a `DEADLINE_EXCEEDED` code."
    ),
    should!(
        a_timeout_keeps_what_was_written,
        "ExecuteResponse.status",
        "the server may populate the output-, stdout-, and stderr-related fields if it has any information available, such as the stdout and stderr of a timed-out action."
    ),
    must!(
        a_timed_out_action_is_not_cached,
        "ExecuteResponse.status",
        "If the status code is other than `OK`, then the result MUST NOT be cached."
    ),
    should!(
        a_timeout_is_part_of_the_action,
        "Action.timeout",
        "therefore two `Actions` with different timeouts are different, even if they are otherwise identical."
    ),
    must!(
        a_negative_timeout_does_not_run,
        "Action.timeout",
        "A timeout after which the execution should be killed."
    ),
    must!(
        the_duration_is_consistent_with_the_timeout,
        "ExecutedActionMetadata.virtual_execution_duration",
        "The method of timekeeping used to compute the virtual execution duration MUST be consistent with what is used to enforce the"
    ),
];

/// A script that runs until it is ended.
const ENDLESS: &str = "while :; do sleep 0.1; done";

fn endless(server: &Server) -> anyhow::Result<Action> {
    let action = server.action(&format!("echo begun; {ENDLESS}"))?;
    Ok(action.timeout(Duration::from_secs(1)))
}

async fn a_timeout_ends_the_command(server: Server) -> Outcome {
    same("the status", endless(&server)?.run().await?.code(), Code::DeadlineExceeded)
}

async fn a_timeout_keeps_what_was_written(server: Server) -> Outcome {
    let run = endless(&server)?.run().await?;
    same("stdout", run.stdout().await?, "begun\n".to_owned())
}

async fn a_timed_out_action_is_not_cached(server: Server) -> Outcome {
    let action = endless(&server)?;
    action.run().await?;
    ensure!(!is_cached(&server, &action).await?, "the action cache has it");
    Ok(())
}

async fn a_timeout_is_part_of_the_action(server: Server) -> Outcome {
    let action = random(&server)?;
    action.clone().timeout(Duration::from_secs(50)).run().await?;
    let other = action.timeout(Duration::from_secs(51)).run().await?;
    same("cached_result", other.from_cache(), false)
}

async fn a_negative_timeout_does_not_run(server: Server) -> Outcome {
    let negative = testkit::google::protobuf::Duration { seconds: -5, nanos: 0 };
    let action = server.action("exit 0")?.change_action(|it| it.timeout = Some(negative));
    action.upload().await?;
    let code = code_of(&action).await?;
    let good = [Code::InvalidArgument, Code::FailedPrecondition, Code::DeadlineExceeded];
    ensure!(good.contains(&code), "{code:?} in place of {good:?}");
    Ok(())
}

fn duration(run: &Run) -> anyhow::Result<Duration> {
    let duration = run.execution_metadata()?.virtual_execution_duration;
    let duration = duration.context("virtual_execution_duration is not set")?;
    Ok(Duration::new(u64::try_from(duration.seconds)?, u32::try_from(duration.nanos)?))
}

async fn the_duration_is_consistent_with_the_timeout(server: Server) -> Outcome {
    let second = Duration::from_secs(1);
    let over = endless(&server)?.run().await?;
    ensure!(duration(&over)? >= second, "ended after {:?} of a second", duration(&over)?);
    // One that ends near its timeout is one or the other.
    for script in ["sleep 0.9", "sleep 1", "sleep 1.05"] {
        let run = server.action(script)?.timeout(second).run().await?;
        match run.code() {
            Code::DeadlineExceeded => {
                ensure!(duration(&run)? >= second, "{script}: ended after {:?}", duration(&run)?);
            }
            Code::Ok => {
                ensure!(duration(&run)? <= second, "{script}: ran for {:?}", duration(&run)?);
            }
            code => ensure!(false, "{script}: {code:?} {}", run.message()),
        }
    }
    Ok(())
}
