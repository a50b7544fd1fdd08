//! The Remote Asset API: `Fetch` and `Push`, which name content by URIs.
//!
//! Pushed content is found. Without an origin the server opens no URI, whatever its scheme is: a client cannot have it
//! read files or reach hosts. With one, `FetchBlob` goes there for what is not here ([`crate::asset_origin`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use access::{Right, check_instance, has_right};
use asset::{AssetError, Assets, Fields, Kind, Names, NamesError, Record, RecordError, parse_time};
use bytes::Bytes;
use model::{Digest, DigestFunction, InstanceName};
use proto::build::bazel::remote::asset::v1::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse,
    PushBlobRequest, PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse, Qualifier,
};
use proto::google::protobuf::Timestamp;
use proto::google::rpc::Status as RpcStatus;
use store::Store;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Code, Request, Response, Status};

use crate::asset_origin::{self, Delivery, Order, Origins};
use crate::grpc::{Call, Methods};
use crate::lookups::Lookups;
use crate::memory::Reservation;
use crate::offer::Offer;
use crate::{below, blocking, request, status};

/// The memory for a record with the most references: its entry, its digests, and the list of those that are missing.
const RECORD_BYTES: u64 = 4 << 20;

/// The text for an asset that nobody pushed, or that is gone.
const NOT_FOUND: &str = "no content of these URIs with these qualifiers is here; this server has what was pushed, \
                         and fetches files of http and https only where its operator allows it (--allow-fetch)";

fn bad_names(error: NamesError) -> Status {
    status::of(Code::InvalidArgument, &error)
}

fn bad_record(error: RecordError) -> Status {
    status::of(Code::InvalidArgument, &error)
}

fn asset_failed(error: AssetError) -> Status {
    let code = match &error {
        AssetError::Store { source, .. }
        | AssetError::Read { source, .. }
        | AssetError::ReadDirectory { source, .. } => status::store(source).code(),
        // "Clients MUST ensure associated content is available in CAS prior to pushing."
        AssetError::Absent { .. } => Code::FailedPrecondition,
    };
    status::of(code, &error)
}

/// The parts of the server that both services need.
#[derive(Clone)]
pub(crate) struct AssetServices {
    pub(crate) store: Arc<Store>,
    pub(crate) lookups: Lookups,
    pub(crate) offer: Offer,
    /// The origins of what nobody pushed, where the operator allows fetches.
    pub(crate) origins: Option<Origins>,
}

/// The service `Fetch`.
#[derive(Clone)]
pub(crate) struct AssetFetch(pub(crate) AssetServices);

/// The service `Push`.
#[derive(Clone)]
pub(crate) struct AssetPush(pub(crate) AssetServices);

impl Methods for AssetFetch {
    const NAME: &'static str = "build.bazel.remote.asset.v1.Fetch";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let Self(services) = self;
        let (reservation, caller) = (call.reservation(), call.caller(&services.store));
        let client: Arc<str> = call.principal().into();
        match method {
            "FetchBlob" => call.unary(move |request: Request<FetchBlobRequest>| {
                let looking =
                    services.clone().looking(Kind::Blob, Arc::clone(&reservation), caller.clone());
                let client = Arc::clone(&client);
                async move {
                    let instance = &request.get_ref().instance_name;
                    check_instance(request.extensions(), instance)?;
                    let may_write = has_right(request.extensions(), instance, Right::WriteCas);
                    Ok(Response::new(looking.blob(request.into_inner(), client, may_write).await?))
                }
            }),
            "FetchDirectory" => call.unary(move |request: Request<FetchDirectoryRequest>| {
                let kind = Kind::Directory;
                let looking =
                    services.clone().looking(kind, Arc::clone(&reservation), caller.clone());
                async move {
                    check_instance(request.extensions(), &request.get_ref().instance_name)?;
                    Ok(Response::new(looking.directory(request.into_inner()).await?))
                }
            }),
            _ => call.unimplemented(),
        }
    }
}

impl Methods for AssetPush {
    const NAME: &'static str = "build.bazel.remote.asset.v1.Push";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let Self(services) = self;
        let reservation = call.reservation();
        match method {
            "PushBlob" => call.unary(move |request: Request<PushBlobRequest>| {
                let pushing = services.clone().push_blob(request, Arc::clone(&reservation));
                async move { pushing.await.map(Response::new) }
            }),
            "PushDirectory" => call.unary(move |request: Request<PushDirectoryRequest>| {
                let pushing = services.clone().push_directory(request, Arc::clone(&reservation));
                async move { pushing.await.map(Response::new) }
            }),
            _ => call.unimplemented(),
        }
    }
}

/// The fields of a `Fetch`, of either kind.
struct Wanted {
    instance: InstanceName,
    names: Names,
    oldest: Option<SystemTime>,
    /// The function that the client asked for.
    function: Option<DigestFunction>,
}

/// A `Fetch` that was answered.
struct Found {
    uri: String,
    digest: Digest,
    expires_at: Option<Timestamp>,
}

/// A `Fetch` under way.
struct Looking {
    services: AssetServices,
    kind: Kind,
    reservation: Arc<Reservation>,
    caller: Bytes,
}

impl Looking {
    async fn blob(
        self,
        message: FetchBlobRequest,
        client: Arc<str>,
        may_write: bool,
    ) -> Result<FetchBlobResponse, Status> {
        let FetchBlobRequest { instance_name, uris, qualifiers, digest_function, .. } = message;
        let oldest = message.oldest_content_accepted;
        let wanted = self.wanted(&instance_name, uris, qualifiers, digest_function, oldest)?;
        let timeout = asset_origin::timeout(message.timeout)?;
        let origins = self.services.origins.clone();
        let order = Order {
            store: Arc::clone(&self.services.store),
            reservation: Arc::clone(&self.reservation),
            instance: wanted.instance.clone(),
            names: wanted.names.clone(),
            function: wanted.function.unwrap_or_else(|| self.services.offer.usual_function()),
            timeout,
            client,
            may_write,
        };
        if let Some(found) = self.find(wanted).await? {
            return Ok(blob_found(found));
        }
        let delivery = match origins {
            Some(origins) => origins.fetch(order).await?,
            None => Delivery::NotForOrigins,
        };
        Ok(match delivery {
            Delivery::Fetched(uri, digest) => blob_found(Found { uri, digest, expires_at: None }),
            Delivery::Failed(uri, status) => {
                FetchBlobResponse { status: Some(status), uri, ..Default::default() }
            }
            Delivery::NotForOrigins => {
                FetchBlobResponse { status: Some(not_found()), ..Default::default() }
            }
        })
    }

    async fn directory(
        self,
        message: FetchDirectoryRequest,
    ) -> Result<FetchDirectoryResponse, Status> {
        let FetchDirectoryRequest { instance_name, uris, qualifiers, digest_function, .. } =
            message;
        let oldest = message.oldest_content_accepted;
        let wanted = self.wanted(&instance_name, uris, qualifiers, digest_function, oldest)?;
        Ok(match self.find(wanted).await? {
            None => FetchDirectoryResponse { status: Some(not_found()), ..Default::default() },
            Some(Found { uri, digest, expires_at }) => FetchDirectoryResponse {
                status: Some(RpcStatus::default()),
                uri,
                qualifiers: Vec::new(),
                expires_at,
                root_directory_digest: Some(digest.to_proto()),
                digest_function: digest.function().to_proto(),
            },
        })
    }

    fn wanted(
        &self,
        instance_name: &str,
        uris: Vec<String>,
        qualifiers: Vec<Qualifier>,
        function: i32,
        oldest: Option<Timestamp>,
    ) -> Result<Wanted, Status> {
        let oldest = oldest.map(|time| parse_time("oldest_content_accepted", &time));
        // Unset, any function will do: the answer names that of the digest.
        let function = match function {
            0 => None,
            asked => Some(request::function_of(&self.services.offer.functions, asked, None)?),
        };
        Ok(Wanted {
            instance: request::instance_name(&self.services.offer, instance_name)?,
            names: Names::parse(self.kind, uris, qualifiers).map_err(bad_names)?,
            oldest: oldest.transpose().map_err(bad_record)?,
            function,
        })
    }

    /// The first URI whose content is here, all of it.
    async fn find(self, wanted: Wanted) -> Result<Option<Found>, Status> {
        let AssetServices { store, lookups, offer, origins: _ } = self.services;
        // A fetch that follows may wait for long, and not with this.
        let held = self.reservation.another();
        held.grow_by(RECORD_BYTES)?;
        let Wanted { instance, names, oldest, function } = wanted;
        let keys: Vec<(String, Digest)> =
            names.keys().map(|(uri, key)| (uri.to_owned(), key)).collect();
        for (uri, key) in keys {
            // Its trees are walked: see `crate::lookups`.
            let _turn = lookups.turn().await;
            let (here, instance) = (Arc::clone(&store), instance.clone());
            let (uri, record) = blocking::run(move || {
                let now = SystemTime::now();
                let record = Assets::of(&here).record(&instance, (&uri, &key), now, oldest);
                Ok((uri, record.map_err(asset_failed)?))
            })
            .await?;
            let is_offered = |record: &Record| {
                let found = record.digest().function();
                offer.functions.contains(found) && function.is_none_or(|function| function == found)
            };
            let Some(record) = record.filter(is_offered) else { continue };
            fetch_below(&store, &self.reservation, self.kind, &record, &self.caller).await?;
            let (here, kind) = (Arc::clone(&store), self.kind);
            let (record, is_complete) = blocking::run(move || {
                let is_complete = Assets::of(&here).is_complete(kind, &record);
                Ok((record, is_complete.map_err(asset_failed)?))
            })
            .await?;
            if is_complete {
                blocking::make_durable(&store).await?;
                let (digest, expires_at) = (record.digest(), record.expire_at());
                return Ok(Some(Found { uri, digest, expires_at }));
            }
        }
        Ok(None)
    }
}

/// Fetches what a record names and is only in the tier below the store. Of directories, the files are left to those who
/// read them: a record whose files are not here is not served.
async fn fetch_below(
    store: &Arc<Store>,
    reservation: &Reservation,
    kind: Kind,
    record: &Record,
    caller: &Bytes,
) -> Result<(), Status> {
    if store.tier().is_none() {
        return Ok(());
    }
    below::fetch(store, reservation, record.blobs().iter().copied(), caller.clone()).await?;
    let root = record.digest();
    let of_kind = (kind == Kind::Directory).then_some(root);
    for root in record.directories().iter().copied().chain(of_kind) {
        below::fetch_directories(store, reservation, root, caller).await?;
    }
    if kind == Kind::Blob {
        below::fetch(store, reservation, [root], caller.clone()).await?;
    }
    Ok(())
}

fn blob_found(Found { uri, digest, expires_at }: Found) -> FetchBlobResponse {
    FetchBlobResponse {
        status: Some(RpcStatus::default()),
        uri,
        qualifiers: Vec::new(),
        expires_at,
        blob_digest: Some(digest.to_proto()),
        digest_function: digest.function().to_proto(),
    }
}

fn not_found() -> RpcStatus {
    RpcStatus { code: Code::NotFound.into(), message: NOT_FOUND.to_owned(), ..RpcStatus::default() }
}

impl AssetServices {
    fn looking(self, kind: Kind, reservation: Arc<Reservation>, caller: Bytes) -> Looking {
        Looking { services: self, kind, reservation, caller }
    }

    async fn push_blob(
        self,
        request: Request<PushBlobRequest>,
        reservation: Arc<Reservation>,
    ) -> Result<PushBlobResponse, Status> {
        check_instance(request.extensions(), &request.get_ref().instance_name)?;
        let message = request.into_inner();
        let fields = Fields {
            digest_field: "blob_digest",
            digest: message.blob_digest.as_ref(),
            expire_at: message.expire_at,
            blobs: &message.references_blobs,
            directories: &message.references_directories,
        };
        let record = self.record(&fields, message.digest_function)?;
        let names =
            Names::parse(Kind::Blob, message.uris, message.qualifiers).map_err(bad_names)?;
        self.push(&message.instance_name, names, record, &reservation).await?;
        Ok(PushBlobResponse {})
    }

    async fn push_directory(
        self,
        request: Request<PushDirectoryRequest>,
        reservation: Arc<Reservation>,
    ) -> Result<PushDirectoryResponse, Status> {
        check_instance(request.extensions(), &request.get_ref().instance_name)?;
        let message = request.into_inner();
        let fields = Fields {
            digest_field: "root_directory_digest",
            digest: message.root_directory_digest.as_ref(),
            expire_at: message.expire_at,
            blobs: &message.references_blobs,
            directories: &message.references_directories,
        };
        let record = self.record(&fields, message.digest_function)?;
        let names = Names::parse(Kind::Directory, message.uris, message.qualifiers);
        self.push(&message.instance_name, names.map_err(bad_names)?, record, &reservation).await?;
        Ok(PushDirectoryResponse {})
    }

    fn record(&self, fields: &Fields<'_>, function: i32) -> Result<Record, Status> {
        let function = request::function_of(&self.offer.functions, function, fields.digest)?;
        Record::parse(fields, function, SystemTime::now()).map_err(bad_record)
    }

    async fn push(
        self,
        instance_name: &str,
        names: Names,
        record: Record,
        reservation: &Reservation,
    ) -> Result<(), Status> {
        let instance = request::instance_name(&self.offer, instance_name)?;
        reservation.grow_by(RECORD_BYTES)?;
        let _turn = self.lookups.turn().await;
        blocking::run(move || {
            let pushed = Assets::of(&self.store).push(&instance, &names, &record);
            pushed.map_err(asset_failed)?;
            self.store.make_durable().map_err(status::store)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::StoreError;

    #[test]
    fn codes() {
        let check = |status: Status, code, part: &str| {
            assert_eq!(status.code(), code);
            assert!(status.message().contains(part), "{status}");
        };
        check(bad_names(NamesError::NoUri), Code::InvalidArgument, "uris");
        check(bad_record(RecordError::Time("expire_at")), Code::InvalidArgument, "expire_at");
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        let absent = AssetError::Absent { digest };
        check(asset_failed(absent), Code::FailedPrecondition, "not here");
        let closed = AssetError::Read { uri: "urn:a".into(), source: StoreError::Closed };
        check(asset_failed(closed), Code::Unavailable, "urn:a");
    }
}
