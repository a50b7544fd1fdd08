//! An object store: a directory, or a bucket of a service. Its layout is in `docs/engines.md`.
//!
//! The work of an object store runs on threads of its own. A network file system that hangs blocks those, and nothing of
//! the local store.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use model::{Digest, DigestFunction};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::abilities::Abilities;
use crate::call_error::{CallError, lost};
use crate::config::Config;
use crate::directory::Directory;
use crate::error::UpstreamError;
use crate::object_error::text;
use crate::objects::Objects;
use crate::place::{ObjectsAddress, Service};

/// The first part of the name of each object, so that another layout can stand beside this one.
const LAYOUT: &str = "actiond-1";

/// Threads that wait for a file system: as many as it may be asked at once, and as many as it can make hang.
const FILE_THREADS: usize = 32;

/// Uploads in parts at the same time, each of which holds a part in memory.
const UPLOADS: usize = 8;

/// Blobs that are remembered as damaged. More are written anew when somebody asks for them once more.
const DAMAGED_MAX: usize = 10_000;

/// An object store.
pub(crate) struct Bucket {
    objects: Objects,
    root: Path,
    threads: Threads,
    pub(crate) uploads: Semaphore,
    /// Blobs whose objects have another content. They count as missing, so that the next one who has the content
    /// replaces it.
    damaged: Mutex<HashSet<Digest>>,
}

struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A call to a file system that hangs may never return.
            runtime.shutdown_background();
        }
    }
}

/// Work on the threads of an object store; ends when dropped.
struct Work<T>(JoinHandle<T>);

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bucket {
    /// The object store at that address. Nothing is connected yet.
    ///
    /// # Errors
    /// When the directory is not there, or the environment does not describe the service.
    pub(crate) fn open(address: &ObjectsAddress, config: &Config) -> Result<Self, UpstreamError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(FILE_THREADS)
            .thread_name("objects")
            .enable_all()
            .build()
            .map_err(UpstreamError::Threads)?;
        let (objects, root) = match address {
            ObjectsAddress::Files(path) => {
                if !path.is_dir() {
                    return Err(UpstreamError::NoDirectory { path: path.clone() });
                }
                (Objects::Files(Arc::new(Directory::new(path))), Path::default())
            }
            ObjectsAddress::Bucket { service, bucket, prefix } => {
                let store = connect(*service, bucket, config, address)?;
                (Objects::Service(store), Path::from(prefix.as_str()))
            }
        };
        Ok(Self {
            objects,
            root: root.join(LAYOUT),
            threads: Threads(Some(runtime)),
            uploads: Semaphore::new(UPLOADS),
            damaged: Mutex::default(),
        })
    }

    /// The name of a blob.
    pub(crate) fn blob(&self, digest: &Digest) -> Path {
        object(&self.root.clone().join("cas"), digest)
    }

    /// The name of a result. That of the instance is hashed, because it may have any character and any length.
    pub(crate) fn result_object(&self, instance: &str, action: &Digest) -> Path {
        let instance = Digest::of(DigestFunction::Sha256, instance.as_bytes()).hex();
        object(&self.root.clone().join("ac").join(instance), action)
    }

    /// Asks whether the directory or the bucket is there.
    pub(crate) async fn probe(&self) -> Result<Abilities, CallError> {
        let root = self.root.clone();
        self.run(|objects| objects.probe(root)).await?;
        Ok(Abilities::of_objects())
    }

    /// Does something on the threads of the object store, as long as the caller waits for it.
    pub(crate) async fn run<T, F>(&self, work: impl FnOnce(Objects) -> F) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let Some(runtime) = &self.threads.0 else { return Err(CallError::Down) };
        let mut work = Work(runtime.spawn(work(self.objects.clone())));
        (&mut work.0).await.map_err(lost)?
    }

    /// Remembers that the object of this blob has another content.
    pub(crate) fn mark_damaged(&self, digest: &Digest) {
        let mut damaged = self.damaged.lock();
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(*digest);
        }
    }

    /// Whether the object of this blob was found to have another content.
    pub(crate) fn is_damaged(&self, digest: &Digest) -> bool {
        self.damaged.lock().contains(digest)
    }

    /// Forgets that, since the object was replaced.
    pub(crate) fn mark_whole(&self, digest: &Digest) {
        self.damaged.lock().remove(digest);
    }
}

/// The name of what has that digest: by the first byte of its hash, because a directory with a million files is slow.
fn object(folder: &Path, digest: &Digest) -> Path {
    let hex = digest.hex();
    let folder = folder.clone().join(digest.function().name()).join(&hex[..2]);
    folder.join(format!("{hex}-{}", digest.size_bytes()))
}

/// A client of a service. Region, endpoint, credentials and the rest are those of the environment.
fn connect(
    service: Service,
    bucket: &str,
    config: &Config,
    address: &ObjectsAddress,
) -> Result<Arc<dyn ObjectStore>, UpstreamError> {
    // The provider of the whole process; an error says that there is one.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    // The link tries again, and knows when to stop.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    Ok(match service {
        Service::S3 => {
            let options = options("AWS_", config, address)?;
            let builder = AmazonS3Builder::from_env().with_client_options(options);
            let builder = builder.with_bucket_name(bucket).with_retry(retry);
            Arc::new(builder.build().map_err(unusable(address))?)
        }
        Service::Google => {
            let options = options("GOOGLE_", config, address)?;
            let builder = GoogleCloudStorageBuilder::from_env().with_client_options(options);
            let builder = builder.with_bucket_name(bucket).with_retry(retry);
            Arc::new(builder.build().map_err(unusable(address))?)
        }
        Service::Azure => {
            let options = options("AZURE_", config, address)?;
            let builder = MicrosoftAzureBuilder::from_env().with_client_options(options);
            let builder = builder.with_container_name(bucket).with_retry(retry);
            Arc::new(builder.build().map_err(unusable(address))?)
        }
    })
}

/// The options of connections: those of the environment with that beginning, and our bounds and certificates.
fn options(
    start: &str,
    config: &Config,
    address: &ObjectsAddress,
) -> Result<ClientOptions, UpstreamError> {
    let mut options = ClientOptions::new();
    for (name, value) in std::env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        let key = name.strip_prefix(start).map(str::to_ascii_lowercase);
        if let Some(Ok(key)) = key.map(|key| key.parse()) {
            options = options.with_config(key, value);
        }
    }
    // The link bounds a whole transfer by its size, and the time for each piece.
    options = options.with_timeout_disabled().with_connect_timeout(config.timeout);
    if let Some(path) = &config.security.ca {
        let read = std::fs::read(path);
        let pem = read.map_err(|source| UpstreamError::Read { path: path.clone(), source })?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(unusable(address))?;
        if certificates.is_empty() {
            return Err(UpstreamError::NoCertificate { path: path.clone() });
        }
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

/// What `object_store` says of an `az://` address if the environment names no account.
const NO_ACCOUNT: &str = "Account must be specified";

fn unusable(address: &ObjectsAddress) -> impl Fn(object_store::Error) -> UpstreamError {
    move |error| {
        let mut text = text(&error);
        if text.contains(NO_ACCOUNT) {
            text.push_str(": set AZURE_STORAGE_ACCOUNT_NAME");
        }
        UpstreamError::Objects { place: address.to_string(), source: text.into() }
    }
}
