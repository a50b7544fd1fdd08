//! Calls that reserve for what they receive and send.

use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};

use super::budget::ConnectionQuota;
use super::connection::ConnectInfo;
use super::meters::Meters;
use super::request::RequestBody;
use super::response::ResponseBody;

/// Counts the calls of a service, and puts their bodies on the quota of their connection,
/// whose own description is of type `I`. Handlers find the quota, and the reservation of the
/// call, among the request's extensions.
pub(crate) struct QuotaService<S, I> {
    service: S,
    meters: Meters,
    connection: PhantomData<fn() -> I>,
}

impl<S, I> QuotaService<S, I> {
    pub(crate) fn new(service: S, meters: Meters) -> Self {
        Self { service, meters, connection: PhantomData }
    }
}

impl<S: Clone, I> Clone for QuotaService<S, I> {
    fn clone(&self) -> Self {
        Self::new(self.service.clone(), self.meters.clone())
    }
}

impl<S, I> QuotaService<S, I>
where
    I: Clone + Send + Sync + 'static,
{
    /// The quota of the connection that a request came by.
    fn quota(&self, extensions: &mut http::Extensions) -> Arc<ConnectionQuota> {
        let quota = match extensions.remove::<ConnectInfo<I>>() {
            Some(connection) => {
                extensions.insert(connection.inner);
                connection.quota
            }
            None => self.meters.budget().quota(),
        };
        extensions.insert(Arc::clone(&quota));
        quota
    }
}

impl<S, I> Service<http::Request<Body>> for QuotaService<S, I>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    I: Clone + Send + Sync + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        self.meters.call(request.uri().path());
        let quota = self.quota(request.extensions_mut());
        let reserved = Arc::new(quota.reservation());
        let received = Arc::clone(&reserved);
        request.extensions_mut().insert(Arc::clone(&reserved));
        let request = request.map(|inner| Body::new(RequestBody::new(inner, received)));
        let answer = self.service.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|body| Body::new(ResponseBody::new(body, reserved))))
        })
    }
}
