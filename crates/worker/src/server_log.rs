//! A text about an action that came to nothing by the server's fault, for the people of its client: what
//! they can pass on to the operator. It names no path of the server.

use std::fmt::Write as _;

use crate::error::ActionError;
use crate::operation::Operation;
use crate::timeline::Timeline;

/// The name of the log in `ExecuteResponse.server_logs`.
pub const NAME: &str = "set-up";

/// The text.
pub(crate) fn text(operation: &Operation, timeline: &Timeline, error: &ActionError) -> String {
    let system = rustix::system::uname();
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}: {value}");
    };
    line("error", error);
    line("operation", &operation.name);
    line("action", &operation.action);
    line("worker", &timeline.metadata().worker);
    line("kernel", &system.release().to_string_lossy());
    let stages = timeline.stages();
    for (stage, us) in
        [("queued", stages.queued_us), ("inputs", stages.inputs_us), ("sandbox", stages.sandbox_us)]
    {
        if let Some(us) = us {
            line(stage, &format_args!("{us} us"));
        }
    }
    text
}
