//! `actiond.internal.v1.Store`: the maintenance of the store beside the clients' work.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use proto::actiond::internal::v1::{
    CollectGarbageRequest, GetUsageRequest, ListBlobsRequest, VerifyRequest,
};
use store::Store;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Response, Status};

use crate::grpc::{Call, Methods};
use crate::{blocking, maintenance, status};

/// Responses that wait for a slow client; the work waits then.
const RESPONSES_WAITING: usize = 4;

/// The service.
#[derive(Clone)]
pub(crate) struct StoreMaintenance {
    store: Arc<Store>,
    /// One at a time: more would only wait for each other's disk, and each holds a thread.
    turn: Arc<Semaphore>,
}

impl StoreMaintenance {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Runs `work` on a thread of its own, with where to send its responses. `work` ends when the
    /// client is gone.
    fn stream<T: Send + 'static>(
        self,
        work: impl FnOnce(&Store, &mut dyn FnMut(T) -> ControlFlow<()>) -> Result<(), Status>
        + Send
        + 'static,
    ) -> Result<Response<ReceiverStream<Result<T, Status>>>, Status> {
        let permit = self.turn.try_acquire_owned().map_err(|_| {
            Status::failed_precondition("the store is being listed, verified or emptied already")
        })?;
        let (sender, receiver) = mpsc::channel(RESPONSES_WAITING);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut send = |response| match sender.blocking_send(Ok(response)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            if let Err(error) = work(&self.store, &mut send) {
                // An error means that the client is gone.
                let _ = sender.blocking_send(Err(error));
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl Methods for StoreMaintenance {
    const NAME: &'static str = "actiond.internal.v1.Store";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        match method {
            "GetUsage" => call.unary(move |_: tonic::Request<GetUsageRequest>| {
                let store = Arc::clone(&self.store);
                async move {
                    let usage = blocking::run(move || Ok(maintenance::usage(&store))).await?;
                    Ok(Response::new(usage))
                }
            }),
            "ListBlobs" => {
                call.server_streaming(move |request: tonic::Request<ListBlobsRequest>| {
                    let this = self.clone();
                    async move {
                        let request = request.into_inner();
                        this.stream(move |store, send| {
                            maintenance::list(store, &request, send);
                            Ok(())
                        })
                    }
                })
            }
            "CollectGarbage" => {
                call.server_streaming(move |request: tonic::Request<CollectGarbageRequest>| {
                    let this = self.clone();
                    async move {
                        let request = request.into_inner();
                        this.stream(move |store, send| {
                            maintenance::collect_garbage(store, &request, send)
                                .map_err(status::store)
                        })
                    }
                })
            }
            "Verify" => call.server_streaming(move |_: tonic::Request<VerifyRequest>| {
                let this = self.clone();
                async move {
                    this.stream(|store, send| {
                        maintenance::verify(store, send).map_err(status::store)
                    })
                }
            }),
            _ => call.unimplemented(),
        }
    }
}
