//! The whole, with its bounds.

use std::sync::Arc;
use std::time::Duration;

use asset::{Fetching, Origin, OriginError, Wish};
use model::Digest;
use reqwest::{Client, ClientBuilder, Url, redirect};
use store::Store;

use crate::allowed::Allowed;
use crate::receive::receive;
use crate::request::{self, Clients, READ_TIMEOUT};
use crate::resolver::PublicResolver;

/// The size of a file: that of the largest SDKs and images that builds fetch.
const MAX_BYTES: u64 = 16 << 30;

/// The share of the store that one file may take, so that no host can empty it: a quarter.
const STORE_SHARE: u64 = 4;

/// The time for a connection. A host that is there answers in a few seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Unused connections of one host: a build fetches several files from each mirror.
const IDLE_CONNECTIONS: usize = 2;

/// An HTTP client that can't be made.
#[derive(Debug, thiserror::Error)]
#[error("making the HTTP client; it needs the certificates of a package such as ca-certificates")]
pub struct WebError(#[source] reqwest::Error);

/// Web servers as origins.
pub struct Web(Arc<Shared>);

struct Shared {
    allowed: Allowed,
    clients: Clients,
}

impl Web {
    /// The web servers that are allowed. Nothing is connected.
    ///
    /// # Errors
    /// When the certificates of the system can't be read.
    pub fn new(allowed: Allowed) -> Result<Self, WebError> {
        // The provider of the whole process; an error says that there is one.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let clients = Clients {
            named: client().build().map_err(WebError)?,
            public: client().dns_resolver(PublicResolver).build().map_err(WebError)?,
        };
        Ok(Self(Arc::new(Shared { allowed, clients })))
    }
}

fn client() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("actiond/", env!("CARGO_PKG_VERSION")))
        // A proxy would resolve names, which are checked here.
        .no_proxy()
        // Each step is checked.
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
}

impl Origin for Web {
    fn host(&self, uri: &str) -> Option<String> {
        let (scheme, _) = uri.split_once(':')?;
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return None;
        }
        let url = Url::parse(uri).ok();
        let name = url.as_ref().and_then(Url::host_str).unwrap_or_default();
        // A name may end with the dot of the root, which leads to the same host.
        Some(name.strip_suffix('.').unwrap_or(name).to_owned())
    }

    fn fetch(&self, wish: Wish) -> Fetching {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let timeout = wish.timeout;
            let fetched = tokio::time::timeout(timeout, shared.fetch(wish)).await;
            fetched.unwrap_or(Err(OriginError::TimedOut { after: timeout }))
        })
    }
}

impl Shared {
    async fn fetch(&self, wish: Wish) -> Result<Digest, OriginError> {
        let (host, response) = request::open(&self.clients, &self.allowed, &wish).await?;
        let digest = receive(&wish, host.clone(), response, max_bytes(&wish.store)).await?;
        tracing::info!(host, %digest, "fetched");
        Ok(digest)
    }
}

fn max_bytes(store: &Store) -> u64 {
    store.stats().limit_bytes.map_or(MAX_BYTES, |limit| MAX_BYTES.min(limit / STORE_SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_name() {
        let web = Web::new("public".parse().unwrap()).unwrap();
        for (uri, expected) in [
            ("http://a.example/file", Some("a.example")),
            ("HTTPS://user@A.Example.:8443/file", Some("a.example")),
            ("http://[::1]:80/", Some("[::1]")),
            ("http://127.1/", Some("127.0.0.1")),
            ("http://a.example:99999/", Some("")),
            ("ftp://a.example/", None),
            ("urn:a", None),
            ("", None),
        ] {
            assert_eq!(web.host(uri).as_deref(), expected, "{uri}");
        }
    }
}
