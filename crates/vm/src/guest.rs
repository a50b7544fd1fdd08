//! The guest as the rest of the host program sees it.

use std::sync::Arc;

use crate::control::Client;
use crate::vmm::Machine;

/// The guest in its life.
#[derive(Clone)]
pub enum Guest {
    /// Not yet, or not again: wait.
    Booting,
    /// It serves.
    Ready(Arc<Running>),
    /// There won't be one any more.
    Stopped,
}

/// A guest that serves.
pub struct Running {
    /// The machine that it runs in.
    pub machine: Arc<dyn Machine>,
    /// For questions to it.
    pub control: Client,
}
