//! The page and the metrics that the daemon serves over HTTP.
//!
//! ```text
//!  events ──┬─► metrics ──► GET /metrics      Prometheus text, or OpenMetrics
//!           └─► archive ─┬► GET /, /events    running, queued and recent actions, and their changes
//!                        └► GET /invocations, /invocation, /action, /search
//!  store ──────────────────► GET /action, /directory, /blob, /compare, /cache
//! ```
//!
//! - [`Metrics`] counts events; [`Reading`]s are taken at each scrape.
//! - `pages` has a module for each page about past actions.
//! - [`serve`] answers requests. It only ever reads: there is no request that changes anything.
//!
//! The page works without JavaScript; with it, it stays current by itself. Everything that a client
//! of the daemon named (targets, tools, errors) is escaped, and a content security policy forbids
//! scripts other than the page's own.

mod ansi;
mod download;
mod fact;
mod html;
mod live;
mod metrics;
mod open_metrics;
mod page;
mod pages;
mod server;
mod site;

pub use fact::Fact;
pub use metrics::{Metrics, MetricsError, Reading, ReadingKind};
pub use pages::cache::{Share, Shares};
pub use server::serve;
pub use site::{Facts, MayRead, Report, Site, Usage};
