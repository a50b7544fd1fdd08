//! Clients that wait for an action, and clients that leave.

use anyhow::{Context as _, ensure};
use testkit::google::longrunning::Operation;
use testkit::{Action, Run, proto};
use tonic::{Code, Status};

use crate::check::{Check, Outcome, must};
use crate::expect::{refused, same};
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
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
