//! The bodies of each call, by its headers.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::MetadataValue;

use super::algorithm::Encoding;
use super::request::Unpack;
use super::response::{Incompressible, Pack};
use super::rewritten::RewrittenBody;
use crate::memory::{ConnectionQuota, Reservation};

/// The header with the encoding of the messages that follow.
const ENCODING: &str = "grpc-encoding";

/// The header with the encodings that its sender reads.
const ACCEPTED_ENCODING: &str = "grpc-accept-encoding";

/// The encoding that changes nothing.
const IDENTITY: &[u8] = b"identity";

/// Unpacks the messages of a service's requests, and packs those of its answers. Calls whose messages are
/// plain pass through.
#[derive(Debug, Clone)]
pub(crate) struct EncodingService<S>(S);

impl<S> EncodingService<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(service)
    }
}

/// The encoding that a request's headers name; `None` for plain messages.
fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, Status> {
    let Some(name) = headers.get(ENCODING).map(HeaderValue::as_bytes) else { return Ok(None) };
    if name == IDENTITY {
        return Ok(None);
    }
    Encoding::from_name(name).map(Some).ok_or_else(|| {
        let mut status = Status::unimplemented(format!(
            "messages compressed with {}; use gzip or zstd",
            name.escape_ascii()
        ));
        let accepted = MetadataValue::from_static("identity,gzip,zstd");
        status.metadata_mut().insert(ACCEPTED_ENCODING, accepted);
        status
    })
}

/// Whether the sender of these headers reads that encoding.
fn accepts(headers: &HeaderMap, encoding: Encoding) -> bool {
    let values = headers.get_all(ACCEPTED_ENCODING).iter();
    let mut names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.any(|name| name.trim_ascii() == encoding.name().as_bytes())
}

/// The future of a call that ends with this status.
fn refusal<F, E: Send + 'static>(status: Status) -> Either<F, BoxFuture<http::Response<Body>, E>> {
    Either::Right(Box::pin(async move { Ok(status.into_http()) }))
}

impl<S> Service<http::Request<Body>> for EncodingService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    /// Calls with plain messages need no future of their own.
    type Future = Either<S::Future, BoxFuture<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let encoding = match encoding(request.headers()) {
            Ok(Some(encoding)) => encoding,
            Ok(None) => return Either::Left(self.0.call(request)),
            Err(status) => return refusal(status),
        };
        let extensions = request.extensions();
        // They stand there for every call: see `crate::memory`.
        let (Some(quota), Some(call)) = (
            extensions.get::<Arc<ConnectionQuota>>().cloned(),
            extensions.get::<Arc<Reservation>>().cloned(),
        ) else {
            return refusal(Status::internal("the call has no quota"));
        };
        let is_accepted = accepts(request.headers(), encoding);
        request.headers_mut().remove(ENCODING);
        let of_answer = Arc::clone(&quota);
        let unpack = Unpack::new(encoding, quota, call);
        let request = request.map(|body| Body::new(RewrittenBody::new(body, unpack)));
        let answer = self.0.call(request);
        Either::Right(Box::pin(async move {
            let mut response = answer.await?;
            let is_packed = response.extensions().get::<Incompressible>().is_some();
            if !is_accepted || is_packed || response.headers().contains_key(ENCODING) {
                return Ok(response);
            }
            let headers = response.headers_mut();
            headers.insert(ENCODING, HeaderValue::from_static(encoding.name()));
            headers.insert(ACCEPTED_ENCODING, Encoding::ACCEPTED);
            let pack = Pack::new(encoding, of_answer);
            Ok(response.map(|body| Body::new(RewrittenBody::new(body, pack))))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn encodings_of_requests() {
        let found = |value| encoding(&headers(ENCODING, value)).map_err(|status| status.code());
        assert_eq!(found("identity"), Ok(None));
        assert_eq!(found("gzip"), Ok(Some(Encoding::Gzip)));
        assert_eq!(found("zstd"), Ok(Some(Encoding::Zstd)));
        for unknown in ["deflate", "snappy", "GZIP", "gzip,zstd", ""] {
            assert_eq!(found(unknown), Err(tonic::Code::Unimplemented), "{unknown}");
        }
        assert_eq!(encoding(&HeaderMap::new()).unwrap(), None);
        let refused = encoding(&headers(ENCODING, "snappy")).unwrap_err();
        assert_eq!(refused.metadata().get(ACCEPTED_ENCODING).unwrap(), "identity,gzip,zstd");
    }

    #[test]
    fn encodings_of_answers() {
        let check = |value, expected: [bool; 2]| {
            let headers = headers(ACCEPTED_ENCODING, value);
            let found = [Encoding::Gzip, Encoding::Zstd].map(|it| accepts(&headers, it));
            assert_eq!(found, expected, "{value}");
        };
        check("gzip", [true, false]);
        check("identity, deflate, gzip", [true, false]);
        check("identity,zstd,gzip", [true, true]);
        check("identity", [false, false]);
        check("", [false, false]);
        assert!(!accepts(&HeaderMap::new(), Encoding::Gzip));
    }
}
