//! The digest functions and instances that clients may name.

use model::{DigestFunctions, InstanceNames};

/// The digest functions and instances of a service. A clone shares the list of instances.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offer {
    pub(crate) functions: DigestFunctions,
    pub(crate) instances: InstanceNames,
}
