//! All services behind one address, and the HTTP/2 settings under them.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use access::{Authorize, Policy};
use asset::Origin;
use history::Archive;
use images::Images;
use model::InstanceNames;
use store::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use worker::Worker;

use crate::action_cache::ActionCache;
use crate::asset::{AssetFetch, AssetPush, AssetServices};
use crate::asset_origin::Origins;
use crate::byte_stream::ByteStream;
use crate::capabilities::{Capabilities, OfferedFunctions};
use crate::cas::ContentAddressableStorage;
use crate::encoding::EncodingService;
use crate::execution::Execution;
use crate::grpc::Endpoint;
use crate::history::History;
use crate::image_service::ImageService;
use crate::internal::InternalCas;
use crate::lookups::Lookups;
use crate::memory::{Accounted, Meters, QuotaService};
use crate::offer::Offer;
use crate::operations::Operations;
use crate::reflection;
use crate::shell::Shell;
use crate::store_maintenance::StoreMaintenance;

/// Unread bytes of one stream: keeps a client busy for the milliseconds in which
/// the disk takes in a few pieces of an upload.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// Unread bytes of one connection: a few such streams. Handlers take what comes
/// off the wire at once, and reserve for what they keep: see [`crate::memory`].
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Largest frame that clients may send: fewer of them mean fewer headers to read.
const MAX_FRAME_BYTES: u32 = 256 << 10;

/// Messages of the health and reflection services, which name a service or a file. Their strings are
/// copied without being reserved for.
const MAX_NAME_MESSAGE_BYTES: usize = 16 << 10;

/// Streams of one connection. Bazel opens 100, others as many as they have
/// actions; a client with more waits by itself.
const MAX_STREAMS: u32 = 1024;

/// Streams that a client may reset before they were looked at, as an interrupted
/// build does with all of its calls.
const MAX_PENDING_RESETS: usize = 4096;

/// A ping after this much silence finds connections whose client is gone, and
/// keeps firewalls between from forgetting them.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The time for its answer.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The error that ended serving early.
#[derive(Debug, thiserror::Error)]
#[error("serving connections failed")]
pub struct ServeError(#[source] Box<dyn Error + Send + Sync>);

/// The parts that the services share.
pub struct Services {
    /// Blobs and cached results.
    pub store: Arc<Store>,
    /// Runs the actions.
    pub worker: Worker,
    /// The images that actions can choose; `None` if operators can't change them.
    pub images: Option<Arc<Images>>,
    /// Past and present actions.
    pub archive: Archive,
    /// Tells clients whether new work is welcome.
    pub health: Health,
    /// The digest functions that clients may use.
    pub functions: OfferedFunctions,
    /// The instances that clients may use.
    pub instances: InstanceNames,
    /// The origin of assets that nobody pushed, where the operator allows fetches.
    pub origin: Option<Arc<dyn Origin>>,
    /// The numbers that are counted.
    pub meters: Meters,
}

/// The services that go on while the store can't promise that what it is given reaches the disk.
const READING_SERVICES: [&str; 4] = [
    "build.bazel.remote.execution.v2.ActionCache",
    "build.bazel.remote.execution.v2.Capabilities",
    "build.bazel.remote.execution.v2.ContentAddressableStorage",
    "google.bytestream.ByteStream",
];

/// The services that are not serving then. The empty name is the server as a whole.
const WRITING_SERVICES: [&str; 2] = ["", "build.bazel.remote.execution.v2.Execution"];

/// The answer of `grpc.health.v1.Health`.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Serving as a whole. Single services are known from the first call of
    /// [`Health::set_durable`].
    pub fn serving() -> Self {
        Self(HealthReporter::new())
    }

    /// Tells whether what is stored now reaches the disk. If not, the server as a whole and
    /// `Execution` are not serving: load balancers send new builds elsewhere. Blobs and cached
    /// results can still be read.
    pub async fn set_durable(&self, is_durable: bool) {
        self.set(&READING_SERVICES, true).await;
        self.set(&WRITING_SERVICES, is_durable).await;
    }

    /// From now on nothing is serving. [`Health::set_durable`] must not be called any more.
    pub async fn draining(&self) {
        self.set(&READING_SERVICES, false).await;
        self.set(&WRITING_SERVICES, false).await;
    }

    async fn set(&self, services: &[&str], is_serving: bool) {
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in services {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// Serves connections until `shutdown` is ready, as far as `policy` lets their calls in; then takes no new ones, and
/// returns when the calls on the others are answered.
///
/// # Errors
/// [`ServeError`] when `incoming` fails, or the services can't be described.
pub async fn serve<I, IO, E>(
    incoming: I,
    services: Services,
    policy: Arc<Policy>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    I: Stream<Item = Result<IO, E>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let instances = services.instances.clone();
    let capabilities = Capabilities::new(services.functions, instances, &policy);
    let meters = services.meters.clone();
    let quotas = Arc::clone(meters.budget());
    let incoming = incoming.map(move |io| io.map(|io| Accounted::new(io, quotas.quota())));
    let reserving = tower_layer::layer_fn(move |service| {
        QuotaService::<_, IO::ConnectInfo>::new(service, meters.clone())
    });
    let authorize =
        tower_layer::layer_fn(move |service| Authorize::new(service, Arc::clone(&policy)));
    Server::builder()
        .layer(reserving)
        .layer(authorize)
        // Behind it: nothing is unpacked for callers that may not call.
        .layer(tower_layer::layer_fn(EncodingService::new))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_routes(routes(services, capabilities).map_err(|error| ServeError(error.into()))?)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
        .map_err(|error| ServeError(error.into()))
}

fn routes(
    services: Services,
    capabilities: Capabilities,
) -> Result<Routes, tonic_reflection::server::Error> {
    let Services { store, worker, images, archive, health, functions, instances, origin, .. } =
        services;
    let lookups = Lookups::new();
    let cache = Offer { functions: functions.cache, instances: instances.clone() };
    let actions = Offer { functions: functions.execution, instances };
    let action_cache =
        ActionCache::new(Arc::clone(&store), worker.clone(), lookups.clone(), cache.clone());
    let assets = AssetServices {
        store: Arc::clone(&store),
        lookups: lookups.clone(),
        offer: cache.clone(),
        origins: origin.map(Origins::new),
    };
    let shell = Shell::new(Arc::clone(&store), worker.clone(), actions.clone());
    let execution = Execution::new(Arc::clone(&store), worker.clone(), lookups, actions);
    let mut routes = Routes::builder();
    routes
        .add_service(
            tonic_health::pb::health_server::HealthServer::new(
                tonic_health::server::HealthService::from_health_reporter(health.0),
            )
            .max_decoding_message_size(MAX_NAME_MESSAGE_BYTES),
        )
        .add_service(Endpoint(capabilities))
        .add_service(Endpoint(ContentAddressableStorage::new(Arc::clone(&store), cache.clone())))
        .add_service(Endpoint(ByteStream::new(Arc::clone(&store), cache)))
        .add_service(Endpoint(action_cache))
        .add_service(Endpoint(AssetFetch(assets.clone())))
        .add_service(Endpoint(AssetPush(assets)))
        .add_service(Endpoint(execution))
        .add_service(Endpoint(Operations::new(worker.clone())))
        .add_service(Endpoint(shell))
        .add_service(Endpoint(ImageService::new(images, worker)))
        .add_service(Endpoint(InternalCas::new(Arc::clone(&store), functions.cache)))
        .add_service(Endpoint(StoreMaintenance::new(store, archive.clone())))
        .add_service(Endpoint(History::new(archive, functions.cache)))
        .add_service(reflection::v1()?.max_decoding_message_size(MAX_NAME_MESSAGE_BYTES))
        .add_service(reflection::v1alpha()?.max_decoding_message_size(MAX_NAME_MESSAGE_BYTES));
    Ok(routes.routes())
}
