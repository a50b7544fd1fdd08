//! The reasons why there is no tier. Later errors are those of calls, which go to the log and to metrics only.

use std::path::PathBuf;

use crate::journal::JournalError;

/// Why there is no tier.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection can be made to such an address.
    #[error("{address} is not an address")]
    Address {
        /// The address.
        address: String,
        /// The reason.
        source: tonic::transport::Error,
    },
    /// The settings of TLS can't be used.
    #[error("the certificates can't be used")]
    Tls(#[source] tonic::transport::Error),
    /// A file is not what was meant, or damaged.
    #[error("{path} has no certificate in PEM, which begins with `-----BEGIN CERTIFICATE-----`")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// As [`Self::NoCertificate`].
    #[error(
        "{path} has no private key in PEM without a password, which begins with `-----BEGIN PRIVATE KEY-----`"
    )]
    NoPrivateKey {
        /// The file.
        path: PathBuf,
    },
    /// This program was built without TLS.
    #[error("this program was built without TLS: grpcs:// addresses need the feature `tls`")]
    NoTls,
    /// This program was built without object stores.
    #[error(
        "this program was built without object stores: file://, s3://, gs:// and az:// addresses need the feature \
         `objects`"
    )]
    NoObjects,
    /// The directory of a `file://` address does not exist.
    #[error("{path} is not a directory: make it, or mount what holds it")]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The environment does not describe the object store.
    #[error("can't use {place}; its settings come from the environment")]
    Objects {
        /// The place.
        place: String,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file can't be read.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The threads can't be started.
    #[error("can't start the threads of the upstream")]
    Threads(#[source] std::io::Error),
    /// The journal can't be used.
    #[error("the journal of results for the upstream")]
    Journal(#[from] JournalError),
}
