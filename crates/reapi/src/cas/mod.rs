//! `ContentAddressableStorage`: asking for blobs, and moving small ones in bulk.

mod batch;
mod missing;
mod tree;

pub(crate) use batch::{MAX_BATCH_TOTAL_SIZE_BYTES, OUTCOME_BYTES};

use std::convert::Infallible;
use std::sync::Arc;

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
}

impl ContentAddressableStorage {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Methods for ContentAddressableStorage {
    const NAME: &'static str = "build.bazel.remote.execution.v2.ContentAddressableStorage";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let store = self.store;
        let (account, loan) = (call.account(), call.loan());
        match method {
            "FindMissingBlobs" => call.unary(move |request: Request<_>| {
                std::future::ready(blocking::presence(&store, || {
                    missing::find_missing_blobs(&store, request.into_inner())
                }))
            }),
            "BatchUpdateBlobs" => call.unary(move |request: Request<_>| {
                batch::update(Arc::clone(&store), Arc::clone(&loan), request.into_inner())
            }),
            "BatchReadBlobs" => call.unary(move |request: Request<_>| {
                batch::read(Arc::clone(&store), Arc::clone(&loan), request.into_inner())
            }),
            "GetTree" => call.server_streaming(move |request: Request<_>| {
                tree::get_tree(Arc::clone(&store), Arc::clone(&account), request.into_inner())
            }),
            _ => call.unimplemented(),
        }
    }
}
