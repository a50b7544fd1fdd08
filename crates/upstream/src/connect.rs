//! Connections to servers, by plain TCP or TLS. They are made when they are first used, and again when they break.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::address::Address;
use crate::config::{Config, Security};
use crate::error::UpstreamError;

/// Silence after which a connection is tested, so that one that a firewall has dropped is found without a call.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Unread bytes of a stream: what arrives in 80 ms at 100 MB/s.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// Unread bytes of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Silence after which the kernel tests a connection on which a call may wait for minutes, and the pause between two
/// tests. Pings of HTTP/2 are of no use there: gRPC's server in Go closes a connection on which more than two come
/// without an answer to a call between them.
const TCP_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(5));

/// Tests without an answer after which the connection is broken.
const TCP_KEEPALIVE_RETRIES: u32 = 4;

/// A connection to a cache, with windows for large blobs.
pub(crate) fn to_cache(address: &Address, config: &Config) -> Result<Channel, UpstreamError> {
    let endpoint = endpoint(address, &config.security)?
        .connect_timeout(config.timeout)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(config.timeout);
    Ok(endpoint.connect_lazy())
}

/// A connection to a server on which calls may wait for minutes. To be called inside of a runtime.
///
/// # Errors
/// When the files of TLS can't be used.
pub fn connect(
    address: &Address,
    security: &Security,
    timeout: Duration,
) -> Result<Channel, UpstreamError> {
    let (idle, interval) = TCP_KEEPALIVE;
    let endpoint = endpoint(address, security)?
        .connect_timeout(timeout)
        .tcp_keepalive(Some(idle))
        .tcp_keepalive_interval(Some(interval))
        .tcp_keepalive_retries(Some(TCP_KEEPALIVE_RETRIES));
    Ok(endpoint.connect_lazy())
}

/// The settings of a connection that the caller makes itself.
///
/// # Errors
/// When the files of TLS can't be used.
pub fn endpoint(address: &Address, security: &Security) -> Result<Endpoint, UpstreamError> {
    let endpoint = Endpoint::from_shared(address.uri())
        .map_err(|source| UpstreamError::Address { address: address.to_string(), source })?
        .tcp_nodelay(true);
    if address.tls { with_tls(endpoint, security) } else { Ok(endpoint) }
}

#[cfg(feature = "tls")]
fn with_tls(endpoint: Endpoint, security: &Security) -> Result<Endpoint, UpstreamError> {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};

    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).map_err(|source| UpstreamError::Read { path: path.clone(), source })
    };
    // tonic takes a file without certificates, and then every connection fails.
    let certificates = |path: &std::path::PathBuf| {
        let pem = read(path)?;
        let first = CertificateDer::pem_slice_iter(&pem).next();
        let has_one = first.is_some_and(|certificate| certificate.is_ok());
        if has_one { Ok(pem) } else { Err(UpstreamError::NoCertificate { path: path.clone() }) }
    };
    let config = match &security.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificates(ca)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    let config = match &security.identity {
        Some((certificate, key)) => {
            let (certificate, key_pem) = (certificates(certificate)?, read(key)?);
            if PrivateKeyDer::from_pem_slice(&key_pem).is_err() {
                return Err(UpstreamError::NoPrivateKey { path: key.clone() });
            }
            config.identity(Identity::from_pem(certificate, key_pem))
        }
        None => config,
    };
    endpoint.tls_config(config).map_err(UpstreamError::Tls)
}

#[cfg(not(feature = "tls"))]
fn with_tls(_: Endpoint, _: &Security) -> Result<Endpoint, UpstreamError> {
    Err(UpstreamError::NoTls)
}
