//! An object store: a directory, or a bucket of a service. Its layout is in `docs/engines.md`.
//!
//! The work of an object store runs on threads of its own. A network file system that hangs blocks those, and nothing of
//! the local store.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use model::{Digest, DigestFunction};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::abilities::Abilities;
use crate::call_error::{CallError, lost};
use crate::config::Config;
use crate::error::UpstreamError;
use crate::place::{ObjectsAddress, Service};

/// The first part of the name of each object, so that another layout can stand beside this one.
const LAYOUT: &str = "actiond-1";

/// Threads that wait for a file system: as many as it may be asked at once, and as many as it can make hang.
const FILE_THREADS: usize = 32;

/// Uploads in parts at the same time, each of which holds a part in memory.
const UPLOADS: usize = 8;

/// Blobs that are remembered as damaged. More are written anew when somebody asks for them once more.
const DAMAGED_MAX: usize = 10_000;

/// The characters of an error of an object store that are shown.
const TEXT_CHARS_MAX: usize = 500;

/// An object store.
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// The directory of a `file://` address.
    directory: Option<PathBuf>,
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
        let (store, directory, root) = match address {
            ObjectsAddress::Files(path) => {
                if !path.is_dir() {
                    return Err(UpstreamError::NoDirectory { path: path.clone() });
                }
                let files = LocalFileSystem::new_with_prefix(path).map_err(unusable(address))?;
                // Without it a crash of the machine leaves names of blobs without their content.
                let files = files.with_fsync(true);
                (Arc::new(files) as Arc<dyn ObjectStore>, Some(path.clone()), Path::default())
            }
            ObjectsAddress::Bucket { service, bucket, prefix } => {
                let store = connect(*service, bucket, config, address)?;
                (store, None, Path::from(prefix.as_str()))
            }
        };
        Ok(Self {
            store,
            directory,
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
        let (directory, root) = (self.directory.clone(), self.root.clone());
        self.run(|store| async move {
            match directory {
                Some(path) => is_there(path).await,
                None => match store.list(Some(&root)).try_next().await {
                    Ok(_) => Ok(()),
                    Err(object_store::Error::NotFound { .. }) => {
                        Err(failed("there is no such bucket"))
                    }
                    Err(error) => Err(call_error(&error)),
                },
            }
        })
        .await?;
        Ok(Abilities::of_objects())
    }

    /// As [`Bucket::run`], for a write. A directory that is gone is not made again: its mount may be gone.
    pub(crate) async fn write_on<F>(
        &self,
        work: impl FnOnce(Arc<dyn ObjectStore>) -> F + Send + 'static,
    ) -> Result<(), CallError>
    where
        F: Future<Output = Result<(), CallError>> + Send + 'static,
    {
        let directory = self.directory.clone();
        self.run(|store| async move {
            if let Some(path) = directory {
                is_there(path).await?;
            }
            work(store).await
        })
        .await
    }

    /// Does something on the threads of the object store, as long as the caller waits for it.
    pub(crate) async fn run<T, F>(
        &self,
        work: impl FnOnce(Arc<dyn ObjectStore>) -> F,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let Some(runtime) = &self.threads.0 else { return Err(CallError::Down) };
        let mut work = Work(runtime.spawn(work(Arc::clone(&self.store))));
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

/// Fails if the path is not a directory.
async fn is_there(path: PathBuf) -> Result<(), CallError> {
    match tokio::task::spawn_blocking(move || path.is_dir()).await.map_err(lost)? {
        true => Ok(()),
        false => Err(failed("the directory is gone")),
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
        for certificate in Certificate::from_pem_bundle(&pem).map_err(unusable(address))? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn unusable(address: &ObjectsAddress) -> impl Fn(object_store::Error) -> UpstreamError {
    move |error| UpstreamError::Objects { place: address.to_string(), source: text(&error).into() }
}

/// The error of an object store as one of a call.
pub(crate) fn call_error(error: &object_store::Error) -> CallError {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => CallError::Missing,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            CallError::Refused(Box::new(Status::permission_denied(text(error))))
        }
        Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::NotImplemented { .. }
        | Error::UnknownConfigurationKey { .. } => {
            CallError::Refused(Box::new(Status::invalid_argument(text(error))))
        }
        error => failed(&text(error)),
    }
}

/// The error of an upstream that did not do what it should.
pub(crate) fn failed(text: &str) -> CallError {
    CallError::Failed(Box::new(Status::unavailable(text)))
}

/// An error of an object store with its causes, without what may be secret: the query of an address, where Azure's
/// signatures are.
fn text(error: &object_store::Error) -> String {
    let mut whole = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // Most of them print their causes.
        let next = error.to_string();
        if !whole.contains(&next) {
            // Writing to a string cannot fail.
            let _ = write!(whole, ": {next}");
        }
        cause = error.source();
    }
    without_queries(&whole).chars().take(TEXT_CHARS_MAX).collect()
}

/// The text without what follows a question mark, up to the next space, bracket or quote.
fn without_queries(text: &str) -> String {
    let mut is_query = false;
    let is_shown = |character: &char| {
        let is_end = character.is_whitespace() || "()<>[]\"'".contains(*character);
        let was_query = is_query && !is_end;
        is_query = was_query || *character == '?';
        !was_query
    };
    text.chars().filter(is_shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_not_shown() {
        for (text, expected) in [
            ("no query", "no query"),
            ("GET https://a/b?sig=secret&x=1 failed", "GET https://a/b? failed"),
            ("url (https://a/b?sig=secret): why?", "url (https://a/b?): why?"),
            ("\"https://a?s\" 'b?c?d' e", "\"https://a?\" 'b?' e"),
        ] {
            assert_eq!(without_queries(text), expected);
        }
    }
}
