//! The end of a command: its result, its streams, and words about an end that the exit code alone does not explain.

use model::proto;
use sandbox::{Exit, ExitStatus};

use crate::capture::{Capture, Refusal};
use crate::error::ActionError;
use crate::losses::Losses;
use crate::stamp::Stamp;

/// The outcome of a command that was started.
pub(super) struct Ran {
    pub(super) result: proto::ActionResult,
    /// The reason why the server stopped it.
    pub(super) error: Option<ActionError>,
    /// Words about an end that the exit code alone does not explain.
    explanation: String,
    pub(super) losses: Losses,
    /// The environment that it was computed in.
    pub(super) stamp: Option<Stamp>,
}

impl Ran {
    /// Stores the streams of a command that ended with this exit code.
    pub(super) fn new(
        exit_code: i32,
        stdout: Capture<'_>,
        stderr: Capture<'_>,
        error: Option<ActionError>,
        explanation: String,
    ) -> Self {
        let (stdout, stdout_stored) = stdout.finish();
        let (stderr, stderr_stored) = stderr.finish();
        let mut losses = Losses::default();
        for (stream, stored) in
            [("standard output", stdout_stored), ("standard error", stderr_stored)]
        {
            if let Err(error) = stored {
                let error = ActionError::of_store(&format!("storing the {stream}"), &error);
                losses.push(stream, error);
            }
        }
        let result = proto::ActionResult {
            exit_code,
            stdout_raw: stdout.inline.into(),
            stdout_digest: stdout.digest.map(|digest| digest.to_proto()),
            stderr_raw: stderr.inline.into(),
            stderr_digest: stderr.digest.map(|digest| digest.to_proto()),
            ..Default::default()
        };
        Self { result, error, explanation, losses, stamp: None }
    }

    /// The result, why it is not good, and words about that: what the action itself failed of comes
    /// before what could not be stored of it.
    pub(super) fn judged(self) -> (proto::ActionResult, Option<ActionError>, String) {
        let Self { result, error, explanation, losses, .. } = self;
        let has_failed = error.is_some() || result.exit_code != 0;
        let error = if has_failed { error } else { losses.first().cloned() };
        let lost = losses.message(!has_failed);
        let words = [explanation, lost].into_iter().filter(|words| !words.is_empty());
        (result, error, words.collect::<Vec<_>>().join("\n"))
    }
}

/// Whether it was the command that failed, and not the server or the client that ended it.
pub(crate) fn has_failed(error: Option<&ActionError>, exit_code: i32) -> bool {
    match error {
        None => exit_code != 0,
        Some(error) => matches!(error, ActionError::TimedOut { .. }),
    }
}

/// Whether anybody looks at the files of an action that ended so. A test that
/// took too long has its log among them; one that took too much has too much of
/// them.
pub(super) fn wants_outputs(error: Option<&ActionError>) -> bool {
    matches!(error, None | Some(ActionError::TimedOut { .. }))
}

/// As a shell tells it: 128 and the signal's number.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 + signal,
    }
}

/// Words about an end that the exit code alone does not explain.
pub(super) fn explain(exit: &Exit) -> String {
    match exit.status {
        _ if exit.oom_killed => "the action used more memory than its limit and was killed".into(),
        ExitStatus::Signal(signal) => format!("the command was killed by signal {signal}"),
        ExitStatus::Code(_) => String::new(),
    }
}

pub(super) fn refused(stream: &str, refusal: &Refusal, bytes_max: u64) -> ActionError {
    match refusal {
        Refusal::OverLimit => {
            let text = format!("the action wrote more than {bytes_max} bytes to its {stream}");
            ActionError::ResourceExhausted(text)
        }
        Refusal::Store(error) => ActionError::of_store(&format!("storing its {stream}"), error),
    }
}
