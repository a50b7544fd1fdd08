//! Content by its URI: the associations of the Remote Asset API.
//!
//! A client pushes "this URI with these qualifiers is that blob", and others fetch it. An association is a small
//! record in the store, kept and evicted like a cached result; the content is blobs. A record is served only while
//! everything that it names is there, and to be served is a use, which extends lifetimes.
//!
//! ```text
//!  request ──► Names ──► key of each URI ──► Record ──► is all of it there? ──► its digest
//! ```
//!
//! This crate fetches nothing itself: a URI is a name, whatever its scheme is. What was not pushed is found only where the
//! operator has put an [`Origin`] behind the store, which opens URIs.
//!
//! - [`names`]: the URIs and qualifiers of a request.
//! - [`record`]: an association, and its form in the store.
//! - [`demands`]: what qualifiers demand of content that comes from its origin.
//! - [`origin`]: where content comes from that was not pushed.
//! - [`assets`]: records in the store, and whether their content is there.

mod assets;
mod demands;
mod names;
mod origin;
mod record;

pub use assets::{AssetError, Assets, MAX_DIRECTORIES};
pub use demands::{Checker, Demands, DemandsError, Mismatch};
pub use names::{Kind, Names, NamesError};
pub use origin::{Fetching, Origin, OriginError, Wish};
pub use record::{Fields, Record, RecordError, parse_time};
