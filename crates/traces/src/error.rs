//! Errors of the start, and the bound of a call.

use std::io;
#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::time::Duration;

use upstream::UpstreamError;

/// The time for connecting, and that for an answer.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Errors of the start.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The connection can't be configured.
    #[error("can't configure the connection to the collector of traces")]
    Connect(#[source] UpstreamError),
    /// A file can't be read.
    #[cfg(feature = "tls")]
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file has no certificates.
    #[cfg(feature = "tls")]
    #[error("{path} has no certificates in PEM")]
    Certificates {
        /// The file.
        path: PathBuf,
    },
    /// The settings of TLS can't be used.
    #[cfg(feature = "tls")]
    #[error("the settings of TLS for the collector can't be used")]
    Tls(#[source] tokio_rustls::rustls::Error),
    /// This program was built without TLS.
    #[cfg(not(feature = "tls"))]
    #[error("this program was built without TLS: https:// addresses need the feature `tls`")]
    NoTls,
    /// The thread can't be started.
    #[error("can't start the thread that sends traces")]
    Thread(#[source] io::Error),
}
