//! Errors of starting a virtual machine.

use std::io;

use crate::configuration::ConfigurationError;
use crate::image::ImageError;
use crate::plan::PlanError;

/// Errors of starting a machine.
#[derive(Debug, thiserror::Error)]
pub enum VzError {
    /// No virtualization here: the processor, the system, or a VM without nesting around us.
    #[error("this Mac offers no virtualization")]
    Unsupported,
    /// More was asked for than the host gives.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file is not what it should be.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The framework refuses the machine. Without the entitlement it refuses every one.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The pipe for the guest's console.
    #[error("making a pipe for the console")]
    Console(#[source] io::Error),
    /// A machine without the device that it was configured with.
    #[error("the VM has no vsock device")]
    NoSocketDevice,
    /// The framework did not start it.
    #[error("{0}")]
    Start(String),
    /// A part of the program ended without a word.
    #[error("the framework did not answer")]
    Lost,
}
