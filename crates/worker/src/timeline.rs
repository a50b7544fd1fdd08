//! When each phase of an action began and ended, as clients see it.

use std::time::SystemTime;

use model::proto::google::protobuf::{Duration, Timestamp};
use model::proto::{self, ExecutedActionMetadata};

/// The phases of `ExecutedActionMetadata`, filled in as the action goes on.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    metadata: ExecutedActionMetadata,
}

/// A point that `ExecutedActionMetadata` has a timestamp for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    WorkerStart,
    InputFetchStart,
    InputFetchCompleted,
    ExecutionStart,
    ExecutionCompleted,
    OutputUploadStart,
    OutputUploadCompleted,
    WorkerCompleted,
}

impl Timeline {
    /// The timeline of an action that is queued now.
    pub(crate) fn queued_now(worker_name: &str) -> Self {
        let metadata = ExecutedActionMetadata {
            worker: worker_name.to_owned(),
            queued_timestamp: Some(timestamp(SystemTime::now())),
            ..Default::default()
        };
        Self { metadata }
    }

    /// `moment` is now.
    pub(crate) fn mark(&mut self, moment: Moment) {
        self.mark_at(moment, SystemTime::now());
    }

    /// `moment` was at `time`.
    pub(crate) fn mark_at(&mut self, moment: Moment, time: SystemTime) {
        let metadata = &mut self.metadata;
        let field = match moment {
            Moment::WorkerStart => &mut metadata.worker_start_timestamp,
            Moment::InputFetchStart => &mut metadata.input_fetch_start_timestamp,
            Moment::InputFetchCompleted => &mut metadata.input_fetch_completed_timestamp,
            Moment::ExecutionStart => &mut metadata.execution_start_timestamp,
            Moment::ExecutionCompleted => &mut metadata.execution_completed_timestamp,
            Moment::OutputUploadStart => &mut metadata.output_upload_start_timestamp,
            Moment::OutputUploadCompleted => &mut metadata.output_upload_completed_timestamp,
            Moment::WorkerCompleted => &mut metadata.worker_completed_timestamp,
        };
        *field = Some(timestamp(time));
    }

    /// How long the command itself took.
    pub(crate) fn took(&mut self, wall: std::time::Duration) {
        self.metadata.virtual_execution_duration = Some(Duration {
            seconds: i64::try_from(wall.as_secs()).unwrap_or(i64::MAX),
            nanos: wall.subsec_nanos() as i32,
        });
    }

    /// What is known so far.
    pub(crate) fn metadata(&self) -> &proto::ExecutedActionMetadata {
        &self.metadata
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX),
        nanos: since_1970.subsec_nanos() as i32,
    }
}
