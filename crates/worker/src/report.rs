//! The events of an operation.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use events::{Event, Failure, Finished, Origin, Queued};
use model::{EncodedResult, Printable};

use crate::operation::{Done, Operation};
use crate::timeline::Timeline;

/// The operation waits for a slot.
pub(crate) fn queued(operation: &Operation, origin: &Arc<Origin>) -> Event {
    Event::Queued(Queued {
        operation: operation.name.as_str().into(),
        action: operation.action.to_string(),
        origin: Arc::clone(origin),
    })
}

/// The operation has its answer.
pub(crate) fn finished(
    operation: &Operation,
    origin: &Arc<Origin>,
    timeline: &Timeline,
    done: &Done,
) -> Event {
    let result = done.result.as_ref();
    let failure = |error: &crate::error::ActionError| Failure {
        kind: error.kind(),
        message: Printable::message(error),
    };
    Event::Finished(Arc::new(Finished {
        operation: operation.name.as_str().into(),
        instance: operation.instance.to_string(),
        action: operation.action.to_string(),
        origin: Arc::clone(origin),
        queued_at: queued_at(timeline),
        cached: done.cached,
        other_environment: timeline.other_environment,
        exit_code: result.map(EncodedResult::exit_code),
        error: done.error.as_ref().map(failure),
        stages: timeline.stages(),
        usage: timeline.usage(),
        outputs: result.map_or(0, EncodedResult::outputs),
        output_bytes: result.map_or(0, EncodedResult::output_bytes),
        worker: timeline.metadata().worker.clone(),
    }))
}

fn queued_at(timeline: &Timeline) -> SystemTime {
    let time = timeline.metadata().queued_timestamp.unwrap_or_default();
    let seconds = Duration::from_secs(u64::try_from(time.seconds).unwrap_or(0));
    let nanos = Duration::from_nanos(u64::try_from(time.nanos).unwrap_or(0));
    SystemTime::UNIX_EPOCH + seconds + nanos
}
