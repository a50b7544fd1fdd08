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

use store::Store;
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};

use crate::blocking;
use crate::grpc::{Call, Methods};
use crate::offer::Offer;

/// The service.
#[derive(Clone)]
pub(crate) struct ContentAddressableStorage {
    store: Arc<Store>,
    offer: Offer,
}

impl ContentAddressableStorage {
    pub(crate) fn new(store: Arc<Store>, offer: Offer) -> Self {
        Self { store, offer }
    }
}

impl Methods for ContentAddressableStorage {
    const NAME: &'static str = "build.bazel.remote.execution.v2.ContentAddressableStorage";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let Self { store, offer } = self;
        let (quota, reservation, caller) = (call.quota(), call.reservation(), call.caller(&store));
        match method {
            "FindMissingBlobs" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                let offer = offer.clone();
                let caller = caller.clone();
                async move {
                    let message = request.into_inner();
                    let missing =
                        missing::find_missing_blobs(&store, &offer, &reservation, caller, message)
                            .await?;
                    // Afterwards: what was found may have been stored just then.
                    blocking::make_durable(&store).await?;
                    Ok(missing)
                }
            }),
            "BatchUpdateBlobs" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                let offer = offer.clone();
                batch::update(store, reservation, offer, request.into_inner())
            }),
            "BatchReadBlobs" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                let offer = offer.clone();
                batch::read(store, reservation, offer, caller.clone(), request.into_inner())
            }),
            "SplitBlob" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                let offer = offer.clone();
                split::split(store, reservation, offer, request.into_inner())
            }),
            "SpliceBlob" => call.unary(move |request: Request<_>| {
                let (store, reservation) = (Arc::clone(&store), Arc::clone(&reservation));
                let offer = offer.clone();
                async move {
                    let spliced =
                        split::splice(Arc::clone(&store), reservation, offer, request.into_inner());
                    let spliced = spliced.await?;
                    blocking::make_durable(&store).await?;
                    Ok(spliced)
                }
            }),
            "GetTree" => call.server_streaming(move |request: Request<_>| {
                let (store, quota, offer) = (Arc::clone(&store), Arc::clone(&quota), offer.clone());
                tree::get_tree(store, quota, offer, caller.clone(), request.into_inner())
            }),
            _ => call.unimplemented(),
        }
    }
}
