//! The action of a lease, validated, and the result of one.

use std::sync::Arc;

use model::proto::{Action, Any, ExecuteResponse, Message as _};
use model::{Digest, DigestFunctions, InstanceName, proto};
use proto::google::devtools::remoteworkers::v1test2::{Lease, LeaseState};

use crate::assignment::{Assignment, AssignmentError};

/// The end of the type of a lease's payload: the action itself.
const ACTION: &str = "build.bazel.remote.execution.v2.Action";

/// Another one: its digest.
const DIGEST: &str = "build.bazel.remote.execution.v2.Digest";

/// The type of a lease's result.
const ACTION_RESULT: &str = "type.googleapis.com/build.bazel.remote.execution.v2.ActionResult";

/// The action of a lease for a worker with that instance name and these digest functions.
pub(super) fn parse(
    payload: Option<Any>,
    instance: &InstanceName,
    functions: &DigestFunctions,
) -> Result<Assignment, AssignmentError> {
    let payload = payload.ok_or(AssignmentError::NoAction)?;
    let name = payload.type_url.rsplit('/').next().unwrap_or_default();
    let (action, message) = match name {
        // The protocol does not say which function the digests are of, so their lengths have to.
        ACTION => {
            let action = Action::decode(&payload.value[..])?;
            let command = action.command_digest.ok_or(AssignmentError::NoCommand)?;
            let function = functions.infer(command.hash.len())?;
            (Digest::of(function, &payload.value), Some(payload.value.into()))
        }
        DIGEST => {
            let digest = proto::Digest::decode(&payload.value[..])?;
            let function = functions.infer(digest.hash.len())?;
            (Digest::from_proto(&digest, function)?, None)
        }
        other => return Err(AssignmentError::Payload(other.chars().take(NAME_CHARS).collect())),
    };
    Ok(Assignment {
        action,
        message,
        instance: instance.clone(),
        origin: Arc::default(),
        queued: None,
        auxiliary_metadata: Vec::new(),
    })
}

/// The characters of a type's name that an error repeats.
const NAME_CHARS: usize = 100;

/// The lease with the answer of its action. The status of the answer is that of the lease: BuildGrid gives clients
/// this status, and tries an action again elsewhere whose lease ended with UNAVAILABLE or INTERNAL.
pub(super) fn completed(id: String, response: ExecuteResponse) -> Lease {
    let result = response
        .result
        .map(|result| Any { type_url: ACTION_RESULT.to_owned(), value: result.encode_to_vec() });
    Lease {
        id,
        state: LeaseState::Completed.into(),
        status: Some(response.status.unwrap_or_default()),
        result,
        ..Lease::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DigestFunction;
    use model::proto::ActionResult;

    fn parsed(type_url: &str, value: Vec<u8>) -> Result<Assignment, AssignmentError> {
        let payload = Any { type_url: type_url.to_owned(), value };
        let functions = DigestFunctions::of([DigestFunction::Sha256]);
        parse(Some(payload), &InstanceName::parse("a/b").unwrap(), &functions)
    }

    fn action() -> Vec<u8> {
        let command = Digest::of(DigestFunction::Sha256, b"command").to_proto();
        Action { command_digest: Some(command), ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn an_action_comes_with_the_lease_or_by_its_digest() {
        let encoded = action();
        let digest = Digest::of(DigestFunction::Sha256, &encoded);
        for host in ["type.googleapis.com/", ""] {
            let with = parsed(&format!("{host}{ACTION}"), encoded.clone()).unwrap();
            assert_eq!((with.action, with.message.as_deref()), (digest, Some(&encoded[..])));
            assert_eq!(with.instance.as_str(), "a/b");
            let by = parsed(&format!("{host}{DIGEST}"), digest.to_proto().encode_to_vec()).unwrap();
            assert_eq!((by.action, by.message), (digest, None));
        }
    }

    #[test]
    fn what_a_scheduler_must_not_send_is_refused() {
        let long = "x".repeat(1_000);
        let refused = parsed(&long, action()).unwrap_err();
        assert_eq!(refused, AssignmentError::Payload("x".repeat(NAME_CHARS)));
        let broken = parsed(ACTION, b"\xff".to_vec()).unwrap_err();
        assert!(matches!(broken, AssignmentError::Encoding(_)), "{broken}");
        assert_eq!(parsed(ACTION, Vec::new()).unwrap_err(), AssignmentError::NoCommand);
        for hash in ["", "../x", &"z".repeat(64), &"0".repeat(128)] {
            let digest = proto::Digest { hash: hash.to_owned(), size_bytes: 1 };
            let refused = parsed(DIGEST, digest.encode_to_vec()).unwrap_err();
            assert!(matches!(refused, AssignmentError::Digest(_)), "{refused}");
        }
        let instance = InstanceName::default();
        let nothing = parse(None, &instance, &DigestFunctions::default()).unwrap_err();
        assert_eq!(nothing, AssignmentError::NoAction);
    }

    #[test]
    fn a_completed_lease_has_the_status_and_the_result() {
        let result = ActionResult { exit_code: 3, ..Default::default() };
        let status = model::proto::google::rpc::Status { code: 4, ..Default::default() };
        let response = ExecuteResponse {
            result: Some(result.clone()),
            status: Some(status.clone()),
            ..Default::default()
        };
        let lease = completed("id".to_owned(), response);
        assert_eq!((lease.state(), lease.status), (LeaseState::Completed, Some(status)));
        let any = lease.result.unwrap();
        assert_eq!(any.type_url, ACTION_RESULT);
        assert_eq!(ActionResult::decode(&any.value[..]).unwrap(), result);
        let empty = completed("id".to_owned(), ExecuteResponse::default());
        assert_eq!(empty.status, Some(Default::default()), "a completed lease has a status");
        assert_eq!(empty.result, None);
    }
}
