//! Results that are kept and served.

use anyhow::ensure;
use testkit::{Digest, proto};

use super::requests::{
    action, is_a_miss, look, some_action, update, update_request, with_file, worked,
};
use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::same;
use crate::server::{Server, unique};

pub(super) const CHECKS: &[Check] = &[
    must!(
        an_unknown_action_is_not_found,
        "ActionCache.GetActionResult",
        "`NOT_FOUND`: The requested `ActionResult` is not in the cache."
    ),
    must!(
        a_result_is_kept_and_served,
        "UpdateActionResultRequest.action_result",
        "to store in the cache."
    ),
    must!(
        an_update_answers_with_the_result,
        "ActionCache.UpdateActionResult",
        "Server implementations MAY modify the `UpdateActionResultRequest.action_result` and return an equivalent value."
    ),
    must!(
        a_result_replaces_the_one_before,
        "ActionCache.UpdateActionResult",
        "Upload a new execution result."
    ),
    must!(
        results_of_functions_are_apart,
        "GetActionResultRequest.digest_function",
        "The digest function that was used to compute the action digest."
    ),
    should!(
        the_digest_function_is_inferred_for_lookups,
        "GetActionResultRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the action digest hash and the digest functions announced in the server's capabilities."
    ),
    should!(
        the_digest_function_is_inferred_for_updates,
        "UpdateActionResultRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the action digest hash and the digest functions announced in the server's capabilities."
    ),
    should!(
        the_digest_function_of_updates_is_that_of_lookups,
        "UpdateActionResultRequest.digest_function",
        "The digest function that was used to compute the action digest."
    ),
];

async fn an_unknown_action_is_not_found(server: Server) -> Outcome {
    let absent = server.client.digest(unique("absent"));
    is_a_miss(&server, &absent).await
}

async fn a_result_is_kept_and_served(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let file = server.client.put(unique("out")).await?;
    update(&server, &action, with_file(&file)).await?;
    let served = look(&server, &action, |_| ()).await?;
    same("output_files", served.output_files, with_file(&file).output_files)?;
    same("exit_code", served.exit_code, 0)
}

async fn an_update_answers_with_the_result(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let file = server.client.put(unique("out")).await?;
    let answer = update(&server, &action, with_file(&file)).await?;
    same("output_files", answer.output_files, with_file(&file).output_files)
}

async fn a_result_replaces_the_one_before(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    for _ in 0..2 {
        let file = server.client.put(unique("out")).await?;
        update(&server, &action, with_file(&file)).await?;
        let served = look(&server, &action, |_| ()).await?;
        same("output_files", served.output_files, with_file(&file).output_files)?;
    }
    Ok(())
}

async fn results_of_functions_are_apart(server: Server) -> Outcome {
    let functions = server.functions();
    let [one, other, ..] = functions[..] else {
        return skip("fewer than two announced digest functions are known here");
    };
    let action = action(&server, one, |_| ()).await?;
    update(&server, &action, worked()).await?;
    let digest = Digest::parse_hex(other, &action.hex(), action.size_bytes())?;
    is_a_miss(&server, &digest).await
}

async fn the_digest_function_is_inferred_for_lookups(server: Server) -> Outcome {
    server.infers()?;
    let action = some_action(&server).await?;
    update(&server, &action, worked()).await?;
    look(&server, &action, |request| request.digest_function = 0).await?;
    Ok(())
}

async fn update_without_function(server: &Server, action: &Digest) -> Outcome {
    let request = proto::UpdateActionResultRequest {
        digest_function: 0,
        ..update_request(server, action, worked())
    };
    server.client.action_cache().update_action_result(request).await?;
    Ok(())
}

async fn the_digest_function_is_inferred_for_updates(server: Server) -> Outcome {
    server.infers()?;
    let action = some_action(&server).await?;
    update_without_function(&server, &action).await?;
    look(&server, &action, |_| ()).await?;
    Ok(())
}

/// Clients that use BLAKE3 need not say so, for some of them do not: a result that such a client keeps must
/// be found by the same client.
async fn the_digest_function_of_updates_is_that_of_lookups(server: Server) -> Outcome {
    for function in server.functions() {
        let action = action(&server, function, |_| ()).await?;
        update_without_function(&server, &action).await?;
        let found = look(&server, &action, |request| request.digest_function = 0).await;
        ensure!(found.is_ok(), "{function}: {:?}", found.map(|_| ()));
    }
    Ok(())
}
