//! Hand-made gRPC services, for the methods whose generated form copies blobs.
//!
//! A service is a type that implements [`Methods`]: a table from method names to
//! calls of [`Call::unary`] and its siblings. [`Endpoint`] makes it a service
//! that tonic can route to.

mod chunked;
mod codec;
mod encoded;

pub(crate) use chunked::{Chunk, Chunks};
pub(crate) use encoded::Encoded;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use access::Permit;
use bytes::Bytes;
use prost::Message;
use proto::shape::Shaped;
use store::Store;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::{
    ClientStreamingService, Grpc, NamedService, ServerStreamingService, StreamingService,
    UnaryService,
};
use tonic::{Request, Response, Status, Streaming};

use crate::frame::MAX_MESSAGE_BYTES;
use crate::memory::{Budget, ConnectionQuota, Reservation};
use crate::origin;
use codec::{ExactCodec, SmallCodec, borrow_to_encode};

/// The methods of one service.
pub(crate) trait Methods: Clone + Send + Sync + 'static {
    /// The service's full name, as in the request path.
    const NAME: &'static str;

    /// Answers `call` of the method called `method`.
    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible>;
}

/// A [`Methods`] in the form that tonic routes to.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint<M>(pub(crate) M);

impl<M: Methods> NamedService for Endpoint<M> {
    const NAME: &'static str = M::NAME;
}

impl<M: Methods> Service<http::Request<Body>> for Endpoint<M> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let method = path.rsplit('/').next().unwrap_or_default();
        self.0.clone().dispatch(method, Call { request })
    }
}

/// One incoming call, before its messages are read.
pub(crate) struct Call {
    request: http::Request<Body>,
}

impl Call {
    /// The quota on which the call's connection reserves memory.
    pub(crate) fn quota(&self) -> Arc<ConnectionQuota> {
        let quota = self.request.extensions().get::<Arc<ConnectionQuota>>();
        quota.map_or_else(|| Budget::of_this_machine().quota(), Arc::clone)
    }

    /// The memory that the call has reserved. Handlers add what they are about to hold for it; the call returns
    /// all of it when its answer is sent.
    pub(crate) fn reservation(&self) -> Arc<Reservation> {
        let reservation = self.request.extensions().get::<Arc<Reservation>>();
        reservation.map_or_else(|| Arc::new(self.quota().reservation()), Arc::clone)
    }

    /// The name of the caller's principal; empty where callers have none.
    pub(crate) fn principal(&self) -> String {
        let permit = self.request.extensions().get::<Permit>();
        permit.map(|permit| permit.principal().to_owned()).unwrap_or_default()
    }

    /// The encoded `RequestMetadata` of the caller, for a tier below the store; empty if there is none, and not
    /// looked for where there is no tier.
    pub(crate) fn caller(&self, store: &Store) -> Bytes {
        if store.tier().is_none() {
            return Bytes::new();
        }
        origin::encoded(&MetadataMap::from_headers(self.request.headers().clone()))
    }

    /// One message in, one out.
    pub(crate) fn unary<Req, Res, F, Fut>(
        self,
        mut handler: F,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        Req: Message + Default + Shaped + 'static,
        Res: Message + 'static,
        F: FnMut(Request<Req>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
    {
        Box::pin(async move {
            let reservation = self.reservation();
            let reserved = Arc::clone(&reservation);
            let handler = move |request| {
                let (answer, reservation) = (handler(request), Arc::clone(&reserved));
                async move {
                    let answer = answer.await?;
                    borrow_to_encode(&reservation, answer.get_ref())?;
                    Ok(answer)
                }
            };
            Ok(server::<Req, Res>(reservation).unary(Unary(handler), self.request).await)
        })
    }

    /// One message in, a stream out.
    pub(crate) fn server_streaming<Req, Res, F, Fut, S>(
        self,
        mut handler: F,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        Req: Message + Default + Shaped + 'static,
        Res: Message + 'static,
        F: FnMut(Request<Req>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
        S: Stream<Item = Result<Res, Status>> + Send + 'static,
    {
        Box::pin(async move {
            let reservation = self.reservation();
            let reserved = Arc::clone(&reservation);
            let handler = move |request| {
                let (answer, reservation) = (handler(request), Arc::clone(&reserved));
                async move {
                    let messages = answer.await?.into_inner();
                    let reserved = messages.map(move |message| {
                        let message = message?;
                        borrow_to_encode(&reservation, &message)?;
                        Ok(message)
                    });
                    Ok(Response::new(reserved))
                }
            };
            Ok(server::<Req, Res>(reservation)
                .server_streaming(ServerStreaming(handler), self.request)
                .await)
        })
    }

    /// One message in, a stream out whose payload is not copied.
    pub(crate) fn chunks<Req, F, Fut, S>(
        self,
        handler: F,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        Req: Message + Default + Shaped + 'static,
        F: FnOnce(Req) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Chunks<S>, Status>> + Send + 'static,
        S: Stream<Item = Result<Chunk, Status>> + Send + 'static,
    {
        Box::pin(async move {
            let answer = async {
                handler(chunked::only_message(self.reservation(), self.request).await?).await
            };
            Ok(answer.await.map_or_else(Status::into_http, chunked::response))
        })
    }

    /// A stream in, which the handler takes off the wire itself; one message out.
    pub(crate) fn raw<Res, F, Fut>(self, handler: F) -> BoxFuture<http::Response<Body>, Infallible>
    where
        Res: Message + 'static,
        F: FnOnce(Body) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
    {
        Box::pin(async move {
            let reservation = self.reservation();
            let (parts, body) = self.request.into_parts();
            // tonic sees all of the call but its messages.
            let request = http::Request::from_parts(parts, Body::empty());
            let service = ClientStreaming(Some((handler, body)));
            Ok(server::<(), Res>(reservation).client_streaming(service, request).await)
        })
    }

    /// A stream of small messages in, and one of small messages out. The handler reserves for both before it
    /// reads the first: here nothing is reserved for a message, which has at most `message_bytes_max` bytes.
    pub(crate) fn both_streaming<Req, Res, F, Fut, S>(
        self,
        message_bytes_max: usize,
        handler: F,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: FnMut(Request<Streaming<Req>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
        S: Stream<Item = Result<Res, Status>> + Send + 'static,
    {
        Box::pin(async move {
            let server = Grpc::new(SmallCodec::<Req, Res>::default());
            let mut server = server.max_decoding_message_size(message_bytes_max);
            Ok(server.streaming(BothStreaming(handler), self.request).await)
        })
    }

    /// The answer to a method that this service does not have.
    pub(crate) fn unimplemented(self) -> BoxFuture<http::Response<Body>, Infallible> {
        let status =
            Status::unimplemented(format!("no such method: {}", self.request.uri().path()));
        Box::pin(async move { Ok(status.into_http()) })
    }
}

fn server<Req, Res>(reservation: Arc<Reservation>) -> Grpc<ExactCodec<Req, Res>>
where
    Req: Message + Default + Shaped + 'static,
    Res: Message + 'static,
{
    Grpc::new(ExactCodec::new(reservation)).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

struct Unary<F>(F);

impl<F, Fut, Req, Res> UnaryService<Req> for Unary<F>
where
    F: FnMut(Request<Req>) -> Fut,
    Fut: Future<Output = Result<Response<Res>, Status>>,
{
    type Response = Res;
    type Future = Fut;

    fn call(&mut self, request: Request<Req>) -> Fut {
        (self.0)(request)
    }
}

struct ServerStreaming<F>(F);

impl<F, Fut, Req, Res, S> ServerStreamingService<Req> for ServerStreaming<F>
where
    F: FnMut(Request<Req>) -> Fut,
    Fut: Future<Output = Result<Response<S>, Status>>,
    S: Stream<Item = Result<Res, Status>>,
{
    type Response = Res;
    type ResponseStream = S;
    type Future = Fut;

    fn call(&mut self, request: Request<Req>) -> Fut {
        (self.0)(request)
    }
}

struct BothStreaming<F>(F);

impl<F, Fut, Req, Res, S> StreamingService<Req> for BothStreaming<F>
where
    F: FnMut(Request<Streaming<Req>>) -> Fut,
    Fut: Future<Output = Result<Response<S>, Status>>,
    S: Stream<Item = Result<Res, Status>>,
{
    type Response = Res;
    type ResponseStream = S;
    type Future = Fut;

    fn call(&mut self, request: Request<Streaming<Req>>) -> Fut {
        (self.0)(request)
    }
}

/// A handler, and what it is for.
struct ClientStreaming<F>(Option<(F, Body)>);

impl<F, Fut, Res> ClientStreamingService<()> for ClientStreaming<F>
where
    F: FnOnce(Body) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
{
    type Response = Res;
    type Future = BoxFuture<Response<Res>, Status>;

    fn call(&mut self, _messages: Request<Streaming<()>>) -> Self::Future {
        match self.0.take() {
            Some((handler, body)) => Box::pin(handler(body)),
            None => Box::pin(async { Err(Status::internal("a call was made twice")) }),
        }
    }
}
