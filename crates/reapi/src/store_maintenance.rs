//! `actiond.internal.v1.Store`: the maintenance of the store beside the clients' work.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use history::{Archive, AskError};
use proto::actiond::internal::v1::{
    CollectGarbageRequest, GetUsageRequest, ListBlobsRequest, Usage, VerifyRequest,
};
use store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Code, Response, Status};

use crate::by_target::ByTargetError;
use crate::grpc::{Call, Methods};
use crate::history::not_asked;
use crate::{blocking, by_target, maintenance, status};

/// Responses that wait for a slow client; the work waits then.
const RESPONSES_WAITING: usize = 4;

/// Why the history gives no more records.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    History(AskError),
    #[error("the client has left")]
    CallerGone,
}

/// The service.
#[derive(Clone)]
pub(crate) struct StoreMaintenance {
    store: Arc<Store>,
    archive: Archive,
    /// One at a time: more would only wait for each other's disk, and each holds a thread.
    turn: Arc<Semaphore>,
}

impl StoreMaintenance {
    pub(crate) fn new(store: Arc<Store>, archive: Archive) -> Self {
        Self { store, archive, turn: Arc::new(Semaphore::new(1)) }
    }

    fn begin(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.turn).try_acquire_owned().map_err(|_| {
            Status::failed_precondition(
                "the store is being listed, grouped by target, verified or emptied already; try again later",
            )
        })
    }

    /// The use of the store by kind, age and size, and by target.
    async fn usage_by_target(self) -> Result<Usage, Status> {
        let permit = self.begin()?;
        blocking::run_for_caller(move |caller| {
            let _permit = permit;
            let mut usage = maintenance::usage(&self.store);
            let mut read = |page| {
                if caller.is_gone() {
                    return Err(Unanswered::CallerGone);
                }
                self.archive.ask(|reader| reader.recent(page)).map_err(Unanswered::History)
            };
            match by_target::add_targets(&self.store, &mut usage, &mut read) {
                Ok(()) => Ok(usage),
                Err(ByTargetError::Store(error)) => Err(status::store(error)),
                Err(ByTargetError::History(Unanswered::History(error))) => Err(not_asked(&error)),
                Err(ByTargetError::History(error)) => Err(status::of(Code::Cancelled, &error)),
            }
        })
        .await
    }

    /// Runs `work` on a thread of its own, with where to send its responses. `work` ends when the
    /// client is gone.
    fn stream<T: Send + 'static>(
        self,
        work: impl FnOnce(&Store, &mut dyn FnMut(T) -> ControlFlow<()>) -> Result<(), Status>
        + Send
        + 'static,
    ) -> Result<Response<ReceiverStream<Result<T, Status>>>, Status> {
        let permit = self.begin()?;
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
            "GetUsage" => call.unary(move |request: tonic::Request<GetUsageRequest>| {
                let this = self.clone();
                async move {
                    let usage = if request.into_inner().by_target {
                        this.usage_by_target().await?
                    } else {
                        blocking::run(move || Ok(maintenance::usage(&this.store))).await?
                    };
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
