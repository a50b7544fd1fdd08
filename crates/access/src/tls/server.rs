//! TLS by rustls.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::TlsFiles;
use crate::certificate::CertificateNames;
use crate::trusted_file::{self, Content, TrustedFileError};

/// The time for a client to complete the handshake. It takes two round trips and some milliseconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The protocol that runs inside TLS (RFC 7301): HTTP/2, as gRPC needs.
const HTTP2: &[u8] = b"h2";

/// The reason why TLS can't be offered. No variant contains a part of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be trusted.
    #[error(transparent)]
    File(#[from] TrustedFileError),
    /// A file has another content than it should have.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem with it.
        reason: &'static str,
    },
    /// The server's certificate is outside of its validity period, so that no client would accept it.
    #[error("{}: the certificate {}", path.display(), if *is_expired { "has expired" } else { "is not valid yet" })]
    NotValidNow {
        /// The file.
        path: PathBuf,
        /// Whether the period is over.
        is_expired: bool,
    },
    /// Certificate and key do not fit together, or are of a kind that is not supported.
    #[error("using the certificate {} with the key {}", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The error of the TLS library.
        #[source]
        source: rustls::Error,
    },
    /// A certificate of a CA can't be used.
    #[error("using the CA of client certificates {}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// The error of the verifier.
        #[source]
        source: VerifierBuilderError,
    },
    /// The provider of primitives lacks a part of TLS, which is an error of the build.
    #[error("setting up TLS")]
    Provider(#[source] rustls::Error),
}

/// A failed handshake.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the client did not complete the handshake in {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Refused(#[from] io::Error),
    #[error("the client's certificate can't be read")]
    Certificate(#[source] webpki::Error),
}

/// TLS with the certificates of some files.
pub struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

impl fmt::Debug for Tls {
    /// Names the files only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Certificates that were read and checked, and are not in use yet.
pub struct NewCertificates(Arc<ServerConfig>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] for a file that can't be used.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let config = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, config })
    }

    /// Whether every client needs a certificate.
    pub fn asks_for_certificates(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Reads the files again, without effect until [`Self::replace`].
    ///
    /// # Errors
    /// [`TlsError`] for a file that can't be used.
    pub fn read_again(&self) -> Result<NewCertificates, TlsError> {
        read(&self.files).map(Arc::new).map(NewCertificates)
    }

    /// Uses the new certificates for new connections. Those that are open go on.
    pub fn replace(&self, new: NewCertificates) {
        *self.config.write() = new.0;
    }

    /// Performs the handshake with a client.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<CertificateNames>), HandshakeError> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config.read()));
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
            .await
            .map_err(|_| HandshakeError::Timeout)??;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = certificate.map(names_of).transpose().map_err(HandshakeError::Certificate)?;
        Ok((stream, names))
    }
}

fn names_of(certificate: &CertificateDer<'_>) -> Result<CertificateNames, webpki::Error> {
    let certificate = webpki::EndEntityCert::try_from(certificate)?;
    let (uris, dns_names) = (certificate.valid_uri_names(), certificate.valid_dns_names());
    Ok(CertificateNames::new(uris, dns_names, certificate.subject()))
}

fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.certificate)?;
    let key_bytes = trusted_file::read(&files.key, Content::Secret)?;
    let key = PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|_| TlsError::Content {
        path: files.key.clone(),
        reason: "no private key in PEM, or an encrypted one",
    })?;
    check_period(&files.certificate, chain.first(), &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?
        .with_client_cert_verifier(client_verifier(files.client_ca.as_deref(), provider)?);
    let pair = builder.with_single_cert(chain, key);
    let mut config = pair.map_err(|source| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    })?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = trusted_file::read(path, Content::Public)?;
    let wrong = |reason| TlsError::Content { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| wrong("not PEM"))?;
    if certificates.is_empty() { Err(wrong("no certificate in PEM")) } else { Ok(certificates) }
}

/// Fails if the certificate is outside of its validity period.
///
/// webpki has no function for that alone, but it checks the period before it looks for an issuer; what it
/// says of the issuer is of no interest here.
fn check_period(
    path: &Path,
    certificate: Option<&CertificateDer<'_>>,
    provider: &CryptoProvider,
) -> Result<(), TlsError> {
    let Some(certificate) = certificate else { return Ok(()) };
    // rustls names what is wrong with it in a moment.
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Ok(()) };
    let algorithms = provider.signature_verification_algorithms.all;
    let usage = webpki::KeyUsage::server_auth();
    let is_expired = match parsed
        .verify_for_usage(algorithms, &[], &[], UnixTime::now(), usage, None, None)
        .err()
    {
        Some(webpki::Error::CertExpired { .. }) => true,
        Some(webpki::Error::CertNotValidYet { .. }) => false,
        _ => return Ok(()),
    };
    Err(TlsError::NotValidNow { path: path.to_owned(), is_expired })
}

fn client_verifier(
    client_ca: Option<&Path>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|_| TlsError::Content {
            path: path.to_owned(),
            reason: "a certificate can't be parsed",
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|source| TlsError::ClientCa { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
