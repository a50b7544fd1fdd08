//! The whole, wired: a runtime of its own, links, tasks, and what the store's users call.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::Digest;
use model::proto::ActionResult;
use parking_lot::Mutex;
use store::{Pending, Store, Tier};
use tokio::runtime::{Handle, Runtime};

use crate::call_error::CallError;
use crate::config::{Config, ResultsConfig, Writes};
use crate::counters::Counts;
use crate::delivery::{self, Delivery, DeliveryError};
use crate::error::UpstreamError;
use crate::fetch::{Fetcher, Results};
use crate::journal::{Entry, Journal};
use crate::link::Link;
use crate::publish::{PUBLISHERS, Publisher};
use crate::upload::Uploader;

/// Threads that drive connections to the upstream: TLS and unpacking of two streams at once.
const THREADS: usize = 2;

/// Threads that store what arrives: one for each stream and batch, and some for results.
const DISK_THREADS: usize = 48;

/// The time for copies that are under way at the end. Those that are not done by then are in the journal.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The name of the journal in the root directory of the store.
const JOURNAL: &str = "upstream";

/// The counters since the start, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blobs.
    pub cas: Counts,
    /// Cached results.
    pub action_cache: Counts,
    /// Results that wait to be copied.
    pub queued: u64,
    /// Results that were not copied: there was no room for more, or the upstream refused them.
    pub dropped: u64,
}

/// The tier below a store.
pub struct Upstream {
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
    fetcher: Arc<Fetcher>,
    uploader: Uploader,
    publisher: Option<Arc<Publisher>>,
    writes: Writes,
}

impl Upstream {
    /// The tier of a store. It connects in the background.
    ///
    /// # Errors
    /// When a file that the configuration names or the journal can't be used.
    pub fn open(config: &Config, store: &Store) -> Result<Arc<Self>, UpstreamError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(DISK_THREADS)
            .thread_name("upstream")
            .enable_all()
            .build()
            .map_err(UpstreamError::Threads)?;
        let handle = runtime.handle().clone();
        // Connections belong to the runtime in which they are made.
        let _inside = handle.enter();
        let blobs = Link::new("cas", &config.cas, config)?;
        let results = config.action_cache.as_ref().map(|ResultsConfig { place, entries }| {
            Link::new("ac", place, config).map(|link| Results { link, entries: *entries })
        });
        let results = results.transpose()?;
        let link_of_results = results.as_ref().map(|it| &it.link);
        for link in [Some(&blobs), link_of_results].into_iter().flatten().map(Arc::clone) {
            handle.spawn(async move { link.watch().await });
        }
        let (cas, action_cache) = (store.cas().clone(), store.action_cache().clone());
        let uploader = Uploader { cas: cas.clone(), blobs: Arc::clone(&blobs) };
        let publisher = match &results {
            Some(results) if config.writes != Writes::Off => {
                let publisher = Arc::new(Publisher {
                    uploader: uploader.clone(),
                    action_cache: action_cache.clone(),
                    results: results.clone(),
                    journal: Arc::new(Journal::open(&journal_path(store.path()))?),
                });
                for _ in 0..PUBLISHERS {
                    let publisher = Arc::clone(&publisher);
                    handle.spawn(async move { publisher.run().await });
                }
                Some(publisher)
            }
            _ => None,
        };
        let fetcher = Arc::new(Fetcher::new(cas, action_cache, blobs, results));
        let runtime = Mutex::new(Some(runtime));
        Ok(Arc::new(Self {
            runtime,
            handle: handle.clone(),
            fetcher,
            uploader,
            publisher,
            writes: config.writes,
        }))
    }

    /// The counters since the start.
    pub fn stats(&self) -> Stats {
        let journal = self.publisher.as_ref().map(|publisher| &publisher.journal);
        Stats {
            cas: self.fetcher.blobs.counts(),
            action_cache: self
                .fetcher
                .results
                .as_ref()
                .map(|results| results.link.counts())
                .unwrap_or_default(),
            queued: journal.map_or(0, |journal| journal.len()),
            dropped: journal.map_or(0, |journal| journal.dropped()),
        }
    }

    /// Whether both servers answered when they were last asked.
    pub fn is_up(&self) -> bool {
        self.links().all(Link::is_up)
    }

    /// Waits until both servers answer.
    pub async fn until_up(&self) {
        for link in self.links() {
            link.until_up().await;
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        [Some(&self.fetcher.blobs), self.fetcher.results.as_ref().map(|it| &it.link)]
            .into_iter()
            .flatten()
            .map(|link| &**link)
    }

    /// Copies all blobs that a result names to the upstream before it returns, and then the result itself if `keeps` says
    /// so, where the upstream takes results. `instance` is the part of the instance name after that of the address.
    ///
    /// # Errors
    /// The first thing that could not be copied. To try again is safe.
    pub async fn deliver(
        &self,
        instance: &str,
        action: Digest,
        result: ActionResult,
        keeps: bool,
    ) -> Result<(), DeliveryError> {
        let delivery = Delivery {
            uploader: self.uploader.clone(),
            results: self.fetcher.results.clone().filter(|_| keeps).map(|it| it.link),
            instance: instance.to_owned(),
            action,
            result,
        };
        self.run(async move { delivery.run().await }).await
    }

    /// Copies blobs, all of one function, to the upstream before it returns.
    ///
    /// # Errors
    /// As [`Self::deliver`].
    pub async fn send(&self, blobs: Vec<Digest>) -> Result<(), DeliveryError> {
        let uploader = self.uploader.clone();
        self.run(async move { delivery::send(&uploader, blobs).await }).await
    }

    /// Those of the blobs, all of one function, that the upstream lacks.
    ///
    /// # Errors
    /// When the upstream does not say.
    pub async fn absent(&self, blobs: Vec<Digest>) -> Result<Vec<Digest>, DeliveryError> {
        let link = Arc::clone(&self.fetcher.blobs);
        self.run(async move { Ok(link.missing(&blobs, &Bytes::new()).await?) }).await
    }

    /// Runs `work` on the threads of the upstream, and to its end, also when nobody waits for it.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DeliveryError>> + Send + 'static,
    ) -> Result<T, DeliveryError> {
        // An error means that the task panicked, which is logged, or that the daemon ends.
        self.handle.spawn(work).await.unwrap_or_else(|_| Err(CallError::Down.into()))
    }

    /// Ends all work. Results that were not copied are copied after the next start. Must not be called inside of
    /// a runtime.
    pub fn close(&self) {
        let Some(runtime) = self.runtime.lock().take() else { return };
        let Stats { cas, action_cache, queued, dropped } = self.stats();
        tracing::info!(
            blobs = cas.hits,
            blob_misses = cas.misses,
            received_bytes = cas.received_bytes,
            sent_bytes = cas.sent_bytes,
            results = action_cache.hits,
            result_misses = action_cache.misses,
            failures = cas.failures + action_cache.failures,
            queued,
            dropped,
            "the upstream"
        );
        runtime.shutdown_timeout(CLOSE_TIMEOUT);
    }

    /// Work that goes on when nobody waits for it.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Pending {
        let task = self.handle.spawn(work);
        Box::pin(async move {
            // An error means that the task panicked, which is logged, or that the daemon ends.
            let _ = task.await;
        })
    }
}

fn journal_path(root: &Path) -> PathBuf {
    root.join(JOURNAL)
}

impl Tier for Upstream {
    fn fetch(&self, blobs: Vec<Digest>, caller: Bytes) -> Pending {
        let fetcher = Arc::clone(&self.fetcher);
        self.spawn(async move { fetcher.fetch(blobs, &caller).await })
    }

    fn fetch_result(&self, instance: &str, action: Digest, caller: Bytes) -> Pending {
        let (fetcher, instance) = (Arc::clone(&self.fetcher), instance.to_owned());
        self.spawn(async move { fetcher.fetch_result(&instance, action, &caller).await })
    }

    fn publish(&self, instance: &str, action: Digest) -> Pending {
        let Some(publisher) = &self.publisher else { return Box::pin(std::future::ready(())) };
        let entry = Entry { instance: instance.to_owned(), action };
        if self.writes == Writes::Behind {
            publisher.journal.add(entry);
            return Box::pin(std::future::ready(()));
        }
        let publisher = Arc::clone(publisher);
        self.spawn(async move {
            if publisher.publish(&entry).await.is_err() {
                publisher.journal.add(entry);
            }
        })
    }
}
