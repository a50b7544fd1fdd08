//! The events of an operation.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use events::{
    Caller, Event, Failure, Finished, InputTotals, Limits, LookedUp, Miss, Origin, Queued,
    RESULT_BYTES_MAX,
};
use model::{ActionMessage, Digest, EncodedResult, InputTree, InstanceName, Printable};

use crate::operation::{Done, Operation};
use crate::timeline::Timeline;

/// The parts of an action that its last event names beside those of the operation.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Described {
    pub(crate) command: Option<Digest>,
    pub(crate) input_root: Option<Digest>,
    pub(crate) inputs: Option<InputTotals>,
    pub(crate) miss: Option<Miss>,
    pub(crate) limits: Limits,
}

impl Described {
    /// An action that is to be run, for the reason `miss`.
    pub(crate) fn to_run(action: &ActionMessage, miss: Miss) -> Self {
        let miss = if action.do_not_cache { Miss::Uncacheable } else { miss };
        let (command, input_root) = (Some(action.command), Some(action.input_root));
        Self { command, input_root, inputs: None, miss: Some(miss), limits: Limits::default() }
    }

    /// Adds the size of the inputs.
    pub(crate) fn with_inputs(&mut self, tree: &InputTree) {
        self.inputs =
            Some(InputTotals { files: tree.file_count() as u64, bytes: tree.blob_bytes() });
    }

    /// Adds the limits with which the action runs.
    pub(crate) fn limited_by(&mut self, limits: &model::Limits, timeout: Option<Duration>) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let model::Limits { memory_bytes, cpu_cores, pids_max } = *limits;
        self.limits = Limits { timeout_us: timeout.map(us), memory_bytes, cpu_cores, pids_max };
    }
}

/// A client looked for a cached result.
pub(crate) fn looked_up(
    instance: &InstanceName,
    action: &Digest,
    caller: &Caller,
    miss: Option<Miss>,
) -> Event {
    Event::LookedUp(Arc::new(LookedUp {
        instance: instance.clone(),
        action: *action,
        caller: caller.clone(),
        at: SystemTime::now(),
        miss,
    }))
}

/// The operation waits for a slot.
pub(crate) fn queued(operation: &Operation, origin: &Arc<Origin>) -> Event {
    Event::Queued(Queued {
        operation: operation.name.as_str().into(),
        instance: operation.instance.to_string(),
        digest_function: operation.action.function().name(),
        action: operation.action.to_string(),
        origin: Arc::clone(origin),
    })
}

/// The operation has its answer.
pub(crate) fn finished(
    operation: &Operation,
    origin: &Arc<Origin>,
    described: &Described,
    timeline: &Timeline,
    done: &Done,
) -> Event {
    let result = done.result.as_ref();
    let failure = |error: &crate::error::ActionError| Failure {
        kind: error.kind(),
        step: error.step().map(Printable::name),
        message: Printable::message(error),
    };
    Event::Finished(Arc::new(Finished {
        operation: operation.name.as_str().into(),
        instance: operation.instance.to_string(),
        digest_function: operation.action.function().name(),
        action: operation.action.to_string(),
        command: described.command.map(|digest| digest.to_string()),
        input_root: described.input_root.map(|digest| digest.to_string()),
        inputs: described.inputs,
        origin: Arc::clone(origin),
        queued_at: queued_at(timeline),
        cached: done.cached,
        miss: described.miss,
        limits: described.limits,
        exit_code: result.map(EncodedResult::exit_code),
        error: done.error.as_ref().map(failure),
        stages: timeline.stages(),
        usage: timeline.usage(),
        outputs: result.map_or(0, EncodedResult::outputs),
        output_bytes: result.map_or(0, EncodedResult::output_bytes),
        worker: timeline.metadata().worker.clone(),
        // A cached one is in the cache.
        result: result.filter(|_| !done.cached).and_then(small_message),
    }))
}

/// A copy: a slice would hold the streams in memory, too.
fn small_message(result: &EncodedResult) -> Option<Bytes> {
    let message = result.own_message();
    (message.len() <= RESULT_BYTES_MAX).then(|| Bytes::copy_from_slice(message))
}

fn queued_at(timeline: &Timeline) -> SystemTime {
    let time = timeline.metadata().queued_timestamp.unwrap_or_default();
    let seconds = Duration::from_secs(u64::try_from(time.seconds).unwrap_or(0));
    let nanos = Duration::from_nanos(u64::try_from(time.nanos).unwrap_or(0));
    SystemTime::UNIX_EPOCH + seconds + nanos
}
