//! The page and the metrics that the daemon serves over HTTP.
//!
//! ```text
//!  events ──┬─► metrics ──► GET /metrics    Prometheus text
//!           └─► now     ──► GET /           running, queued and recent actions
//! ```
//!
//! - [`Metrics`] counts events; [`Reading`]s are taken at each scrape.
//! - [`Now`] remembers running actions and the last ones that ended.
//! - [`serve`] answers requests. It only ever reads: there is no request that changes anything.
//!
//! The page works without JavaScript; with it, it stays current by itself. Everything that a client
//! of the daemon named (targets, tools, errors) is escaped, and a content security policy forbids
//! scripts other than the page's own.

mod metrics;
mod page;
mod server;

pub use metrics::{Metrics, MetricsError, Reading, ReadingKind};
pub use page::Fact;
pub use server::{Facts, MayRead, Site, serve};
