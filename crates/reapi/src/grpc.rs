//! Hand-made gRPC services, for the methods whose generated form copies blobs.
//!
//! A service is a type that implements [`Methods`]: a table from method names to
//! calls of [`Call::unary`] and its siblings. [`Endpoint`] makes it a service
//! that tonic can route to.

use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use prost::Message;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{
    ClientStreamingService, Grpc, NamedService, ServerStreamingService, UnaryService,
};
use tonic::{Request, Response, Status, Streaming};

/// The largest request message. A batch holds at most
/// [`crate::cas::MAX_BATCH_TOTAL_SIZE_BYTES`] of data; the rest is room for its
/// digests and for clients that fill their ByteStream messages to 4 MiB.
pub(crate) const MAX_REQUEST_MESSAGE_BYTES: usize = 5 << 20;

/// What a message's buffer starts with. Larger messages reserve what they need
/// in one step; see [`ExactEncoder`].
const BUFFER_BYTES: usize = 1 << 10;

/// Messages are gathered up to this size before they are handed to HTTP/2.
const YIELD_BYTES: usize = 32 << 10;

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
    /// One message in, one out.
    pub(crate) fn unary<Req, Res, F, Fut>(
        self,
        handler: F,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: FnMut(Request<Req>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
    {
        Box::pin(async move { Ok(server::<Req, Res>().unary(Unary(handler), self.request).await) })
    }

    /// One message in, a stream out.
    pub(crate) fn server_streaming<Req, Res, F, Fut, S>(
        self,
        handler: F,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: FnMut(Request<Req>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<S>, Status>> + Send + 'static,
        S: Stream<Item = Result<Res, Status>> + Send + 'static,
    {
        Box::pin(async move {
            Ok(server::<Req, Res>().server_streaming(ServerStreaming(handler), self.request).await)
        })
    }

    /// A stream in, one message out.
    pub(crate) fn client_streaming<Req, Res, F, Fut>(
        self,
        handler: F,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: FnMut(Request<Streaming<Req>>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
    {
        Box::pin(async move {
            Ok(server::<Req, Res>().client_streaming(ClientStreaming(handler), self.request).await)
        })
    }

    /// The answer to a method that this service does not have.
    pub(crate) fn unimplemented(self) -> BoxFuture<http::Response<Body>, Infallible> {
        let status =
            Status::unimplemented(format!("no such method: {}", self.request.uri().path()));
        Box::pin(async move { Ok(status.into_http()) })
    }
}

fn server<Req, Res>() -> Grpc<ExactCodec<Req, Res>>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
{
    Grpc::new(ExactCodec(PhantomData)).max_decoding_message_size(MAX_REQUEST_MESSAGE_BYTES)
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

struct ClientStreaming<F>(F);

impl<F, Fut, Req, Res> ClientStreamingService<Req> for ClientStreaming<F>
where
    F: FnMut(Request<Streaming<Req>>) -> Fut,
    Fut: Future<Output = Result<Response<Res>, Status>>,
{
    type Response = Res;
    type Future = Fut;

    fn call(&mut self, request: Request<Streaming<Req>>) -> Fut {
        (self.0)(request)
    }
}

/// Protobuf messages, encoded into a buffer of exactly the right size.
struct ExactCodec<Req, Res>(PhantomData<(Req, Res)>);

impl<Req, Res> Codec for ExactCodec<Req, Res>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
{
    type Encode = Res;
    type Decode = Req;
    type Encoder = ExactEncoder<Res>;
    type Decoder = ExactDecoder<Req>;

    fn encoder(&mut self) -> Self::Encoder {
        ExactEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ExactDecoder(PhantomData)
    }
}

/// Reserves a message's whole length first: growing by doubling would copy a
/// batch of blobs several times.
struct ExactEncoder<Res>(PhantomData<Res>);

impl<Res: Message + 'static> Encoder for ExactEncoder<Res> {
    type Item = Res;
    type Error = Status;

    fn encode(&mut self, item: Res, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer).map_err(|error| Status::internal(format!("encoding: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

struct ExactDecoder<Req>(PhantomData<Req>);

impl<Req: Message + Default + 'static> Decoder for ExactDecoder<Req> {
    type Item = Req;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Req>, Status> {
        crate::status::decoded(Req::decode(buffer)).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
