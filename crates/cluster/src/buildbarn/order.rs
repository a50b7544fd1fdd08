//! An action as Buildbarn's scheduler sends it, validated.

use std::sync::Arc;

use events::{Caller, TraceContext};
use model::proto::Message as _;
use model::{Digest, DigestFunction, DigestFunctions, InstanceName, InstanceNameError, Printable};
use proto::buildbarn::remoteworker::desired_state::Executing;

use crate::assignment::{Assignment, AssignmentError};

/// The end of the type of the client's names among the metadata.
const REQUEST_METADATA: &str = "/build.bazel.remote.execution.v2.RequestMetadata";

/// The action of an order for a worker with that prefix of instance names and these digest functions.
pub(crate) fn parse(
    executing: Executing,
    prefix: &InstanceName,
    functions: &DigestFunctions,
) -> Result<Assignment, AssignmentError> {
    let number = executing.digest_function;
    let function = DigestFunction::from_proto(number)?.filter(|it| functions.contains(*it));
    let function = function.ok_or(AssignmentError::Function(number))?;
    let digest = executing.action_digest.ok_or(AssignmentError::NoAction)?;
    let action = executing.action.ok_or(AssignmentError::NoAction)?;
    let mut metadata = executing.auxiliary_metadata.iter();
    let named = metadata.find(|any| any.type_url.ends_with(REQUEST_METADATA));
    let names = named.map(|any| any.value.clone().into()).unwrap_or_default();
    let mut origin = Caller::new(Printable::default(), names).origin();
    let trace = executing.w3c_trace_context.get("traceparent");
    origin.trace = trace.and_then(|text| TraceContext::parse(text));
    Ok(Assignment {
        action: Digest::from_proto(&digest, function)?,
        // With the scheduler's timeout.
        message: Some(action.encode_to_vec().into()),
        instance: joined(prefix, &executing.instance_name_suffix)?,
        origin: Arc::new(origin),
        queued: executing.queued_timestamp,
        auxiliary_metadata: executing.auxiliary_metadata,
    })
}

fn joined(prefix: &InstanceName, suffix: &str) -> Result<InstanceName, InstanceNameError> {
    let parts = [prefix.as_str(), suffix].into_iter().filter(|part| !part.is_empty());
    InstanceName::parse(&parts.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::proto::{Action, Any, RequestMetadata};

    fn executing() -> Executing {
        let action = Digest::of(DigestFunction::Sha256, b"action");
        Executing {
            action_digest: Some(action.to_proto()),
            action: Some(Action { do_not_cache: true, ..Default::default() }),
            digest_function: DigestFunction::Sha256.to_proto(),
            ..Default::default()
        }
    }

    fn parsed(executing: Executing, prefix: &str) -> Result<Assignment, AssignmentError> {
        let prefix = InstanceName::parse(prefix).unwrap();
        let functions = DigestFunctions::of([DigestFunction::Sha256]);
        parse(executing, &prefix, &functions)
    }

    #[test]
    fn instance_names_are_put_together_and_taken_apart() {
        for (prefix, suffix, whole) in
            [("", "", ""), ("a", "", "a"), ("", "b/c", "b/c"), ("a", "b/c", "a/b/c")]
        {
            let executing = Executing { instance_name_suffix: suffix.to_owned(), ..executing() };
            let assignment = parsed(executing, prefix).unwrap();
            assert_eq!(assignment.instance.as_str(), whole);
            assert_eq!(assignment.suffix(&InstanceName::parse(prefix).unwrap()), suffix);
        }
    }

    #[test]
    fn what_a_scheduler_must_not_send_is_refused() {
        let refused = |change: fn(&mut Executing)| {
            let mut executing = executing();
            change(&mut executing);
            parsed(executing, "").map(|_| ()).unwrap_err()
        };
        assert_eq!(refused(|it| it.action = None), AssignmentError::NoAction);
        assert_eq!(refused(|it| it.action_digest = None), AssignmentError::NoAction);
        let blake3 = DigestFunction::Blake3.to_proto();
        assert_eq!(
            refused(|it| it.digest_function = DigestFunction::Blake3.to_proto()),
            AssignmentError::Function(blake3)
        );
        assert_eq!(refused(|it| it.digest_function = 0), AssignmentError::Function(0));
        let bad_hash = refused(|it| it.action_digest.as_mut().unwrap().hash = "../x".into());
        assert!(matches!(bad_hash, AssignmentError::Digest(_)), "{bad_hash}");
        let bad_name = refused(|it| it.instance_name_suffix = "a//b".into());
        assert!(matches!(bad_name, AssignmentError::Instance(_)), "{bad_name}");
    }

    #[test]
    fn the_names_of_the_client_are_passed_on() {
        let metadata = RequestMetadata { target_id: "//a".into(), ..Default::default() };
        let any = Any {
            type_url: format!("type.googleapis.com{REQUEST_METADATA}"),
            value: metadata.encode_to_vec(),
        };
        let other = Any { type_url: "type.googleapis.com/x".into(), value: b"\xff".to_vec() };
        let auxiliary_metadata = vec![other, any];
        let assignment = parsed(Executing { auxiliary_metadata, ..executing() }, "").unwrap();
        assert_eq!(assignment.origin.target.as_str(), "//a");
        assert_eq!(assignment.auxiliary_metadata.len(), 2);
        assert_eq!(parsed(executing(), "").unwrap().origin, Arc::default());
    }
}
