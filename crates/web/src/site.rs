//! The sources of the pages.

use std::sync::Arc;

use axum::http::HeaderMap;
use history::Archive;
use store::Store;

use crate::fact::Fact;
use crate::metrics::Metrics;
use crate::pages::cache::Shares;

/// Reads the facts about the daemon that the page shows. Called on a thread that must not block.
pub type Facts = Arc<dyn Fn() -> Vec<Fact> + Send + Sync>;

/// Decides by the headers of a request whether it is answered.
pub type MayRead = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// Writes the report of `doctor`. Called on a thread that may block.
pub type Report = Arc<dyn Fn() -> String + Send + Sync>;

/// Adds up what is in the store. Called on a thread that may block.
pub type Usage = Arc<dyn Fn() -> Vec<Shares> + Send + Sync>;

/// The part that is shown.
#[derive(Clone)]
pub struct Site {
    /// Decides who sees running actions and metrics.
    pub may_read: MayRead,
    /// Decides who sees past actions, blobs and the machine: those of all instances.
    pub may_read_all: MayRead,
    /// The blobs.
    pub blobs: Arc<Store>,
    /// The content of the store.
    pub usage: Usage,
    /// The findings about the machine.
    pub doctor: Report,
    /// The version that runs.
    pub version: &'static str,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Past and present actions.
    pub archive: Archive,
    /// The state of the store.
    pub store: Facts,
}

#[cfg(test)]
pub(crate) mod tests {
    use store::StoreOptions;

    use super::*;

    /// A site with an empty store.
    pub(crate) fn site(may_read: MayRead) -> Site {
        let metrics = Arc::new(Metrics::new("1", Vec::new()).unwrap());
        let store: Facts = Arc::new(|| vec![Fact { name: "blobs", value: "12".into() }]);
        let folder = tempfile::tempdir().unwrap();
        let blobs = Store::open(&folder.path().join("root"), StoreOptions::default()).unwrap();
        Site {
            may_read_all: Arc::clone(&may_read),
            may_read,
            blobs,
            usage: Arc::new(Vec::new),
            doctor: Arc::new(|| "<all> is well".to_owned()),
            version: "1",
            metrics,
            archive: Archive::default(),
            store,
        }
    }
}
