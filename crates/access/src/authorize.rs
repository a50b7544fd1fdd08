//! The policy in front of all services.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, header};
use tower_service::Service;

use crate::connections::Caller;
use crate::policy::Policy;

/// The method that asks for another right once it has to go to an origin.
const FETCH_BLOB: &str = "/build.bazel.remote.asset.v1.Fetch/FetchBlob";

/// Lets a call through to the service if the policy allows it.
#[derive(Clone)]
pub struct Authorize<S> {
    service: S,
    policy: Arc<Policy>,
}

impl<S> Authorize<S> {
    /// Puts `policy` in front of `service`.
    pub fn new(service: S, policy: Arc<Policy>) -> Self {
        Self { service, policy }
    }
}

impl<S> Service<Request<Body>> for Authorize<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let caller = request.extensions().get::<Caller>();
        let decision = self.policy.check(request.uri().path(), request.headers(), caller);
        let granted = (request.uri().path() == FETCH_BLOB)
            .then(|| self.policy.granted(request.headers(), caller));
        // No service needs it, so none can log it.
        request.headers_mut().remove(header::AUTHORIZATION);
        match decision {
            Ok(permit) => {
                if let Some(permit) = permit {
                    permit.attach(request.extensions_mut());
                }
                if let Some(granted) = granted.flatten() {
                    granted.attach(request.extensions_mut());
                }
                Either::Left(self.service.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
