//! `ActionCache`: cached results, kept apart by instance name.

use std::convert::Infallible;
use std::sync::Arc;

use access::check_instance;
use model::foreign_result::{self, ResultRefused};
use model::proto::{Action, ActionResult, GetActionResultRequest, UpdateActionResultRequest};
use model::{Digest, EncodedResult};
use prost::Message as _;
use store::Store;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Code, Request, Response, Status};
use worker::{CacheError, Worker};

use crate::execution::MAX_ACTION_BYTES;
use crate::grpc::{Call, Encoded, Methods};
use crate::inline::{MAX_INLINED_BYTES, Wanted};
use crate::lookups::Lookups;
use crate::memory::Reservation;
use crate::offer::Offer;
use crate::{below, blocking, origin, request, status};

fn lookup_failed(error: &CacheError) -> Status {
    let code = match error {
        CacheError::Read { source, .. } | CacheError::ReadTree { source, .. } => {
            status::store(&**source).code()
        }
        CacheError::WouldWait => Code::Unavailable,
    };
    status::of_act(code, "the action cache", error)
}

/// The status of a result that a client uploads and that must not get into the cache.
fn refused(error: ResultRefused) -> Status {
    status::of(Code::InvalidArgument, &error)
}

fn not_cached(action: &Digest) -> Status {
    Status::not_found(format!("no cached result of action {action}"))
}

/// Whether results of an action may be kept. One whose Action is not here says nothing against it:
/// some clients upload results alone.
fn may_be_cached(store: &Store, action: &Digest) -> Result<bool, Status> {
    if action.size_bytes() > MAX_ACTION_BYTES {
        return Ok(true);
    }
    let blob = store.cas().read(action).map_err(status::store)?;
    let message = blob.and_then(|blob| Action::decode(blob).ok());
    Ok(message.is_none_or(|message| !message.do_not_cache))
}

/// The service.
#[derive(Clone)]
pub(crate) struct ActionCache {
    store: Arc<Store>,
    worker: Worker,
    lookups: Lookups,
    offer: Offer,
}

impl ActionCache {
    pub(crate) fn new(store: Arc<Store>, worker: Worker, lookups: Lookups, offer: Offer) -> Self {
        Self { store, worker, lookups, offer }
    }
}

impl Methods for ActionCache {
    const NAME: &'static str = "build.bazel.remote.execution.v2.ActionCache";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let reservation = call.reservation();
        match method {
            "GetActionResult" => call.unary(move |request| {
                self.clone().get_action_result(request, Arc::clone(&reservation))
            }),
            "UpdateActionResult" => call.unary(move |request| {
                self.clone().update_action_result(request, Arc::clone(&reservation))
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
        reservation: Arc<Reservation>,
    ) -> Result<Response<Encoded>, Status> {
        check_instance(request.extensions(), &request.get_ref().instance_name)?;
        let metadata = origin::encoded(request.metadata());
        let caller = origin::caller(request.extensions(), &metadata);
        let message = request.into_inner();
        let instance = request::instance_name(&self.offer, &message.instance_name)?;
        let action = request::action(
            message.action_digest.as_ref(),
            message.digest_function,
            &self.offer.functions,
            self.store.cas(),
        )?;
        let wanted =
            Wanted::new(message.inline_stdout, message.inline_stderr, message.inline_output_files);
        let answer = |result: &EncodedResult| Response::new(Encoded(result.message().clone()));
        if wanted.is_nothing()
            && let Ok(result) =
                self.worker.cached_result(&self.store.resident(), &instance, &action, &caller)
        {
            // Going to another thread and back would cost more than all else.
            match result {
                None if self.store.tier().is_some() => {}
                result => return result.as_ref().map(answer).ok_or_else(|| not_cached(&action)),
            }
        }
        below::fetch_result(&self.store, &self.worker, &instance, action, metadata).await?;
        // Lasts until the result was reserved for.
        let _turn = self.lookups.turn().await;
        let (store, worker) = (Arc::clone(&self.store), self.worker.clone());
        let result = blocking::run_for_caller(move |waiting| {
            let cached = worker.cached_result(&store.blocking(), &instance, &action, &caller);
            let cached = cached.map_err(|error| lookup_failed(&error))?;
            let result = cached.ok_or_else(|| not_cached(&action))?;
            let result_bytes = result.message().len() as u64;
            if wanted.is_nothing() {
                reservation.grow_by(result_bytes)?;
                return Ok(result);
            }
            reservation.grow_by(2 * result_bytes + MAX_INLINED_BYTES)?;
            wanted.fill(store.cas(), action.function(), &result, waiting)
        })
        .await?;
        Ok(answer(&result))
    }

    /// Takes a client's result, if its paths are paths, its digests are such, and the data inside of
    /// it is what they say. Whether the blobs are there is checked by every lookup. The result of an
    /// action that failed, or that may not be cached, is acknowledged and not kept, for neither is ever
    /// served; and the result before it goes, for that is how clients remove a wrong one.
    async fn update_action_result(
        self,
        request: Request<UpdateActionResultRequest>,
        reservation: Arc<Reservation>,
    ) -> Result<Response<ActionResult>, Status> {
        check_instance(request.extensions(), &request.get_ref().instance_name)?;
        let message = request.into_inner();
        let instance = request::instance_name(&self.offer, &message.instance_name)?;
        let action = request::action(
            message.action_digest.as_ref(),
            message.digest_function,
            &self.offer.functions,
            self.store.cas(),
        )?;
        let function = action.function();
        let result = message.action_result.ok_or(ResultRefused::Missing).map_err(refused)?;
        foreign_result::check(&result, function).map_err(refused)?;
        // The message, and the entry that is made of it.
        reservation.grow_by(2 * result.encoded_len() as u64)?;
        let (store, owner) = (Arc::clone(&self.store), instance.clone());
        let (result, is_kept) = blocking::run(move || {
            let cache = store.action_cache();
            if result.exit_code != 0 || !may_be_cached(&store, &action)? {
                cache.delete(instance.as_str(), &action).map_err(status::store)?;
                return Ok((result, false));
            }
            let (kept, data) = foreign_result::without_data(result, function);
            for data in data {
                store.cas().put(function, &data).map_err(status::store)?;
            }
            let entry = worker::entry_of_upload(&kept);
            cache.put(instance.as_str(), &action, &entry).map_err(status::store)?;
            store.make_durable().map_err(status::store)?;
            Ok((kept, true))
        })
        .await?;
        if let Some(tier) = self.store.tier().filter(|_| is_kept) {
            tier.publish(owner.as_str(), action).await;
        }
        Ok(Response::new(result))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_result_is_the_clients_fault() {
        let status = refused(ResultRefused::EmptyPath);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("empty"), "{status}");
    }
}
