//! `actiond.internal.v1.Images`: the root file systems that actions can choose, changed while the server runs.
//!
//! An operator's program unpacks an image and uploads its blobs like any client; here it is shown and recorded.

use std::convert::Infallible;
use std::sync::Arc;

use images::{ChangeError, ImageName, OpenImageError, Record, RecordError};
use proto::actiond::internal::v1::{
    Image, ListImagesRequest, ListImagesResponse, PutImageRequest, PutImageResponse,
    RemoveImageRequest, RemoveImageResponse,
};
use rustix::io::Errno;
use store::is_exhaustion;
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Code, Request, Response, Status};
use worker::Worker;

use crate::grpc::{Call, Methods};
use crate::{blocking, request, status};

/// The longest `manifest` of an image: the digest of SHA-512 with its name has 135 characters.
const MAX_MANIFEST_BYTES: usize = 200;

/// The service.
#[derive(Clone)]
pub(crate) struct ImageService {
    /// `None`: this server takes no changes.
    images: Option<Arc<images::Images>>,
    worker: Worker,
    /// One change at a time: more would only hold threads.
    turn: Arc<Semaphore>,
}

impl ImageService {
    pub(crate) fn new(images: Option<Arc<images::Images>>, worker: Worker) -> Self {
        Self { images, worker, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Runs `work` once no other change is under way, and puts away what is left of images that are gone.
    async fn change(
        self,
        work: impl FnOnce(&images::Images) -> Result<(), ChangeError> + Send + 'static,
    ) -> Result<(), Status> {
        let images = self.images.ok_or_else(|| {
            Status::failed_precondition("this server is read-only: its images can't be changed")
        })?;
        let turn = self.turn.acquire_owned().await;
        let turn = turn.map_err(|_| Status::unavailable("the server ends"))?;
        blocking::run(move || {
            let _turn = turn;
            work(&images).map_err(|error| not_changed(&error))?;
            self.worker.end_retired_sandboxes();
            Ok(())
        })
        .await
    }

    async fn put(
        self,
        request: Request<PutImageRequest>,
    ) -> Result<Response<PutImageResponse>, Status> {
        let record = record(request.into_inner().image.unwrap_or_default())?;
        self.change(move |images| images.put(&record)).await?;
        Ok(Response::new(PutImageResponse {}))
    }

    async fn remove(
        self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = name(&request.into_inner().name)?;
        self.change(move |images| images.remove(&name)).await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn list(self) -> Result<Response<ListImagesResponse>, Status> {
        let Some(images) = self.images else {
            return Ok(Response::new(ListImagesResponse::default()));
        };
        let records = blocking::run(move || images.list().map_err(|error| of_record(&error)));
        let image = |record: Record| Image {
            name: record.name.as_str().to_owned(),
            root_digest: Some(record.root.to_proto()),
            manifest: record.manifest,
        };
        let images = records.await?.into_iter().map(image).collect();
        Ok(Response::new(ListImagesResponse { images }))
    }
}

impl Methods for ImageService {
    const NAME: &'static str = "actiond.internal.v1.Images";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        match method {
            "ListImages" => call.unary(move |_: Request<ListImagesRequest>| self.clone().list()),
            "PutImage" => call.unary(move |request| self.clone().put(request)),
            "RemoveImage" => call.unary(move |request| self.clone().remove(request)),
            _ => call.unimplemented(),
        }
    }
}

/// The record that a request asks for.
fn record(Image { name, root_digest, manifest }: Image) -> Result<Record, Status> {
    let is_plain = manifest.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain || manifest.is_empty() || manifest.len() > MAX_MANIFEST_BYTES {
        return Err(Status::invalid_argument(
            "manifest is not a digest in visible ASCII characters, such as sha256:…",
        ));
    }
    let name = self::name(&name)?;
    let root = request::digest("root_digest", root_digest.as_ref(), images::FUNCTION)?;
    Ok(Record { name, root, manifest })
}

fn name(text: &str) -> Result<ImageName, Status> {
    text.parse().map_err(|error| status::of(Code::InvalidArgument, &error))
}

fn not_changed(error: &ChangeError) -> Status {
    let code = match error {
        ChangeError::Record(error) => return of_record(error),
        ChangeError::Unknown(_) => Code::NotFound,
        ChangeError::InUse { .. } | ChangeError::TooMany => Code::FailedPrecondition,
        ChangeError::Open { source, .. } => of_open(source),
    };
    status::of(code, error)
}

fn of_open(error: &OpenImageError) -> Code {
    match error {
        OpenImageError::Directories(_) | OpenImageError::View(_) => Code::InvalidArgument,
        OpenImageError::Incomplete(_) => Code::FailedPrecondition,
        OpenImageError::Present(error) if error.is_about_tree() => Code::InvalidArgument,
        OpenImageError::Present(error) if error.errno().is_some_and(is_exhaustion) => {
            Code::ResourceExhausted
        }
        OpenImageError::Present(_) | OpenImageError::Attach { .. } => Code::Internal,
    }
}

fn of_record(error: &RecordError) -> Status {
    let code = match error {
        RecordError::Io { source, .. } => match Errno::from_io_error(source) {
            Some(errno) if is_exhaustion(errno) => Code::ResourceExhausted,
            _ => Code::Internal,
        },
        RecordError::Damaged(_) => Code::DataLoss,
    };
    status::of(code, error)
}
