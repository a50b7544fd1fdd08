//! The whole, wired: a runtime of its own, links, tasks, and what the store's users call.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::Digest;
use parking_lot::Mutex;
use store::{Pending, Store, Tier};
use tokio::runtime::{Handle, Runtime};

use crate::config::{Config, Writes};
use crate::counters::Counts;
use crate::error::UpstreamError;
use crate::fetch::Fetcher;
use crate::journal::{Entry, Journal};
use crate::link::Link;
use crate::publish::{PUBLISHERS, Publisher};

/// Threads that drive connections to the upstream: TLS and unpacking of two streams at once.
const THREADS: usize = 2;

/// Threads that store what arrives: one for each stream and batch, and some for results.
const DISK_THREADS: usize = 48;

/// The time for what is under way at the end. What is not copied by then is in the journal.
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
        let results = config
            .action_cache
            .as_ref()
            .map(|address| Link::new("ac", address, config))
            .transpose()?;
        for link in [Some(&blobs), results.as_ref()].into_iter().flatten().map(Arc::clone) {
            handle.spawn(async move { link.watch().await });
        }
        let (cas, action_cache) = (store.cas().clone(), store.action_cache().clone());
        let publisher = match &results {
            Some(results) if config.writes != Writes::Off => {
                let publisher = Arc::new(Publisher {
                    cas: cas.clone(),
                    action_cache: action_cache.clone(),
                    blobs: Arc::clone(&blobs),
                    results: Arc::clone(results),
                    journal: Arc::new(Journal::open(&journal_path(store.path()))?),
                    entries: config.entries,
                });
                for _ in 0..PUBLISHERS {
                    let publisher = Arc::clone(&publisher);
                    handle.spawn(async move { publisher.run().await });
                }
                Some(publisher)
            }
            _ => None,
        };
        let fetcher = Arc::new(Fetcher::new(config.entries, cas, action_cache, blobs, results));
        let runtime = Mutex::new(Some(runtime));
        Ok(Arc::new(Self {
            runtime,
            handle: handle.clone(),
            fetcher,
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
                .map(|link| link.counts())
                .unwrap_or_default(),
            queued: journal.map_or(0, |journal| journal.len()),
            dropped: journal.map_or(0, |journal| journal.dropped()),
        }
    }

    /// Ends all work. What was not copied is copied after the next start. Must not be called inside of a
    /// runtime.
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
