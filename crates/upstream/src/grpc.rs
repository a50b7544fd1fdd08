//! The connections to a server of the Remote Execution API, and the headers of requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::proto::GetCapabilitiesRequest;
use model::proto::capabilities_client::CapabilitiesClient;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use crate::abilities::Abilities;
use crate::address::Address;
use crate::call_error::CallError;
use crate::config::Config;
use crate::connect;
use crate::error::UpstreamError;
use crate::headers::Headers;

/// Connections to a server: one is a single TCP window and, with many servers, at most 100 streams.
const CONNECTIONS: usize = 4;

/// The header with an encoded `RequestMetadata`.
const CALLER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// The longest such header that is passed on.
const CALLER_BYTES_MAX: usize = 4 << 10;

/// The connections to one server.
pub(crate) struct Grpc {
    pub(crate) address: Address,
    channels: Vec<Channel>,
    next: AtomicUsize,
    headers: Headers,
}

impl Grpc {
    /// Connections that are made when they are first used. To be called inside of a runtime.
    ///
    /// # Errors
    /// When the files of TLS can't be used.
    pub(crate) fn new(address: &Address, config: &Config) -> Result<Self, UpstreamError> {
        let channels = (0..CONNECTIONS)
            .map(|_| connect::to_cache(address, config))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            address: address.clone(),
            channels,
            next: AtomicUsize::new(0),
            headers: config.headers.clone(),
        })
    }

    /// Asks for the server's capabilities.
    pub(crate) async fn probe(&self, bound: Duration) -> Result<Abilities, CallError> {
        let request = self.request(
            GetCapabilitiesRequest { instance_name: self.instance() },
            &Bytes::new(),
            bound,
        );
        let mut client = CapabilitiesClient::new(self.channel());
        Ok(Abilities::of(client.get_capabilities(request).await?.get_ref()))
    }

    /// The instance name of blobs.
    pub(crate) fn instance(&self) -> String {
        self.address.instance.as_str().to_owned()
    }

    /// A connection, each in turn.
    pub(crate) fn channel(&self) -> Channel {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[next % self.channels.len()].clone()
    }

    /// A request with the headers of the operator and of the caller, and with its deadline.
    pub(crate) fn request<T>(&self, message: T, caller: &Bytes, bound: Duration) -> Request<T> {
        let mut request = Request::new(message);
        self.headers.add_to(request.metadata_mut());
        if (1..=CALLER_BYTES_MAX).contains(&caller.len()) {
            request.metadata_mut().insert_bin(CALLER, MetadataValue::from_bytes(caller));
        }
        request.set_timeout(bound);
        request
    }
}
