//! `google.longrunning.Operations`: looking, listing, waiting, cancelling, deleting.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, Operation, WaitOperationRequest, operation,
};
use testkit::google::protobuf;
use testkit::proto::execution_stage::Value as Stage;
use testkit::run::metadata;
use testkit::{Action, Run, proto};
use tonic::{Code, Status, Streaming};

use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{refused, same};
use crate::server::{DEFAULT_MESSAGE_BYTES, Server};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        a_running_operation_is_seen,
        "Operations.GetOperation",
        "Gets the latest state of a long-running operation."
    ),
    must!(
        a_finished_operation_is_seen,
        "Execution.Execute",
        "The operation can also be queried using"
    ),
    must!(
        an_unknown_operation_is_not_found,
        "Operations.GetOperation",
        "Gets the latest state of a long-running operation."
    ),
    must!(
        waiting_ends_with_the_operation,
        "Operations.WaitOperation",
        "Waits until the specified long-running operation is done or reaches at most a specified timeout, returning the latest state."
    ),
    must!(
        waiting_ends_with_its_timeout,
        "WaitOperationRequest.timeout",
        "The maximum duration to wait before timing out."
    ),
    must!(
        waiting_for_a_finished_operation_ends_at_once,
        "Operations.WaitOperation",
        "If the operation is already done, the latest state is immediately returned."
    ),
    must!(
        an_unknown_operation_is_not_waited_for,
        "Operations.WaitOperation",
        "Waits until the specified long-running operation is done or reaches at most a specified timeout, returning the latest state."
    ),
    must!(
        a_cancelled_operation_ends,
        "Operations.CancelOperation",
        "Starts asynchronous cancellation on a long-running operation."
    ),
    must!(
        a_cancelled_action_is_not_cached,
        "ExecuteResponse.status",
        "If the status code is other than `OK`, then the result MUST NOT be cached."
    ),
    must!(
        an_unknown_operation_is_not_cancelled,
        "CancelOperationRequest.name",
        "The name of the operation resource to be cancelled."
    ),
    should!(
        a_finished_operation_stays_as_it_is_when_cancelled,
        "Operations.CancelOperation",
        "other methods to check whether the cancellation succeeded or whether the operation completed despite cancellation."
    ),
    should!(
        one_client_that_cancels_does_not_end_the_others_action,
        "Execution.Execute",
        "`CANCELLED`: The operation was cancelled by the client. This status is only possible if the server implements the Operations API CancelOperation method, and it was called for the current execution."
    ),
    must!(
        cancelled_comes_only_of_cancelling,
        "Execution.Execute",
        "`CANCELLED`: The operation was cancelled by the client. This status is only possible if the server implements the Operations API CancelOperation method, and it was called for the current execution."
    ),
    must!(
        a_running_operation_is_listed,
        "Operations.ListOperations",
        "Lists operations that match the specified filter in the request."
    ),
    must!(
        a_list_keeps_to_its_page_size,
        "ListOperationsRequest.page_size",
        "The standard list page size."
    ),
    must!(
        pages_of_a_list_have_every_operation_once,
        "ListOperationsRequest.page_token",
        "The standard list page token."
    ),
    must!(a_list_is_filtered, "ListOperationsRequest.filter", "The standard list filter."),
    must!(
        a_filter_that_is_none_is_refused,
        "ListOperationsRequest.filter",
        "The standard list filter."
    ),
    must!(
        a_list_of_another_parent_is_empty,
        "ListOperationsRequest.name",
        "The name of the operation's parent resource."
    ),
    must!(
        a_list_of_large_results_fits_default_clients,
        "ListOperationsResponse.operations",
        "A list of operations that matches the specified filter in the request."
    ),
    must!(
        partial_success_is_not_supported,
        "ListOperationsRequest.return_partial_success",
        "This field is not by default supported and will result in an `UNIMPLEMENTED` error if set unless explicitly documented otherwise in service or product specific documentation."
    ),
    must!(
        a_deleted_operation_is_gone,
        "Operations.DeleteOperation",
        "This method indicates that the client is no longer interested in the operation result."
    ),
    must!(
        deleting_does_not_cancel,
        "Operations.DeleteOperation",
        "It does not cancel the operation."
    ),
    must!(
        a_deleted_operation_is_not_waited_for,
        "Execution.WaitExecution",
        "or if the server implements the Operations API DeleteOperation method and it was called for the current execution."
    ),
    must!(
        an_unknown_operation_is_not_deleted,
        "DeleteOperationRequest.name",
        "The name of the operation resource to be deleted."
    ),
];

/// A script that runs until it is ended. Each check cancels it at its end, for a server has few places.
const ENDLESS: &str = "while :; do sleep 0.1; done";

/// Starts an action and waits until it runs.
async fn running(server: &Server, script: &str) -> anyhow::Result<(Streaming<Operation>, String)> {
    let action = server.action(script)?.timeout(Duration::from_secs(30));
    let mut stream = action.start().await?;
    loop {
        let operation = stream.message().await?.context("the stream ended")?;
        ensure!(!operation.done, "the action ended: {operation:?}");
        if metadata(&operation)?.stage == i32::from(Stage::Executing) {
            return Ok((stream, operation.name));
        }
    }
}

async fn finished(server: &Server) -> anyhow::Result<String> {
    let run = server.action("echo end")?.run().await?;
    run.succeeded().await?;
    Ok(run.name().to_owned())
}

fn unknown() -> String {
    "operations/actiond-conformance-unknown".to_owned()
}

async fn get(server: &Server, name: &str) -> Result<Operation, Status> {
    let request = GetOperationRequest { name: name.to_owned() };
    Ok(server.client.operations().get_operation(request).await?.into_inner())
}

async fn wait(server: &Server, name: &str, timeout_ms: i32) -> Result<Operation, Status> {
    let timeout = protobuf::Duration {
        seconds: i64::from(timeout_ms / 1000),
        nanos: timeout_ms % 1000 * 1_000_000,
    };
    let request = WaitOperationRequest { name: name.to_owned(), timeout: Some(timeout) };
    Ok(server.client.operations().wait_operation(request).await?.into_inner())
}

async fn cancel(server: &Server, name: &str) -> Result<(), Status> {
    let request = CancelOperationRequest { name: name.to_owned() };
    server.client.operations().cancel_operation(request).await.map(|_| ())
}

async fn delete(server: &Server, name: &str) -> Result<(), Status> {
    let request = DeleteOperationRequest { name: name.to_owned() };
    server.client.operations().delete_operation(request).await.map(|_| ())
}

async fn list(
    server: &Server,
    request: ListOperationsRequest,
) -> Result<ListOperationsResponse, Status> {
    Ok(server.client.operations().list_operations(request).await?.into_inner())
}

/// Every page of a list.
async fn list_all(
    server: &Server,
    request: ListOperationsRequest,
) -> anyhow::Result<Vec<Operation>> {
    let (mut operations, mut page_token) = (Vec::new(), String::new());
    for _ in 0..10_000 {
        let request = ListOperationsRequest { page_token, ..request.clone() };
        let answer = list(server, request).await?;
        operations.extend(answer.operations);
        if answer.next_page_token.is_empty() {
            return Ok(operations);
        }
        page_token = answer.next_page_token;
    }
    anyhow::bail!("the list has no end")
}

fn has(operations: &[Operation], name: &str) -> bool {
    operations.iter().any(|operation| operation.name == name)
}

/// The answer in a finished operation.
fn response(operation: &Operation) -> anyhow::Result<proto::ExecuteResponse> {
    match &operation.result {
        Some(operation::Result::Response(any)) => Ok(prost::Message::decode(any.value.as_slice())?),
        other => anyhow::bail!("{other:?} in place of a response"),
    }
}

async fn a_running_operation_is_seen(server: Server) -> Outcome {
    let (_stream, name) = running(&server, ENDLESS).await?;
    let operation = get(&server, &name).await?;
    same("the name", operation.name.as_str(), name.as_str())?;
    let _best_effort = cancel(&server, &name).await;
    same("done", operation.done, false)?;
    same("the stage", metadata(&operation)?.stage, Stage::Executing.into())
}

async fn a_finished_operation_is_seen(server: Server) -> Outcome {
    let operation = get(&server, &finished(&server).await?).await?;
    same("done", operation.done, true)?;
    let result = response(&operation)?.result.context("no result")?;
    same("the exit code", result.exit_code, 0)
}

async fn an_unknown_operation_is_not_found(server: Server) -> Outcome {
    refused(get(&server, &unknown()).await, &[Code::NotFound])?;
    Ok(())
}

async fn waiting_ends_with_the_operation(server: Server) -> Outcome {
    let (_stream, name) = running(&server, "sleep 1").await?;
    // It may return earlier, at any time.
    for _ in 0..1000 {
        let operation = wait(&server, &name, 50_000).await?;
        if operation.done {
            return response(&operation).map(|_| ());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the operation does not end")
}

async fn waiting_ends_with_its_timeout(server: Server) -> Outcome {
    let (_stream, name) = running(&server, ENDLESS).await?;
    let operation = wait(&server, &name, 300).await;
    let _best_effort = cancel(&server, &name).await;
    same("done", operation?.done, false)
}

async fn waiting_for_a_finished_operation_ends_at_once(server: Server) -> Outcome {
    let name = finished(&server).await?;
    same("done", wait(&server, &name, 50_000).await?.done, true)
}

async fn an_unknown_operation_is_not_waited_for(server: Server) -> Outcome {
    refused(wait(&server, &unknown(), 1000).await, &[Code::NotFound])?;
    Ok(())
}

async fn a_cancelled_operation_ends(server: Server) -> Outcome {
    let (stream, name) = running(&server, ENDLESS).await?;
    cancel(&server, &name).await?;
    let run = Run::collect(server.client.clone(), stream).await?;
    same("the status", run.code(), Code::Cancelled)
}

async fn a_cancelled_action_is_not_cached(server: Server) -> Outcome {
    let action = server.action(ENDLESS)?.timeout(Duration::from_secs(30));
    let mut stream = action.start().await?;
    let name = stream.message().await?.context("the stream ended")?.name;
    cancel(&server, &name).await?;
    while stream.message().await?.is_some() {}
    let cached = server.client.cached(&action.encode().0).await?;
    ensure!(cached.is_none(), "the action cache has {cached:?}");
    Ok(())
}

async fn an_unknown_operation_is_not_cancelled(server: Server) -> Outcome {
    refused(cancel(&server, &unknown()).await, &[Code::NotFound])?;
    Ok(())
}

async fn a_finished_operation_stays_as_it_is_when_cancelled(server: Server) -> Outcome {
    let name = finished(&server).await?;
    // Refusing is as good as doing nothing.
    if let Err(status) = cancel(&server, &name).await {
        refused::<()>(Err(status), &[Code::FailedPrecondition, Code::NotFound])?;
    }
    let status = response(&get(&server, &name).await?)?.status.unwrap_or_default();
    same("the status", Code::from(status.code), Code::Ok)
}

/// Two clients share an execution, and one of them leaves.
async fn one_client_that_cancels_does_not_end_the_others_action(server: Server) -> Outcome {
    let mut code = Code::Ok;
    // On a busy machine a short action may be over before it is cancelled.
    for seconds in [1, 4, 16, 64] {
        let action = server.action(&format!("sleep {seconds}; echo end > out"))?.output("out");
        let (mut one, name_of_one) = started(&action).await?;
        let (other, name_of_other) = started(&action).await?;
        if name_of_one == name_of_other {
            return skip("clients that share an execution share the operation");
        }
        cancel(&server, &name_of_one).await?;
        let run = Run::collect(server.client.clone(), other).await?;
        run.succeeded().await?;
        run.output_file("out")?;
        let mut last = None;
        while let Some(operation) = one.message().await? {
            last = Some(operation);
        }
        let last = last.context("the stream of the client that cancelled has no end")?;
        ensure!(last.done, "it ended without an answer");
        code = Code::from(response(&last)?.status.unwrap_or_default().code);
        if code != Code::Ok {
            break;
        }
    }
    same("its code", code, Code::Cancelled)
}

/// Starts an action, and returns its stream after the first message, with the name.
async fn started(action: &Action) -> anyhow::Result<(Streaming<Operation>, String)> {
    let mut stream = action.start().await?;
    let first = stream.message().await?.context("the stream is empty")?;
    Ok((stream, first.name))
}

async fn cancelled_comes_only_of_cancelling(server: Server) -> Outcome {
    let action = server.action("sleep 2; echo end")?;
    let one = action.start().await?;
    let other = action.start().await?;
    drop(one);
    let run = Run::collect(server.client.clone(), other).await?;
    same("the status", run.code(), Code::Ok)
}

async fn a_running_operation_is_listed(server: Server) -> Outcome {
    let (_stream, name) = running(&server, ENDLESS).await?;
    let operations = list_all(&server, ListOperationsRequest::default()).await;
    let _best_effort = cancel(&server, &name).await;
    ensure!(has(&operations?, &name), "{name} is not listed");
    Ok(())
}

async fn a_list_keeps_to_its_page_size(server: Server) -> Outcome {
    for _ in 0..3 {
        finished(&server).await?;
    }
    let request = ListOperationsRequest { page_size: 2, ..Default::default() };
    let answer = list(&server, request).await?;
    ensure!(answer.operations.len() <= 2, "a page of {}", answer.operations.len());
    ensure!(!answer.next_page_token.is_empty(), "there is no other page");
    Ok(())
}

async fn pages_of_a_list_have_every_operation_once(server: Server) -> Outcome {
    let mut names = Vec::new();
    for _ in 0..5 {
        names.push(finished(&server).await?);
    }
    let request = ListOperationsRequest { page_size: 2, ..Default::default() };
    let operations = list_all(&server, request).await?;
    for name in names {
        let count = operations.iter().filter(|operation| operation.name == name).count();
        same(&name, count, 1)?;
    }
    Ok(())
}

async fn a_list_is_filtered(server: Server) -> Outcome {
    let (_stream, unfinished) = running(&server, ENDLESS).await?;
    let done = finished(&server).await?;
    let filter =
        |text: &str| ListOperationsRequest { filter: text.to_owned(), ..Default::default() };
    let only_done = list_all(&server, filter("done = true")).await;
    let others = list_all(&server, filter("done=false")).await;
    let _best_effort = cancel(&server, &unfinished).await;
    let (only_done, others) = (only_done?, others?);
    ensure!(has(&only_done, &done), "the finished operation is not listed");
    ensure!(!has(&only_done, &unfinished), "the running operation is listed as done");
    ensure!(has(&others, &unfinished), "the running operation is not listed");
    ensure!(!has(&others, &done), "the finished operation is listed as not done");
    Ok(())
}

async fn a_filter_that_is_none_is_refused(server: Server) -> Outcome {
    let filter = "((no such filter".to_owned();
    let request = ListOperationsRequest { filter, ..Default::default() };
    refused(list(&server, request).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn a_list_of_another_parent_is_empty(server: Server) -> Outcome {
    finished(&server).await?;
    let name = "actiond-conformance/no-such-parent/operations".to_owned();
    match list(&server, ListOperationsRequest { name, ..Default::default() }).await {
        Ok(answer) => same("operations", answer.operations.len(), 0),
        Err(status) => {
            refused::<()>(Err(status), &[Code::NotFound, Code::InvalidArgument]).map(|_| ())
        }
    }
}

async fn a_list_of_large_results_fits_default_clients(server: Server) -> Outcome {
    // Each result is about 400 KB of targets.
    let script = "target=$(printf %04000d 0); for i in $(seq 100); do ln -s $target out$i; done";
    let names: Vec<_> = (1..=100).map(|number| format!("out{number}")).collect();
    for _ in 0..12 {
        let action = names.iter().fold(server.action(script)?, |it, name| it.output(name));
        action.run().await?.succeeded().await?;
    }
    // Pages that are too large would be refused by the client of this call.
    let operations = list_all(&server, ListOperationsRequest::default()).await?;
    let bytes: usize = operations.iter().map(prost::Message::encoded_len).sum();
    ensure!(bytes > DEFAULT_MESSAGE_BYTES, "the list of {bytes} bytes proves nothing");
    Ok(())
}

async fn partial_success_is_not_supported(server: Server) -> Outcome {
    // Where the method is not implemented at all, this must be a skip.
    list(&server, ListOperationsRequest { page_size: 1, ..Default::default() }).await?;
    let request = ListOperationsRequest { return_partial_success: true, ..Default::default() };
    match list(&server, request).await {
        Err(status) => same("the code", status.code(), Code::Unimplemented),
        Ok(_) => anyhow::bail!("the call succeeds"),
    }
}

async fn a_deleted_operation_is_gone(server: Server) -> Outcome {
    let name = finished(&server).await?;
    delete(&server, &name).await?;
    refused(get(&server, &name).await, &[Code::NotFound])?;
    let operations = list_all(&server, ListOperationsRequest::default()).await?;
    ensure!(!has(&operations, &name), "it is still listed");
    Ok(())
}

async fn deleting_does_not_cancel(server: Server) -> Outcome {
    let (stream, name) = running(&server, "sleep 1; echo end").await?;
    if let Err(status) = delete(&server, &name).await {
        // A running operation may be protected.
        refused::<()>(Err(status), &[Code::FailedPrecondition])?;
    }
    let run = Run::collect(server.client.clone(), stream).await?;
    same("the status", run.code(), Code::Ok)
}

async fn a_deleted_operation_is_not_waited_for(server: Server) -> Outcome {
    let name = finished(&server).await?;
    delete(&server, &name).await?;
    let request = proto::WaitExecutionRequest { name };
    let answer = match server.client.execution().wait_execution(request).await {
        Ok(stream) => stream.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    refused(answer, &[Code::NotFound])?;
    Ok(())
}

async fn an_unknown_operation_is_not_deleted(server: Server) -> Outcome {
    refused(delete(&server, &unknown()).await, &[Code::NotFound])?;
    Ok(())
}
