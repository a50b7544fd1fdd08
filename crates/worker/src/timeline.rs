//! When each phase of an action began and ended, as clients see it.

use std::time::SystemTime;

use events::{Stages, Usage};
use model::proto::google::protobuf::Timestamp;
use model::proto::{self, ExecutedActionMetadata};

use crate::resource_usage;

/// The phases of `ExecutedActionMetadata`, filled in as the action goes on.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    metadata: ExecutedActionMetadata,
    /// Not told to clients: there are no fields for it.
    sandbox_wanted: Option<Timestamp>,
    sandbox_ready: Option<Timestamp>,
    usage: Option<Usage>,
}

/// A point in an action's life; all but those of the sandbox are fields of `ExecutedActionMetadata`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    WorkerStart,
    InputFetchStart,
    SandboxWanted,
    SandboxReady,
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
        Self { metadata, sandbox_wanted: None, sandbox_ready: None, usage: None }
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
            Moment::SandboxWanted => &mut self.sandbox_wanted,
            Moment::SandboxReady => &mut self.sandbox_ready,
            Moment::ExecutionStart => &mut metadata.execution_start_timestamp,
            Moment::ExecutionCompleted => &mut metadata.execution_completed_timestamp,
            Moment::OutputUploadStart => &mut metadata.output_upload_start_timestamp,
            Moment::OutputUploadCompleted => &mut metadata.output_upload_completed_timestamp,
            Moment::WorkerCompleted => &mut metadata.worker_completed_timestamp,
        };
        *field = Some(timestamp(time));
    }

    /// The resource usage of the command and its processes.
    pub(crate) fn used(&mut self, exit: &sandbox::Exit) {
        let usage = &exit.usage;
        let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.usage = Some(Usage {
            user_us: us(usage.user),
            system_us: us(usage.system),
            max_resident_bytes: usage.max_resident_bytes,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
        });
        self.metadata.virtual_execution_duration = Some(resource_usage::duration(usage.wall));
        self.metadata.auxiliary_metadata = resource_usage::messages(usage, exit.status);
    }

    /// The duration of each stage that has both ends by now.
    pub(crate) fn stages(&self) -> Stages {
        let of = &self.metadata;
        let sandbox_us = between(&self.sandbox_wanted, &self.sandbox_ready);
        let fetched_us =
            between(&of.input_fetch_start_timestamp, &of.input_fetch_completed_timestamp);
        Stages {
            queued_us: between(&of.queued_timestamp, &of.worker_start_timestamp),
            // The sandbox comes before the tree, which is presented to its user.
            inputs_us: fetched_us.map(|us| us.saturating_sub(sandbox_us.unwrap_or(0))),
            sandbox_us,
            set_up_us: between(&of.input_fetch_completed_timestamp, &of.execution_start_timestamp),
            run_us: between(&of.execution_start_timestamp, &of.execution_completed_timestamp),
            end_us: between(&of.execution_completed_timestamp, &of.output_upload_start_timestamp),
            outputs_us: between(
                &of.output_upload_start_timestamp,
                &of.output_upload_completed_timestamp,
            ),
            total_us: between(&of.worker_start_timestamp, &of.worker_completed_timestamp),
        }
    }

    /// The command's resource usage, once it ran.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// The state so far.
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

/// Microseconds from one time to the other; 0 where the clock was set back in between.
fn between(from: &Option<Timestamp>, to: &Option<Timestamp>) -> Option<u64> {
    let us =
        |time: &Timestamp| i128::from(time.seconds) * 1_000_000 + i128::from(time.nanos / 1000);
    let (from, to) = (us(from.as_ref()?), us(to.as_ref()?));
    Some(u64::try_from(to - from).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_the_times_between_their_ends() {
        let mut timeline = Timeline::queued_now("worker");
        let at = |ms: u64| SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(ms);
        timeline.mark_at(Moment::WorkerStart, at(1_000));
        timeline.mark_at(Moment::InputFetchStart, at(1_000));
        timeline.mark_at(Moment::SandboxWanted, at(1_001));
        timeline.mark_at(Moment::SandboxReady, at(1_002));
        timeline.mark_at(Moment::InputFetchCompleted, at(1_004));
        timeline.mark_at(Moment::ExecutionStart, at(1_010));
        timeline.mark_at(Moment::ExecutionCompleted, at(999));
        let expected = Stages {
            queued_us: Some(0),
            inputs_us: Some(3_000),
            sandbox_us: Some(1_000),
            set_up_us: Some(6_000),
            // The clock was set back.
            run_us: Some(0),
            ..Stages::default()
        };
        assert_eq!(timeline.stages(), expected);
    }
}
