//! `ActionCache`: cached results, kept apart by instance name.

use std::convert::Infallible;
use std::sync::Arc;

use model::proto::{ActionResult, GetActionResultRequest, UpdateActionResultRequest};
use model::result::referenced_digests;
use model::{Digest, DigestError};
use prost::Message as _;
use store::Store;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Code, Request, Response, Status};
use worker::{CacheError, Worker};

use crate::grpc::{Call, Methods};
use crate::inline::Wanted;
use crate::{blocking, request, status};

/// Why an update is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum ResultRefused {
    /// There is no result in it.
    #[error("action_result: the result is missing")]
    Missing,
    /// The result names a blob by something that is no digest.
    #[error("action_result")]
    Digest(#[from] DigestError),
}

impl From<ResultRefused> for Status {
    fn from(error: ResultRefused) -> Self {
        status::of(Code::InvalidArgument, &error)
    }
}

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
        match method {
            "GetActionResult" => call.unary(move |request| self.clone().get_action_result(request)),
            "UpdateActionResult" => {
                call.unary(move |request| self.clone().update_action_result(request))
            }
            _ => call.unimplemented(),
        }
    }
}

impl ActionCache {
    /// A hit is a result whose every blob is there; all else is NOT_FOUND.
    async fn get_action_result(
        self,
        request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let message = request.into_inner();
        let instance = request::instance_name(&message.instance_name)?;
        let action = request::action(
            message.action_digest.as_ref(),
            message.digest_function,
            self.store.cas(),
        )?;
        let wanted = Wanted {
            stdout: message.inline_stdout,
            stderr: message.inline_stderr,
            output_files: message.inline_output_files,
        };
        if wanted.is_nothing()
            && let Ok(result) =
                self.worker.cached_result(&self.store.resident(), &instance, &action)
        {
            // Going to another thread and back would cost more than all else.
            return result.map(Response::new).ok_or_else(|| not_cached(&action));
        }
        let (store, worker) = (Arc::clone(&self.store), self.worker.clone());
        let result = blocking::run(move || {
            let cached = worker.cached_result(&store.blocking(), &instance, &action);
            let cached = cached.map_err(|error| lookup_failed(&error))?;
            let mut result = cached.ok_or_else(|| not_cached(&action))?;
            if !wanted.is_nothing() {
                wanted.fill(store.cas(), action.function(), &mut result)?;
            }
            Ok(result)
        })
        .await?;
        Ok(Response::new(result))
    }

    /// Takes a client's result, if all its digests are such. Whether the blobs
    /// are there is checked by every lookup. The result of a failed action is
    /// acknowledged and forgotten: clients send them, and a cache may forget,
    /// but a failure is never served as cached.
    async fn update_action_result(
        self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let message = request.into_inner();
        let instance = request::instance_name(&message.instance_name)?;
        let function = request::function(message.digest_function)?;
        let action = request::digest("action_digest", message.action_digest.as_ref(), function)?;
        let result = message.action_result.ok_or(ResultRefused::Missing)?;
        referenced_digests(&result, function).map_err(ResultRefused::Digest)?;
        if result.exit_code != 0 {
            return Ok(Response::new(result));
        }
        let store = Arc::clone(&self.store);
        let result = blocking::run(move || {
            let put = store.action_cache().put(instance.as_str(), &action, &result.encode_to_vec());
            put.map(|()| result).map_err(status::store)
        })
        .await?;
        Ok(Response::new(result))
    }
}
