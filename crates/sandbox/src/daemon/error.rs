//! Errors of running an action.

use rustix::io::Errno;
use sys::init::Obstacle;

use crate::plan::step::StepName;
use crate::protocol::message::Failed;
use crate::protocol::packet::PacketError;

/// A set-up that failed, by its step and the kernel's reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {errno}{}{detail}", if detail.is_empty() { "" } else { ": " })]
pub struct RunError {
    step: StepName,
    errno: Errno,
    detail: String,
    obstacle: Option<Box<Obstacle>>,
}

impl RunError {
    /// A failure of `step` that the errno says all about.
    pub fn new(step: StepName, errno: Errno) -> Self {
        Self { step, errno, detail: String::new(), obstacle: None }
    }

    pub(crate) fn with_detail(step: StepName, errno: Errno, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..Self::new(step, errno) }
    }

    /// The step that failed.
    pub fn step(&self) -> StepName {
        self.step
    }

    /// The kernel's error.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The errno in words.
    pub fn errno_text(&self) -> String {
        std::io::Error::from(self.errno).to_string()
    }

    /// The file that kept the command from being executed, where [`Self::step`] is
    /// [`StepName::Execute`] and there is one. Its paths are the client's words, and the helper's.
    pub fn obstacle(&self) -> Option<&Obstacle> {
        self.obstacle.as_deref()
    }

    /// Whether the command is to blame (it names a program or a directory that is
    /// not there, say) and not this machine.
    pub fn is_about_command(&self) -> bool {
        self.step.is_about_command()
    }
}

impl From<Failed> for RunError {
    fn from(failed: Failed) -> Self {
        let errno = Errno::from_raw_os_error(failed.errno);
        let error = Self::with_detail(failed.step, errno, failed.detail);
        Self { obstacle: failed.obstacle.map(Box::new), ..error }
    }
}

impl From<PacketError> for RunError {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::Socket(errno) => Self::new(StepName::Request, errno),
            PacketError::Malformed(why) => {
                Self::with_detail(StepName::Protocol, Errno::BADMSG, why)
            }
            PacketError::Body(error) => {
                Self::with_detail(StepName::Protocol, Errno::BADMSG, error.to_string())
            }
        }
    }
}
