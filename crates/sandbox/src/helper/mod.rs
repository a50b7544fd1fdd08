//! The privileged helper: one single-threaded process per sandbox that lives in
//! the root its actions will see, and does nothing but clone, wait and report.
//!
//! It is the daemon's own program, started again with a hidden sub-command, and
//! speaks the protocol of `message` on its standard input. It has none of the
//! daemon's memory, and the daemon's privileges only until its root is set up; then
//! it moves into a user namespace of its own. It never opens a path of a client's,
//! never looks into an input root, and never reads what an action wrote.

mod network;
mod oom_score;
mod root;
mod serve;
mod user_namespace;

use std::process::ExitCode;

use rustix::io::Errno;

use crate::plan::step::StepName;
use crate::protocol::message::Failed;

/// The body of the hidden sub-command; returns when the daemon is gone or the
/// set-up failed, about which the daemon was told then.
///
/// Must be called before anything else: with one thread, the socket as standard
/// input, and nothing opened yet.
pub fn helper_main() -> ExitCode {
    match serve::serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Names the step and the object of an error.
trait At<T> {
    fn at(self, step: StepName, detail: impl FnOnce() -> String) -> Result<T, Failed>;
}

impl<T, E: IntoErrno> At<T> for Result<T, E> {
    fn at(self, step: StepName, detail: impl FnOnce() -> String) -> Result<T, Failed> {
        self.map_err(|error| Failed::new(step, error.into_errno(), detail()))
    }
}

trait IntoErrno {
    fn into_errno(self) -> Errno;
}

impl IntoErrno for Errno {
    fn into_errno(self) -> Errno {
        self
    }
}

impl IntoErrno for sys::mount::MountError {
    fn into_errno(self) -> Errno {
        self.errno
    }
}
