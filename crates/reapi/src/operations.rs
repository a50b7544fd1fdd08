//! `google.longrunning.Operations`, for the operations of `Execution`: looking,
//! listing, waiting, cancelling. They are not deleted: the worker forgets them by
//! itself.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use proto::google::longrunning::{
    CancelOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
    Operation, WaitOperationRequest,
};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Code, Request, Response, Status};
use worker::{Subscription, Worker};

use crate::grpc::{Call, Methods};
use crate::memory::Loan;
use crate::operation::{UnknownOperation, message};

/// The longest a call waits; the client may ask again. Without a bound, calls of
/// clients that are gone would pile up.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Operations in one page of a list. Those that are over hold a result each, of
/// some kilobytes.
const MAX_PAGE: usize = 100;

/// The service.
#[derive(Clone)]
pub(crate) struct Operations {
    worker: Worker,
}

impl Operations {
    pub(crate) fn new(worker: Worker) -> Self {
        Self { worker }
    }

    fn attach(&self, name: &str) -> Result<Subscription, UnknownOperation> {
        self.worker.attach(name).ok_or_else(|| UnknownOperation::new(name))
    }

    /// An operation's present state.
    async fn look(&self, name: &str, loan: &Loan) -> Result<Operation, Status> {
        let state = self.attach(name)?.next().await;
        let state = state.ok_or_else(|| UnknownOperation::new(name))?;
        loan.grow_by(state.memory_bytes())?;
        Ok(message(name, &state))
    }
}

impl Methods for Operations {
    const NAME: &'static str = "google.longrunning.Operations";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let loan = call.loan();
        match method {
            "GetOperation" => {
                call.unary(move |request| self.clone().get_operation(request, Arc::clone(&loan)))
            }
            "WaitOperation" => {
                call.unary(move |request| self.clone().wait_operation(request, Arc::clone(&loan)))
            }
            "CancelOperation" => call.unary(move |request| ready(self.cancel_operation(&request))),
            "ListOperations" => {
                call.unary(move |request| self.clone().list_operations(request, Arc::clone(&loan)))
            }
            _ => call.unimplemented(),
        }
    }
}

impl Operations {
    async fn get_operation(
        self,
        request: Request<GetOperationRequest>,
        loan: Arc<Loan>,
    ) -> Result<Response<Operation>, Status> {
        Ok(Response::new(self.look(&request.get_ref().name, &loan).await?))
    }

    async fn wait_operation(
        self,
        request: Request<WaitOperationRequest>,
        loan: Arc<Loan>,
    ) -> Result<Response<Operation>, Status> {
        let request = request.get_ref();
        let mut subscription = self.attach(&request.name)?;
        let mut latest = subscription.next().await;
        let end = async {
            while let Some(state) = subscription.next().await {
                latest = Some(state);
            }
        };
        // Running out of time is fine: the answer is the state by then.
        let _ = tokio::time::timeout(wait(request), end).await;
        let state = latest.ok_or_else(|| UnknownOperation::new(&request.name))?;
        // The state, which may be forgotten elsewhere by now, and the message.
        loan.grow_by(2 * state.memory_bytes())?;
        Ok(Response::new(message(&request.name, &state)))
    }

    fn cancel_operation(
        &self,
        request: &Request<CancelOperationRequest>,
    ) -> Result<Response<()>, Status> {
        let name = &request.get_ref().name;
        if !self.worker.cancel(name) {
            return Err(UnknownOperation::new(name).into());
        }
        Ok(Response::new(()))
    }

    async fn list_operations(
        self,
        request: Request<ListOperationsRequest>,
        loan: Arc<Loan>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let mut names = self.worker.operation_names();
        let next_page_token = page(&mut names, request.page_size, &request.page_token);
        let mut operations = Vec::new();
        for name in names {
            match self.look(&name, &loan).await {
                Ok(operation) => operations.push(operation),
                // It was forgotten meanwhile.
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        Ok(Response::new(ListOperationsResponse {
            operations,
            next_page_token,
            ..ListOperationsResponse::default()
        }))
    }
}

/// Cuts `names` down to the page behind `token`, the last name of the page before,
/// and returns the token of the next page.
fn page(names: &mut Vec<String>, size: i32, token: &str) -> String {
    names.retain(|name| name.as_str() > token);
    names.sort_unstable();
    let size = usize::try_from(size).ok().filter(|&size| size > 0);
    let size = size.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    if names.len() <= size {
        return String::new();
    }
    names.truncate(size);
    names.last().cloned().unwrap_or_default()
}

fn wait(message: &WaitOperationRequest) -> Duration {
    let asked = message.timeout.as_ref().map(|timeout| {
        let seconds = u64::try_from(timeout.seconds).unwrap_or(0);
        Duration::new(seconds, u32::try_from(timeout.nanos).unwrap_or(0).min(999_999_999))
    });
    asked.unwrap_or(MAX_WAIT).min(MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let names = || ["d", "b", "a", "c", "e"].map(str::to_owned).to_vec();
        let check = |size, token, expected: &[&str], next| {
            let mut names = names();
            assert_eq!(page(&mut names, size, token), next);
            assert_eq!(names, expected);
        };
        check(2, "", &["a", "b"], "b");
        check(2, "b", &["c", "d"], "d");
        check(2, "d", &["e"], "");
        check(5, "", &["a", "b", "c", "d", "e"], "");
        check(0, "a", &["b", "c", "d", "e"], "");
        check(-1, "z", &[], "");
    }
}
