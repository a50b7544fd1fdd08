//! The address of a collector: `grpc://HOST:PORT`, or `grpcs://` for TLS; or `http://HOST:PORT/PATH`, or `https://`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tonic::codegen::http::Uri;
use upstream::{Address, AddressError};

/// The path of traces at a collector that is named without one, as the protocol defines it.
const TRACES_PATH: &str = "/v1/traces";

/// The place of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(pub(crate) Place);

/// The same, by the form of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// gRPC.
    Grpc(Address),
    /// Protobuf over HTTP/1.1, at an absolute URL.
    Http(Uri),
}

impl Collector {
    /// Whether headers can be read on the way to it.
    pub fn is_in_the_clear(&self) -> bool {
        match &self.0 {
            Place::Grpc(address) => address.is_in_the_clear(),
            Place::Http(url) => url.scheme_str() == Some("http") && !is_here(url),
        }
    }

    /// Whether it is reached by TLS.
    pub fn has_tls(&self) -> bool {
        match &self.0 {
            Place::Grpc(address) => address.tls,
            Place::Http(url) => url.scheme_str() == Some("https"),
        }
    }
}

/// Whether the host of a URL is this machine.
fn is_here(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Errors of the text of an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    /// It is not an address.
    #[error(
        "use grpc://HOST:PORT, such as grpc://127.0.0.1:4317, or http://HOST:PORT, such as http://127.0.0.1:4318; \
         grpcs:// and https:// for TLS"
    )]
    Form,
    /// It has a user or a password, which everybody on the machine could read.
    #[error("credentials do not belong into an address: give --otlp-header-file")]
    Credentials,
}

impl FromStr for Collector {
    type Err = CollectorError;

    fn from_str(text: &str) -> Result<Self, CollectorError> {
        if ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
            return http(text).map(|url| Self(Place::Http(url)));
        }
        let address: Address = text.parse().map_err(|error| match error {
            AddressError::Credentials => CollectorError::Credentials,
            AddressError::Form | AddressError::Instance(_) => CollectorError::Form,
        })?;
        if address.instance.as_str().is_empty() {
            Ok(Self(Place::Grpc(address)))
        } else {
            Err(CollectorError::Form)
        }
    }
}

/// The URL to send traces to.
fn http(text: &str) -> Result<Uri, CollectorError> {
    let url: Uri = text.parse().map_err(|_| CollectorError::Form)?;
    let authority = url.authority().ok_or(CollectorError::Form)?;
    if authority.as_str().contains('@') {
        return Err(CollectorError::Credentials);
    }
    // Only a port may follow the host.
    let is_port = authority.as_str() == authority.host() || authority.port_u16().is_some();
    if authority.host().is_empty() || !is_port || text.contains('#') {
        return Err(CollectorError::Form);
    }
    if url.path() != "/" || url.query().is_some() {
        return Ok(url);
    }
    let base = text.trim_end_matches('/');
    format!("{base}{TRACES_PATH}").parse().map_err(|_| CollectorError::Form)
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Grpc(address) => address.fmt(f),
            // A query may have a key in it.
            Place::Http(url) => {
                let authority = url.authority().map_or("", |it| it.as_str());
                write!(f, "{}://{authority}{}", url.scheme_str().unwrap_or_default(), url.path())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Result<&str, CollectorError>| {
            let found = text.parse::<Collector>().map(|it| it.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{text}");
        };
        check("grpc://127.0.0.1:4317", Ok("grpc://127.0.0.1:4317"));
        check("grpcs://traces.example:443/", Ok("grpcs://traces.example:443"));
        check("grpc://traces", Err(CollectorError::Form));
        check("grpc://traces:1/v1/traces", Err(CollectorError::Form));
        check("traces:4317", Err(CollectorError::Form));
        check("http://traces:4318", Ok("http://traces:4318/v1/traces"));
        check("http://[::1]:4318/", Ok("http://[::1]:4318/v1/traces"));
        check("https://traces.example", Ok("https://traces.example/v1/traces"));
        check("https://traces:4318/otlp/v1/traces", Ok("https://traces:4318/otlp/v1/traces"));
        check("https://traces/otlp?key=secret", Ok("https://traces/otlp"));
        check("http://", Err(CollectorError::Form));
        check("http://:1", Err(CollectorError::Form));
        check("http://traces:", Err(CollectorError::Form));
        check("http://traces:99999", Err(CollectorError::Form));
        check("http://traces/a b", Err(CollectorError::Form));
        check("http://traces/#a", Err(CollectorError::Form));
        check("https://user:password@traces:1", Err(CollectorError::Credentials));
        check("grpc://user:password@traces:1", Err(CollectorError::Credentials));
    }

    #[test]
    fn networks_can_read_what_has_no_tls() {
        let check = |text: &str, expected: bool| {
            assert_eq!(text.parse::<Collector>().unwrap().is_in_the_clear(), expected, "{text}");
        };
        check("http://127.0.0.1:4318", false);
        check("http://[::1]:4318", false);
        check("http://localhost", false);
        check("http://traces.example", true);
        check("https://traces.example", false);
        check("grpc://traces.example:4317", true);
    }
}
