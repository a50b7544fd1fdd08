//! `ContentAddressableStorage`: asking for blobs, and moving small ones in bulk.

mod batch;
mod chunking;
mod missing;
mod split;
mod tree;

pub(crate) use batch::{MAX_BATCH_TOTAL_SIZE_BYTES, OUTCOME_BYTES};
pub(crate) use chunking::{fast_cdc_parameters, rep_max_cdc_parameters};

use std::convert::Infallible;
use std::sync::Arc;

use model::DigestFunctions;
use store::Store;
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};

use crate::blocking;
use crate::grpc::{Call, Methods};

/// The service.
#[derive(Clone)]
pub(crate) struct ContentAddressableStorage {
    store: Arc<Store>,
    offered: DigestFunctions,
}

impl ContentAddressableStorage {
    pub(crate) fn new(store: Arc<Store>, offered: DigestFunctions) -> Self {
        Self { store, offered }
    }
}

impl Methods for ContentAddressableStorage {
    const NAME: &'static str = "build.bazel.remote.execution.v2.ContentAddressableStorage";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let Self { store, offered } = self;
        let (quota, reservation, caller) = (call.quota(), call.reservation(), call.caller(&store));
        match method {
            "FindMissingBlobs" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                let caller = caller.clone();
                async move {
                    let message = request.into_inner();
                    let missing = missing::find_missing_blobs(
                        &store,
                        &offered,
                        &reservation,
                        caller,
                        message,
                    )
                    .await?;
                    // Afterwards: what was found may have been stored just then.
                    blocking::make_durable(&store).await?;
                    Ok(missing)
                }
            }),
            "BatchUpdateBlobs" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                batch::update(store, reservation, offered, request.into_inner())
            }),
            "BatchReadBlobs" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                batch::read(store, reservation, offered, caller.clone(), request.into_inner())
            }),
            "SplitBlob" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                split::split(store, reservation, offered, request.into_inner())
            }),
            "SpliceBlob" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                async move {
                    let spliced = split::splice(
                        Arc::clone(&store),
                        reservation,
                        offered,
                        request.into_inner(),
                    );
                    let spliced = spliced.await?;
                    blocking::make_durable(&store).await?;
                    Ok(spliced)
                }
            }),
            "GetTree" => call.server_streaming(move |request: Request<_>| {
                let (store, quota) = (Arc::clone(&store), Arc::clone(&quota));
                tree::get_tree(store, quota, offered, caller.clone(), request.into_inner())
            }),
            _ => call.unimplemented(),
        }
    }
}
