//! Content from where it comes from: what is asked of an origin, and how it may fail.
//!
//! The trait stands here and its implementation elsewhere, so that a server without one has no HTTP client inside.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use model::{Digest, DigestFunction};
use store::{Store, StoreError};

use crate::demands::Demands;

/// The outcome of a fetch, later.
pub type Fetching = Pin<Box<dyn Future<Output = Result<Digest, OriginError>> + Send>>;

/// A blob that is to be fetched from one URI.
#[derive(Clone)]
pub struct Wish {
    /// The URI.
    pub uri: String,
    /// Its place among the URIs of the request, which headers may be for.
    pub index: usize,
    /// The digest function of the blob.
    pub function: DigestFunction,
    /// The hashes that the content must have, and the headers of the request to the origin.
    pub demands: Arc<Demands>,
    /// The store that takes the blob.
    pub store: Arc<Store>,
    /// The time for the whole fetch.
    pub timeout: Duration,
}

/// The origins that URIs name.
pub trait Origin: Send + Sync {
    /// The host that a URI names, if it has a scheme that this origin opens; empty if it names none that can be read.
    fn host(&self, uri: &str) -> Option<String>;

    /// Fetches a blob into the store. Nothing of it is visible before it was found to be what the wish demands.
    fn fetch(&self, wish: Wish) -> Fetching;
}

/// An error of a fetch. Texts name the host, and never the whole URI, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The operator does not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// The origin refuses the request.
    #[error("{host} answered {status}: it refuses the request")]
    Refused {
        /// The host.
        host: String,
        /// The status of HTTP.
        status: u16,
    },
    /// The origin does not have it.
    #[error("{host} answered {status}: it does not have the file")]
    NotFound {
        /// The host.
        host: String,
        /// The status of HTTP.
        status: u16,
    },
    /// The content is not what the client demands.
    #[error("the content from {host} has the {function} hash {found}, not {expected}")]
    Mismatch {
        /// The host.
        host: String,
        /// The function of the hash.
        function: DigestFunction,
        /// The hash of what came, in hexadecimal digits.
        found: String,
        /// The hashes that would have been right.
        expected: String,
    },
    /// The content is too large.
    #[error(
        "the content from {host} has more than {max_bytes} bytes, which is the most that is fetched"
    )]
    TooLarge {
        /// The host.
        host: String,
        /// The bound.
        max_bytes: u64,
    },
    /// It took too long.
    #[error("the fetch did not end within {} s", after.as_secs())]
    TimedOut {
        /// The time that it had.
        after: Duration,
    },
    /// It sends hardly anything.
    #[error("{host} sent only {bytes} bytes in {seconds} s")]
    TooSlow {
        /// The host.
        host: String,
        /// The bytes that came.
        bytes: u64,
        /// The time in which they came.
        seconds: u64,
    },
    /// The origin can't be reached, or its answer is of no use.
    #[error("{host}: {problem}")]
    Failed {
        /// The host.
        host: String,
        /// The problem.
        problem: String,
    },
    /// The store refused the content.
    #[error("storing the content from {host}")]
    Store {
        /// The host.
        host: String,
        /// The reason.
        source: StoreError,
    },
}
