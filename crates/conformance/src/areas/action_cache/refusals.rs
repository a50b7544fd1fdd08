//! Results that are not kept, and malformed updates.

use testkit::proto;
use tonic::Code;

use super::completeness::refuse_or_miss;
use super::requests::{action, look, some_action, update, update_request, worked};
use crate::check::{Check, Outcome, must, should};
use crate::expect::refused;
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
    must!(
        a_failed_result_is_not_served,
        "ExecuteResponse.status",
        "If the status code is other than `OK`, then the result MUST NOT be cached."
    ),
    should!(
        a_failed_result_removes_the_one_before,
        "ActionCache.UpdateActionResult",
        "Upload a new execution result."
    ),
    must!(
        an_action_that_may_not_be_cached_is_not_served,
        "Action.do_not_cache",
        "If true, then the `Action`'s result cannot be cached, and in-flight requests for the same `Action` may not be merged."
    ),
    must!(
        an_update_without_a_result_is_refused,
        "ActionCache.UpdateActionResult",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    must!(
        an_update_with_a_bad_digest_is_refused,
        "ActionCache.UpdateActionResult",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    must!(
        an_update_of_a_bad_action_digest_is_refused,
        "ActionCache.UpdateActionResult",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
];

fn failed() -> proto::ActionResult {
    proto::ActionResult { exit_code: 1, ..worked() }
}

async fn a_failed_result_is_not_served(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    refuse_or_miss(&server, &action, failed()).await
}

async fn a_failed_result_removes_the_one_before(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    update(&server, &action, worked()).await?;
    look(&server, &action, |_| ()).await?;
    refuse_or_miss(&server, &action, failed()).await
}

async fn an_action_that_may_not_be_cached_is_not_served(server: Server) -> Outcome {
    let function = server.client.function();
    let action = action(&server, function, |action| action.do_not_cache = true).await?;
    refuse_or_miss(&server, &action, worked()).await
}

async fn an_update_without_a_result_is_refused(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let request = proto::UpdateActionResultRequest {
        action_result: None,
        ..update_request(&server, &action, worked())
    };
    let answer = server.client.action_cache().update_action_result(request).await;
    refused(answer, &[Code::InvalidArgument])?;
    Ok(())
}

async fn an_update_with_a_bad_digest_is_refused(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let digest = proto::Digest { hash: "not a hash".to_owned(), size_bytes: 1 };
    let result = proto::ActionResult { stdout_digest: Some(digest), ..worked() };
    refused(update(&server, &action, result).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn an_update_of_a_bad_action_digest_is_refused(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let digest = proto::Digest { hash: "not a hash".to_owned(), size_bytes: 1 };
    let request = proto::UpdateActionResultRequest {
        action_digest: Some(digest),
        ..update_request(&server, &action, worked())
    };
    let answer = server.client.action_cache().update_action_result(request).await;
    refused(answer, &[Code::InvalidArgument])?;
    Ok(())
}
