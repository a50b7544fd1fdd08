//! Declared outputs on their way into the store.
//!
//! Runs when everything inside the sandbox is dead. Nothing is resolved through a
//! symlink that the action made.
//!
//! - [`survey`]: what lies at each output's path, every entry looked at once;
//! - [`storing`]: files become blobs, by several threads when there are many;
//! - [`messages`]: the messages that tell the client of it.

mod messages;
mod storing;
mod survey;

use inputroot::OutputView;
use model::{CommandSpec, DigestFunction, OutputKind, OutputPath, proto};
use store::Cas;

use crate::config::OutputLimits;
use crate::error::ActionError;
use messages::Messages;
use storing::Storing;
use survey::{Node, Survey};

/// Where outputs are collected from, where to, and how much of them.
pub(crate) struct Collection<'a> {
    pub(crate) cas: &'a Cas,
    pub(crate) function: DigestFunction,
    pub(crate) limits: OutputLimits,
    pub(crate) view: &'a OutputView,
    /// Whether nobody wants them any more; asked before each file.
    pub(crate) cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Collection<'_> {
    /// Collects the outputs that `command` declares into `result`. One that is not
    /// there is left out: the client decides whether it had to be.
    pub(crate) fn collect(
        &self,
        command: &CommandSpec,
        result: &mut proto::ActionResult,
    ) -> Result<(), ActionError> {
        let mut outputs: Vec<&OutputPath> = command.outputs.iter().collect();
        // A directory comes before what lies in it.
        outputs.sort_unstable_by(|a, b| a.path.cmp(&b.path));

        let mut survey = Survey::new(self.view, self.limits, Storing::new(self));
        for output in &outputs {
            if let Some(node) = survey.look_at(&output.path)? {
                check_kind(output, node)?;
            }
        }
        let (found, stored) = survey.finish()?;
        let messages = Messages {
            cas: self.cas,
            function: self.function,
            format: command.output_directory_format,
            stored: &stored,
        };
        for output in outputs {
            if let Some(node) = found.at(&output.path) {
                messages.add(output, node, result)?;
            }
        }
        Ok(())
    }
}

fn check_kind(output: &OutputPath, node: &Node) -> Result<(), ActionError> {
    let (declared, made) = match (output.kind, node) {
        (OutputKind::Directory, Node::File(_)) => ("an output directory", "a file"),
        (OutputKind::File, Node::Directory(_)) => ("an output file", "a directory"),
        _ => return Ok(()),
    };
    let path = &output.declared;
    Err(ActionError::Unsupported(format!(
        "`{path}` was declared as {declared}, and the action made {made}"
    )))
}
