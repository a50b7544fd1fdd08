//! `ExecutionPolicy` and `ResultsCachePolicy`: the priorities that a server announces.

use testkit::{Action, Run, proto};

use crate::check::{Check, Outcome, must, skip};
use crate::server::Server;

pub(crate) const CHECKS: &[Check] = &[
    must!(
        every_announced_execution_priority_runs,
        "ExecuteRequest.execution_policy",
        "An optional policy for execution of the action."
    ),
    must!(
        every_announced_cache_priority_runs,
        "ExecuteRequest.results_cache_policy",
        "An optional policy for the results of this execution in the remote cache."
    ),
];

/// The ends of the ranges, and the default.
fn priorities(
    announced: Option<&proto::PriorityCapabilities>,
    what: &str,
) -> anyhow::Result<Vec<i32>> {
    let Some(announced) = announced else {
        return skip(format!("no {what} priorities are announced"));
    };
    let ends = announced.priorities.iter().flat_map(|it| [it.min_priority, it.max_priority]);
    Ok(ends.chain([0]).collect())
}

async fn run_with(
    server: &Server,
    action: &Action,
    change: impl FnOnce(&mut proto::ExecuteRequest),
) -> Outcome {
    action.upload().await?;
    let mut request = action.request();
    change(&mut request);
    let stream = server.client.execution().execute(request).await?.into_inner();
    Run::collect(server.client.clone(), stream).await?.succeeded().await?;
    Ok(())
}

async fn every_announced_execution_priority_runs(server: Server) -> Outcome {
    let announced = server.execution()?.execution_priority_capabilities.as_ref();
    for priority in priorities(announced, "execution")? {
        let policy = Some(proto::ExecutionPolicy { priority });
        let action = server.action("echo end")?;
        run_with(&server, &action, |request| request.execution_policy = policy).await?;
    }
    Ok(())
}

async fn every_announced_cache_priority_runs(server: Server) -> Outcome {
    let announced = server.cache()?.cache_priority_capabilities.as_ref();
    for priority in priorities(announced, "cache")? {
        let policy = Some(proto::ResultsCachePolicy { priority });
        let action = server.action("echo end")?;
        run_with(&server, &action, |request| request.results_cache_policy = policy).await?;
    }
    Ok(())
}
