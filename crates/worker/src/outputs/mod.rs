//! Declared outputs on their way into the store.
//!
//! Runs when everything inside the sandbox is dead. The kernel resolves nothing through a symlink
//! that the action made.
//!
//! - [`survey`]: what lies at each output's path, every entry looked at once;
//! - [`storing`]: files become blobs, by several threads when there are many;
//! - [`messages`]: the messages that tell the client of it.
//!
//! An output that cannot be stored is a loss and no more: the others are collected all the same,
//! and an output directory has everything but what of it could not be stored.

mod messages;
mod storing;
mod survey;
#[cfg(test)]
mod tests;

use model::{CommandSpec, DigestFunction, OutputPath, proto};

use crate::boundary::{Destination, Outputs};
use crate::error::ActionError;
use crate::limits::OutputLimits;
use crate::losses::Losses;
use messages::Messages;
use storing::Storing;
use survey::{Survey, check_kind};

/// The source, destination and bounds of collecting outputs.
pub(crate) struct Collection<'a> {
    pub(crate) destination: &'a dyn Destination,
    pub(crate) function: DigestFunction,
    pub(crate) limits: OutputLimits,
    pub(crate) view: &'a dyn Outputs,
    /// Whether nobody wants them any more; asked before each file.
    pub(crate) cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Collection<'_> {
    /// Collects the outputs that `command` declares into `result`. One that is not there is left
    /// out: the client decides whether it had to be. One that is there and could not be stored is
    /// a loss.
    ///
    /// Fails only if the action was cancelled meanwhile, or by a bug; then `result` has no outputs.
    pub(crate) fn collect(
        &self,
        command: &CommandSpec,
        result: &mut proto::ActionResult,
    ) -> Result<Losses, ActionError> {
        let mut outputs: Vec<&OutputPath> = command.outputs.iter().collect();
        // A directory comes before what lies in it.
        outputs.sort_unstable_by(|a, b| a.path.cmp(&b.path));

        let wanted = command.output_node_properties;
        let mut survey = Survey::new(self.view, self.limits, wanted, Storing::new(self));
        for output in &outputs {
            survey.look_at(output)?;
        }
        let (found, storing, mut losses) = survey.finish();
        let (stored, not_stored) = storing.finish()?;
        losses.append(not_stored);
        let messages = Messages {
            destination: self.destination,
            function: self.function,
            format: command.output_directory_format,
            wanted,
            stored: &stored,
        };
        for output in outputs {
            let Some(node) = found.at(&output.path) else { continue };
            let added = check_kind(output, node, self.view)
                .and_then(|()| messages.add(output, node, result));
            if let Err(error) = added {
                losses.push(&output.declared, error);
            }
        }
        Ok(losses)
    }
}
