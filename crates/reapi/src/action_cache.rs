//! `ActionCache`: cached results, kept apart by instance name.

use std::convert::Infallible;
use std::sync::Arc;

use model::proto::{ActionResult, GetActionResultRequest, UpdateActionResultRequest};
use model::{Digest, EncodedResult};
use prost::Message as _;
use store::Store;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Code, Request, Response, Status};
use worker::{CacheError, Worker};

use crate::grpc::{Call, Encoded, Methods};
use crate::inline::{MAX_INLINED_BYTES, Wanted};
use crate::memory::Loan;
use crate::uploaded_result::{self, ResultRefused};
use crate::{blocking, request, status};

fn lookup_failed(error: &CacheError) -> Status {
    let code = match error {
        CacheError::Read { source, .. } | CacheError::ReadTree { source, .. } => {
            status::store(&**source).code()
        }
        CacheError::WouldWait => Code::Unavailable,
    };
    status::of_act(code, "the action cache", error)
}

fn not_cached(action: &Digest) -> Status {
    Status::not_found(format!("no cached result of action {action}"))
}

/// The service.
#[derive(Clone)]
pub(crate) struct ActionCache {
    store: Arc<Store>,
    worker: Worker,
}

impl ActionCache {
    pub(crate) fn new(store: Arc<Store>, worker: Worker) -> Self {
        Self { store, worker }
    }
}

impl Methods for ActionCache {
    const NAME: &'static str = "build.bazel.remote.execution.v2.ActionCache";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let loan = call.loan();
        match method {
            "GetActionResult" => call
                .unary(move |request| self.clone().get_action_result(request, Arc::clone(&loan))),
            "UpdateActionResult" => call.unary(move |request| {
                self.clone().update_action_result(request, Arc::clone(&loan))
            }),
            _ => call.unimplemented(),
        }
    }
}

impl ActionCache {
    /// A hit is a result whose every blob is there; all else is NOT_FOUND.
    async fn get_action_result(
        self,
        request: Request<GetActionResultRequest>,
        loan: Arc<Loan>,
    ) -> Result<Response<Encoded>, Status> {
        let message = request.into_inner();
        let instance = request::instance_name(&message.instance_name)?;
        let action = request::action(
            message.action_digest.as_ref(),
            message.digest_function,
            self.store.cas(),
        )?;
        let wanted =
            Wanted::new(message.inline_stdout, message.inline_stderr, message.inline_output_files);
        let answer = |result: &EncodedResult| Response::new(Encoded(result.message().clone()));
        if wanted.is_nothing()
            && let Ok(result) =
                self.worker.cached_result(&self.store.resident(), &instance, &action)
        {
            // Going to another thread and back would cost more than all else.
            return result.as_ref().map(answer).ok_or_else(|| not_cached(&action));
        }
        let (store, worker) = (Arc::clone(&self.store), self.worker.clone());
        let result = blocking::run_for_caller(move |caller| {
            let cached = worker.cached_result(&store.blocking(), &instance, &action);
            let cached = cached.map_err(|error| lookup_failed(&error))?;
            let result = cached.ok_or_else(|| not_cached(&action))?;
            let result_bytes = result.message().len() as u64;
            if wanted.is_nothing() {
                loan.grow_by(result_bytes)?;
                return Ok(result);
            }
            loan.grow_by(2 * result_bytes + MAX_INLINED_BYTES)?;
            wanted.fill(store.cas(), action.function(), &result, caller)
        })
        .await?;
        Ok(answer(&result))
    }

    /// Takes a client's result, if its paths are paths, its digests are such, and the data inside of
    /// it is what they say. Whether the blobs are there is checked by every lookup. The result of a
    /// failed action is acknowledged and forgotten: clients send them, and a cache may forget,
    /// but a failure is never served as cached.
    async fn update_action_result(
        self,
        request: Request<UpdateActionResultRequest>,
        loan: Arc<Loan>,
    ) -> Result<Response<ActionResult>, Status> {
        let message = request.into_inner();
        let instance = request::instance_name(&message.instance_name)?;
        let function = request::function(message.digest_function)?;
        let action = request::digest("action_digest", message.action_digest.as_ref(), function)?;
        let result = message.action_result.ok_or(ResultRefused::Missing)?;
        uploaded_result::check(&result, function)?;
        if result.exit_code != 0 {
            return Ok(Response::new(result));
        }
        // The message, and the entry that is made of it.
        loan.grow_by(2 * result.encoded_len() as u64)?;
        let store = Arc::clone(&self.store);
        let result = blocking::run(move || {
            let kept = uploaded_result::without_data(result, function, store.cas());
            let kept = kept.map_err(status::store)?;
            let (entry, cache) = (kept.encode_to_vec(), store.action_cache());
            cache.put(instance.as_str(), &action, &entry).map_err(status::store)?;
            Ok(kept)
        })
        .await?;
        Ok(Response::new(result))
    }
}
