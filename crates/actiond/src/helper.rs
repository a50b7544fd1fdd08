//! The sandbox helper: this program, started again with a hidden sub-command.

use std::path::Path;

use sandbox::{HelperCommand, RunError};

/// The word that makes the binary a sandbox helper; see [`sandbox::helper_main`].
pub const COMMAND: &str = "sandbox-helper";

/// The command that starts helpers.
pub(crate) fn command() -> Result<HelperCommand, RunError> {
    HelperCommand::new(Path::new("/proc/self/exe"), [COMMAND.into()])
}
