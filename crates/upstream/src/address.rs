//! The address of an upstream: `grpc://HOST:PORT[/INSTANCE]`, or `grpcs://` for TLS.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use model::{InstanceName, InstanceNameError};

/// The place of a server, and the instance name under which it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// `HOST:PORT`.
    pub authority: String,
    /// The instance name of blobs, and the first part of that of results.
    pub instance: InstanceName,
}

/// An error of the text of an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not an address.
    #[error(
        "use grpc://HOST:PORT/INSTANCE or grpcs://HOST:PORT/INSTANCE, the instance being optional"
    )]
    Form,
    /// There is a user or a password in it, which everybody on the machine could read.
    #[error("credentials do not belong into an address: give --upstream-header-file")]
    Credentials,
    /// The instance name is invalid.
    #[error(transparent)]
    Instance(#[from] InstanceNameError),
}

impl Address {
    /// Whether what is sent there, such as a token in a header, can be read on a network.
    pub fn is_in_the_clear(&self) -> bool {
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        !self.tls && !is_here
    }

    /// The address for HTTP/2.
    pub(crate) fn uri(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }

    /// The instance name there of results that have the name `instance` here: those of different instances stay
    /// apart. `None` if both together are too long.
    pub(crate) fn instance_of(&self, instance: &str) -> Option<String> {
        let parts = [self.instance.as_str(), instance];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        InstanceName::parse(&parts.join("/")).ok().map(|name| name.as_str().to_owned())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Form)?;
        let tls = match scheme {
            "grpc" => false,
            "grpcs" => true,
            _ => return Err(AddressError::Form),
        };
        let (authority, instance) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(AddressError::Credentials);
        }
        let (host, port) = authority.rsplit_once(':').ok_or(AddressError::Form)?;
        let is_host = !host.is_empty() && host.bytes().all(is_host_byte);
        let is_bracketed = host.starts_with('[') == host.contains(':');
        if !is_host || !is_bracketed || port.parse::<u16>().is_err() {
            return Err(AddressError::Form);
        }
        let instance = InstanceName::parse(instance.trim_end_matches('/'))?;
        Ok(Self { tls, authority: authority.to_owned(), instance })
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "grpcs" } else { "grpc" }, self.authority)?;
        match self.instance.as_str() {
            "" => Ok(()),
            instance => write!(f, "/{instance}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_can_read_what_has_no_tls() {
        let check = |text: &str, expected: bool| {
            assert_eq!(text.parse::<Address>().unwrap().is_in_the_clear(), expected, "{text}");
        };
        for host in ["127.0.0.1:1", "127.8.0.1:1", "localhost:8980", "[::1]:80"] {
            check(&format!("grpc://{host}"), false);
        }
        for host in ["10.0.0.1:1", "localhost.example:1", "127.0.0.1.example:1", "[::]:1"] {
            check(&format!("grpc://{host}"), true);
            check(&format!("grpcs://{host}"), false);
        }
    }

    #[track_caller]
    fn check(text: &str, expected: Result<(bool, &str, &str), AddressError>) {
        let found: Result<Address, _> = text.parse();
        let expected = expected.map(|(tls, authority, instance)| Address {
            tls,
            authority: authority.to_owned(),
            instance: InstanceName::parse(instance).unwrap(),
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn addresses() {
        check("grpc://cache:9092", Ok((false, "cache:9092", "")));
        check("grpc://127.0.0.1:1/", Ok((false, "127.0.0.1:1", "")));
        check("grpcs://[::1]:443/team/project", Ok((true, "[::1]:443", "team/project")));
        for wrong in [
            "cache:1",
            "http://cache:1",
            "grpc://cache",
            "grpc://:1",
            "grpc://a b:1",
            "grpc://::1:1",
        ] {
            check(wrong, Err(AddressError::Form));
        }
        check("grpc://cache:99999", Err(AddressError::Form));
        check("grpc://user:password@cache:1", Err(AddressError::Credentials));
        let reserved: Result<Address, _> = "grpc://cache:1/a/blobs".parse();
        assert!(matches!(reserved, Err(AddressError::Instance(_))), "{reserved:?}");
    }

    #[test]
    fn an_address_is_printed_as_it_is_read() {
        for text in ["grpc://cache:1", "grpcs://[::1]:443/team"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn results_of_different_instances_stay_apart() {
        let address: Address = "grpc://cache:1/team".parse().unwrap();
        assert_eq!(address.instance_of("").as_deref(), Some("team"));
        assert_eq!(address.instance_of("x/y").as_deref(), Some("team/x/y"));
        assert_eq!(address.instance_of(&"x".repeat(251)), None);
        let plain: Address = "grpc://cache:1".parse().unwrap();
        assert_eq!(plain.instance_of("").as_deref(), Some(""));
        assert_eq!(plain.instance_of("x").as_deref(), Some("x"));
    }
}
