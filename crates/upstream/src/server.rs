//! The way to an upstream: gRPC, or the interface of an object store.

use std::time::Duration;

use crate::abilities::Abilities;
#[cfg(feature = "objects")]
use crate::bucket::Bucket;
use crate::call_error::CallError;
use crate::config::Config;
use crate::error::UpstreamError;
use crate::grpc::Grpc;
use crate::place::Place;

/// The way to an upstream.
pub(crate) enum Server {
    /// A server of the Remote Execution API.
    Grpc(Grpc),
    /// An object store.
    #[cfg(feature = "objects")]
    Bucket(Bucket),
}

impl Server {
    /// The way to that place. Nothing is connected yet. To be called inside of a runtime.
    ///
    /// # Errors
    /// When a file that the configuration names or the place itself can't be used.
    pub(crate) fn open(place: &Place, config: &Config) -> Result<Self, UpstreamError> {
        match place {
            Place::Server(address) => Ok(Self::Grpc(Grpc::new(address, config)?)),
            #[cfg(feature = "objects")]
            Place::Objects(address) => Ok(Self::Bucket(Bucket::open(address, config)?)),
            #[cfg(not(feature = "objects"))]
            Place::Objects(_) => Err(UpstreamError::NoObjects),
        }
    }

    /// Asks for what the upstream can do, to see that it answers.
    pub(crate) async fn probe(&self, bound: Duration) -> Result<Abilities, CallError> {
        match self {
            Self::Grpc(grpc) => grpc.probe(bound).await,
            #[cfg(feature = "objects")]
            Self::Bucket(bucket) => bucket.probe().await,
        }
    }

    /// Whether one question tells of many blobs which of them are there. Where it does not, asking costs as much as
    /// fetching.
    pub(crate) fn has_bulk_questions(&self) -> bool {
        matches!(self, Self::Grpc(_))
    }

    /// The instance name upstream of results that have the name `instance` here. `None` if it would be too long.
    pub(crate) fn instance_of(&self, instance: &str) -> Option<String> {
        match self {
            Self::Grpc(grpc) => grpc.address.instance_of(instance),
            #[cfg(feature = "objects")]
            Self::Bucket(_) => Some(instance.to_owned()),
        }
    }
}
