//! `google.longrunning.Operations`, for the operations of `Execution`: looking,
//! listing, waiting, cancelling, deleting. The worker forgets old ones by itself.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use access::Permit;
use prost::Message as _;
use proto::google::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    ListOperationsResponse, Operation, WaitOperationRequest,
};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Extensions, Request, Response, Status};
use worker::{Forgotten, Subscription, Worker};

use crate::grpc::{Call, Methods};
use crate::memory::Reservation;
use crate::operation::{UnknownOperation, message};
use crate::operation_filter::Filter;

/// The longest a call waits; the client may ask again. Without a bound, calls of
/// clients that are gone would pile up.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Operations in one page of a list.
const MAX_PAGE: usize = 100;

/// Bytes in one page of a list: half of what gRPC clients take by default. Those that are over hold a
/// result each, of some kilobytes or of megabytes; a larger one has a page of its own.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// The last part of the name of the collection that holds the operations of an instance.
const COLLECTION: &str = "operations";

/// The service.
#[derive(Clone)]
pub(crate) struct Operations {
    worker: Worker,
}

impl Operations {
    pub(crate) fn new(worker: Worker) -> Self {
        Self { worker }
    }

    fn attach(
        &self,
        extensions: &Extensions,
        name: &str,
    ) -> Result<Subscription, UnknownOperation> {
        check_visible(&self.worker, extensions, name)?;
        self.worker.attach(name).ok_or_else(|| UnknownOperation::new(name))
    }

    /// An operation's present state.
    fn look(
        &self,
        extensions: &Extensions,
        name: &str,
        reservation: &Reservation,
    ) -> Result<Operation, Status> {
        check_visible(&self.worker, extensions, name)?;
        let state = self.worker.latest(name).ok_or_else(|| UnknownOperation::new(name))?;
        reservation.grow_by(state.memory_bytes())?;
        Ok(message(name, &state))
    }
}

impl Methods for Operations {
    const NAME: &'static str = "google.longrunning.Operations";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let reservation = call.reservation();
        match method {
            "GetOperation" => {
                call.unary(move |request| ready(self.get_operation(&request, &reservation)))
            }
            "WaitOperation" => call.unary(move |request| {
                self.clone().wait_operation(request, Arc::clone(&reservation))
            }),
            "CancelOperation" => call.unary(move |request| ready(self.cancel_operation(&request))),
            "DeleteOperation" => call.unary(move |request| ready(self.delete_operation(&request))),
            "ListOperations" => {
                call.unary(move |request| ready(self.list_operations(&request, &reservation)))
            }
            _ => call.unimplemented(),
        }
    }
}

impl Operations {
    fn get_operation(
        &self,
        request: &Request<GetOperationRequest>,
        reservation: &Reservation,
    ) -> Result<Response<Operation>, Status> {
        let answer = self.look(request.extensions(), &request.get_ref().name, reservation)?;
        Ok(Response::new(answer))
    }

    async fn wait_operation(
        self,
        request: Request<WaitOperationRequest>,
        reservation: Arc<Reservation>,
    ) -> Result<Response<Operation>, Status> {
        let extensions = request.extensions();
        let request = request.get_ref();
        let mut subscription = self.attach(extensions, &request.name)?;
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
        reservation.grow_by(2 * state.memory_bytes())?;
        Ok(Response::new(message(&request.name, &state)))
    }

    fn cancel_operation(
        &self,
        request: &Request<CancelOperationRequest>,
    ) -> Result<Response<()>, Status> {
        let name = &request.get_ref().name;
        check_visible(&self.worker, request.extensions(), name)?;
        if !self.worker.cancel(name) {
            return Err(UnknownOperation::new(name).into());
        }
        Ok(Response::new(()))
    }

    fn list_operations(
        &self,
        request: &Request<ListOperationsRequest>,
        reservation: &Reservation,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let extensions = request.extensions();
        let request = request.get_ref();
        if request.return_partial_success {
            return Err(Status::unimplemented("return_partial_success is not supported"));
        }
        let filter = Filter::parse(&request.filter)?;
        let mut page = Page::of(request.page_size);
        for name in following(self.worker.operation_names(), &request.page_token) {
            // One that was forgotten meanwhile is left out.
            if check_visible(&self.worker, extensions, &name).is_err() {
                continue;
            }
            let Some(instance) = self.worker.instance_of(&name) else { continue };
            if !is_in(&request.name, instance.as_str()) {
                continue;
            }
            let Some(state) = self.worker.latest(&name) else { continue };
            if !filter.matches(&name, &state) {
                continue;
            }
            reservation.grow_by(state.memory_bytes())?;
            if !page.push(message(&name, &state)) {
                break;
            }
        }
        Ok(Response::new(page.response()))
    }

    /// Forgets an operation that is over. One that runs is not cancelled, and stays.
    fn delete_operation(
        &self,
        request: &Request<DeleteOperationRequest>,
    ) -> Result<Response<()>, Status> {
        let name = &request.get_ref().name;
        check_visible(&self.worker, request.extensions(), name)?;
        match self.worker.forget(name) {
            Forgotten::Yes => Ok(Response::new(())),
            Forgotten::Unfinished => Err(Status::failed_precondition("the operation is not over")),
            Forgotten::Unknown => Err(UnknownOperation::new(name).into()),
        }
    }
}

/// Lets a call with these extensions see the operation called `name`. To a principal without the right in
/// the operation's instance, the operation does not exist.
pub(crate) fn check_visible(
    worker: &Worker,
    extensions: &Extensions,
    name: &str,
) -> Result<(), UnknownOperation> {
    let Some(permit) = extensions.get::<Permit>() else { return Ok(()) };
    match worker.instance_of(name) {
        Some(instance) if permit.is_for(instance.as_str()) => Ok(()),
        _ => Err(UnknownOperation::new(name)),
    }
}

/// The names behind `token`, which is the last name of the page before, in order.
fn following(mut names: Vec<String>, token: &str) -> Vec<String> {
    names.retain(|name| name.as_str() > token);
    names.sort_unstable();
    names
}

/// Whether the operations of `instance` belong to a parent: everything, that of all operations, an
/// instance, or the collection in one.
fn is_in(parent: &str, instance: &str) -> bool {
    let of_instance = parent.strip_suffix(COLLECTION).and_then(|parent| parent.strip_suffix('/'));
    parent.is_empty() || parent == COLLECTION || of_instance.unwrap_or(parent) == instance
}

/// A page of a list.
struct Page {
    operations: Vec<Operation>,
    size: usize,
    bytes: usize,
    has_next: bool,
}

impl Page {
    fn of(size: i32) -> Self {
        let size = usize::try_from(size).ok().filter(|&size| size > 0);
        let size = size.unwrap_or(MAX_PAGE).min(MAX_PAGE);
        Self { operations: Vec::new(), size, bytes: 0, has_next: false }
    }

    /// Takes the next operation of the list; `false` if that belongs to the next page.
    fn push(&mut self, operation: Operation) -> bool {
        let bytes = operation.encoded_len();
        let is_full = self.operations.len() == self.size
            || (!self.operations.is_empty() && self.bytes + bytes > MAX_PAGE_BYTES);
        if is_full {
            self.has_next = true;
            return false;
        }
        self.bytes += bytes;
        self.operations.push(operation);
        true
    }

    fn response(self) -> ListOperationsResponse {
        let last = self.operations.last().filter(|_| self.has_next);
        ListOperationsResponse {
            next_page_token: last.map(|operation| operation.name.clone()).unwrap_or_default(),
            operations: self.operations,
            ..ListOperationsResponse::default()
        }
    }
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

    /// The page of operations of those sizes behind `token`: their names, and the next token.
    fn page(size: i32, token: &str, operations: &[(&str, usize)]) -> (Vec<String>, String) {
        let names = operations.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut page = Page::of(size);
        for name in following(names, token) {
            let bytes = operations.iter().find(|it| it.0 == name).map_or(0, |it| it.1);
            let value = vec![0; bytes];
            let metadata = Some(proto::google::protobuf::Any { type_url: String::new(), value });
            if !page.push(Operation { name, metadata, ..Operation::default() }) {
                break;
            }
        }
        let response = page.response();
        let names = response.operations.into_iter().map(|operation| operation.name);
        (names.collect(), response.next_page_token)
    }

    #[test]
    fn pages_follow_each_other() {
        let operations = ["d", "b", "a", "c", "e"].map(|name| (name, 10));
        let check = |size, token, expected: &[&str], next: &str| {
            let expected = expected.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(page(size, token, &operations), (expected, next.to_owned()));
        };
        check(2, "", &["a", "b"], "b");
        check(2, "b", &["c", "d"], "d");
        check(2, "d", &["e"], "");
        check(5, "", &["a", "b", "c", "d", "e"], "");
        check(0, "a", &["b", "c", "d", "e"], "");
        check(-1, "z", &[], "");
    }

    #[test]
    fn pages_are_bounded_in_bytes() {
        let operations = [("a", 1 << 20), ("b", 3 << 20), ("c", 1 << 19), ("d", 1 << 19)];
        assert_eq!(page(0, "", &operations), (vec!["a".to_owned()], "a".to_owned()));
        assert_eq!(page(0, "a", &operations), (vec!["b".to_owned()], "b".to_owned()));
        let rest = vec!["c".to_owned(), "d".to_owned()];
        assert_eq!(page(0, "b", &operations), (rest, String::new()));
    }

    #[test]
    fn parents() {
        for (parent, instance, expected) in [
            ("", "", true),
            ("", "main", true),
            ("operations", "main", true),
            ("main", "main", true),
            ("main/operations", "main", true),
            ("a/b/operations", "a/b", true),
            ("main", "", false),
            ("main/operations", "other", false),
            ("a", "a/b", false),
            ("mainoperations", "main", false),
        ] {
            assert_eq!(is_in(parent, instance), expected, "{parent} {instance}");
        }
    }
}
