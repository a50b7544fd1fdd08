//! The messages that tell how an action goes on: operations and their metadata.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::google::longrunning::operation;
use testkit::proto::execution_stage::Value as Stage;
use testkit::run::metadata;

use crate::check::{Check, Outcome, must, should};
use crate::expect::same;
use crate::server::{Server, unique};

pub(super) const CHECKS: &[Check] = &[
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
];

/// A script that runs until it is ended.
const ENDLESS: &str = "while :; do sleep 0.1; done";

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
