//! `google.longrunning.Operations`, for the operations of `Execution`: looking,
//! waiting, cancelling. They are neither listed (an operation's name is known to
//! those who may use it) nor deleted (the worker forgets them by itself).

use std::time::Duration;

use bazel_remote_apis::google::longrunning::operations_server::Operations as OperationsService;
use bazel_remote_apis::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, Operation, WaitOperationRequest,
};
use bazel_remote_apis::google::protobuf::Empty;
use tonic::{Request, Response, Status};
use worker::{Subscription, Worker};

use crate::execution::operation;
use crate::status;

/// The longest a call waits; the client may ask again. Without a bound, calls of
/// clients that are gone would pile up.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The service.
pub(crate) struct Operations {
    worker: Worker,
}

impl Operations {
    pub(crate) fn new(worker: Worker) -> Self {
        Self { worker }
    }

    fn attach(&self, name: &str) -> Result<Subscription, Status> {
        self.worker
            .attach(name)
            .ok_or_else(|| status::operation_not_found(name))
    }
}

#[tonic::async_trait]
impl OperationsService for Operations {
    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let name = &request.get_ref().name;
        let state = self.attach(name)?.next().await;
        let state = state.ok_or_else(|| status::operation_not_found(name))?;
        Ok(Response::new(operation(name, &state)))
    }

    async fn wait_operation(
        &self,
        request: Request<WaitOperationRequest>,
    ) -> Result<Response<Operation>, Status> {
        let message = request.get_ref();
        let mut subscription = self.attach(&message.name)?;
        let mut latest = subscription.next().await;
        let end = async {
            while let Some(state) = subscription.next().await {
                latest = Some(state);
            }
        };
        // Running out of time is fine: the answer is the state by then.
        let _ = tokio::time::timeout(wait(message), end).await;
        let state = latest.ok_or_else(|| status::operation_not_found(&message.name))?;
        Ok(Response::new(operation(&message.name, &state)))
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        let name = &request.get_ref().name;
        if !self.worker.cancel(name) {
            return Err(status::operation_not_found(name));
        }
        Ok(Response::new(Empty {}))
    }

    async fn list_operations(
        &self,
        _request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        Err(Status::unimplemented("operations are not listed"))
    }

    async fn delete_operation(
        &self,
        _request: Request<DeleteOperationRequest>,
    ) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented(
            "operations are forgotten by themselves",
        ))
    }
}

fn wait(message: &WaitOperationRequest) -> Duration {
    let asked = message.timeout.as_ref().map(|timeout| {
        let seconds = u64::try_from(timeout.seconds).unwrap_or(0);
        Duration::new(
            seconds,
            u32::try_from(timeout.nanos).unwrap_or(0).min(999_999_999),
        )
    });
    asked.unwrap_or(MAX_WAIT).min(MAX_WAIT)
}
