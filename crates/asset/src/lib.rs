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
//! This crate fetches nothing: a URI is a name, whatever its scheme is, and only what was pushed is found.
//!
//! - [`names`]: the URIs and qualifiers of a request.
//! - [`record`]: an association, and its form in the store.
//! - [`assets`]: records in the store, and whether their content is there.

mod assets;
mod names;
mod record;

pub use assets::{AssetError, Assets, MAX_DIRECTORIES};
pub use names::{Kind, Names, NamesError};
pub use record::{Fields, Record, RecordError, parse_time};
