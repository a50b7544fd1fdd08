//! Clients that speak TLS: which CA they trust, and the certificate that they show.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Channel, Endpoint};

use crate::pki::{Authority, Identity};

/// A client of one TLS server.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>);

impl TlsClient {
    /// A client that trusts servers of `authority`, and shows `identity`.
    ///
    /// # Errors
    /// When these can't be used.
    pub fn new(authority: &Authority, identity: Option<&Identity>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain =
                    vec![CertificateDer::from_pem_slice(identity.certificate_pem().as_bytes())?];
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes())?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Offers other protocols inside of TLS than HTTP/2.
    #[must_use]
    pub fn offering(self, protocols: &[&str]) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self(Arc::new(config))
    }

    /// Connects to the server at `address` that has to be called `name`.
    ///
    /// # Errors
    /// When one side does not accept the other's certificate. With TLS 1.3 the client learns of the
    /// server's refusal only when it reads.
    pub async fn stream(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned())?;
        let stream = TcpStream::connect(address).await.context("connecting")?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await.context("the TLS handshake")
    }

    /// The same as a channel of gRPC.
    ///
    /// # Errors
    /// When no connection comes about.
    pub async fn channel(&self, address: SocketAddr, name: &str) -> anyhow::Result<Channel> {
        let (client, name) = (self.clone(), name.to_owned());
        let connect = move |_| {
            let (client, name) = (client.clone(), name.clone());
            async move {
                let stream = client.stream(address, &name).await;
                stream
                    .map(TokioIo::new)
                    .map_err(|error| std::io::Error::other(format!("{error:#}")))
            }
        };
        // The connector makes the TLS, of which tonic knows nothing.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        Ok(endpoint.connect_with_connector(tower::service_fn(connect)).await?)
    }
}
