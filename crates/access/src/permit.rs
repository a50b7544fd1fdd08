//! The name and rights of a principal, as the services get them with an admitted call.

use std::sync::Arc;

use tonic::Status;
use tonic::codegen::http::Extensions;

use crate::instances::InstanceRights;
use crate::rights::Rights;

/// The principal of a call, among the call's extensions. A call without one is anonymous, and has the
/// same rights in every instance.
#[derive(Debug, Clone)]
pub struct Permit {
    pub(crate) principal: Arc<str>,
    pub(crate) rights: Arc<InstanceRights>,
    /// The rights of which the method needs one.
    pub(crate) needed: Rights,
}

impl Permit {
    /// The name of the principal.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Whether the call may concern that instance.
    pub fn is_for(&self, instance: &str) -> bool {
        self.rights.within(instance).has_one_of(self.needed)
    }

    /// Whether the call may concern all instances.
    pub fn is_for_all(&self) -> bool {
        self.rights.in_all().has_one_of(self.needed)
    }
}

/// Lets a call with these extensions concern that instance, or says why not.
///
/// # Errors
/// PERMISSION_DENIED where its principal lacks the right.
pub fn check_instance(extensions: &tonic::Extensions, instance: &str) -> Result<(), Status> {
    match extensions.get::<Permit>() {
        Some(permit) if !permit.is_for(instance) => Err(Status::permission_denied(format!(
            "principal {} may not do this in this instance: it needs the right {}",
            permit.principal, permit.needed
        ))),
        _ => Ok(()),
    }
}

impl Permit {
    pub(crate) fn attach(self, extensions: &mut Extensions) {
        extensions.insert(self);
    }
}
