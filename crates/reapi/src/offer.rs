//! The digest functions and instances that clients may name.

use model::{DigestFunction, DigestFunctions, InstanceNames};

/// The digest functions and instances of a service. A clone shares the list of instances.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offer {
    pub(crate) functions: DigestFunctions,
    pub(crate) instances: InstanceNames,
}

impl Offer {
    /// The function of a digest that the server makes for a client that names none: SHA-256, or where that is not offered
    /// the preferred one.
    pub(crate) fn usual_function(&self) -> DigestFunction {
        let usual = DigestFunction::Sha256;
        if self.functions.contains(usual) {
            return usual;
        }
        self.functions.iter().next().unwrap_or(usual)
    }
}
