//! The address of a collector: `grpc://HOST:PORT`, or `grpcs://` for TLS.

use std::fmt;
use std::str::FromStr;

use upstream::{Address, AddressError};

/// The place of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(pub(crate) Address);

impl Collector {
    /// Whether headers can be read on the way to it.
    pub fn is_in_the_clear(&self) -> bool {
        self.0.is_in_the_clear()
    }
}

/// Errors of the text of an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    /// It is not an address.
    #[error("use grpc://HOST:PORT or grpcs://HOST:PORT, such as grpc://127.0.0.1:4317")]
    Form,
    /// It is an address for another form of the protocol.
    #[error(
        "traces are sent by gRPC: give grpc://HOST:PORT, or grpcs:// for TLS, with the collector's port for gRPC, \
         which is 4317 unless the collector says otherwise"
    )]
    Http,
    /// It has a user or a password, which everybody on the machine could read.
    #[error("credentials do not belong into an address: give --otlp-header-file")]
    Credentials,
}

impl FromStr for Collector {
    type Err = CollectorError;

    fn from_str(text: &str) -> Result<Self, CollectorError> {
        if ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(CollectorError::Http);
        }
        let address: Address = text.parse().map_err(|error| match error {
            AddressError::Credentials => CollectorError::Credentials,
            AddressError::Form | AddressError::Instance(_) => CollectorError::Form,
        })?;
        if address.instance.as_str().is_empty() {
            Ok(Self(address))
        } else {
            Err(CollectorError::Form)
        }
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
        check("http://traces:4318", Err(CollectorError::Http));
        check("https://traces:4318/v1/traces", Err(CollectorError::Http));
        check("grpc://user:password@traces:1", Err(CollectorError::Credentials));
    }
}
