//! TLS of TCP listeners: the server's certificate, and the CA of client certificates.
//!
//! ```text
//! files ──► ServerConfig ◄── SIGHUP: read again, replaced only as a whole
//!               │
//! TCP stream ──►│ handshake ──► encrypted stream and the names of the client's certificate
//! ```
//!
//! TLS 1.2 and 1.3 with ring's primitives and rustls's default choices. Sessions can't be resumed: a
//! resumed session would skip the check whether the client's certificate is still valid, and clients of
//! this protocol keep their connections.
//!
//! There are no revocation lists. To lock a client out before its certificate expires, list the other
//! clients in the file of principals, or sign with a new CA.

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod server;

use std::path::PathBuf;

#[cfg(not(feature = "tls"))]
pub use absent::{NewCertificates, Tls, TlsError};
#[cfg(feature = "tls")]
pub use server::{NewCertificates, Tls, TlsError};

/// The files of certificates and keys, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by intermediate ones.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificates of the CAs whose clients may connect. With it, every client needs a certificate.
    pub client_ca: Option<PathBuf>,
}
