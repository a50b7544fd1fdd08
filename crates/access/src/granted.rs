//! The rights of a caller, for services that ask for more than the right to call them.

use std::sync::Arc;

use tonic::codegen::http::Extensions;

use crate::instances::InstanceRights;
use crate::rights::{Right, Rights};

/// The rights of the caller of some calls, among the call's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) rights: Arc<InstanceRights>,
    /// The rights that nobody has here.
    pub(crate) withheld: Rights,
}

impl Granted {
    pub(crate) fn attach(self, extensions: &mut Extensions) {
        extensions.insert(self);
    }
}

/// Whether the caller of a call with these extensions has that right in that instance. Nobody has it whose rights are not
/// known: those of calls of `Fetch.FetchBlob` are.
pub fn has_right(extensions: &tonic::Extensions, instance: &str, right: Right) -> bool {
    extensions.get::<Granted>().is_some_and(|granted| {
        let rights = granted.rights.within(instance).without(granted.withheld);
        rights.has_one_of(Rights::of([right]))
    })
}
