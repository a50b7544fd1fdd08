//! The places to listen at, as flags name them.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::rights::{Rights, RightsError};

/// `ADDRESS:PORT` or `unix:/PATH`. Options follow a `?` and are separated by `&`:
///
/// - `anonymous=RIGHTS`: the rights of callers without credentials, as in `127.0.0.1:8980?anonymous=read`.
/// - `tls=off`: no TLS at this port, though the others have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The rights of callers without credentials, if the text names them.
    pub anonymous: Option<Rights>,
    /// Whether clients speak TLS here, if the server has a certificate.
    pub tls: bool,
}

/// An endpoint to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address; port 0 takes any free one.
    Tcp(SocketAddr),
    /// The path of a socket in the file system.
    Unix(PathBuf),
}

/// A text that is not a [`Listen`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// The part before the `?` is not an endpoint.
    #[error("not ADDRESS:PORT or unix:/PATH")]
    Endpoint,
    /// An option is unknown, or its value is wrong.
    #[error("the options after ? are anonymous=RIGHTS and tls=off, separated by &")]
    Option,
    /// The rights are wrong.
    #[error("anonymous= is {0}")]
    Anonymous(RightsError),
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let (endpoint, options) = match text.split_once('?') {
            Some((endpoint, options)) => (endpoint, Some(options)),
            None => (text, None),
        };
        let endpoint = match endpoint.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Endpoint::Unix(path.into()),
            Some(_) => return Err(ListenError::Endpoint),
            None => Endpoint::Tcp(endpoint.parse().map_err(|_| ListenError::Endpoint)?),
        };
        let mut listen = Self { endpoint, anonymous: None, tls: true };
        for option in options.into_iter().flat_map(|options| options.split('&')) {
            match option.split_once('=') {
                Some(("anonymous", rights)) if listen.anonymous.is_none() => {
                    listen.anonymous = Some(rights.parse().map_err(ListenError::Anonymous)?);
                }
                Some(("tls", "off")) => listen.tls = false,
                _ => return Err(ListenError::Option),
            }
        }
        Ok(listen)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The mode of sockets in the file system, which flags have in octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(pub u32);

/// A text that is not a [`SocketMode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a mode in octal digits, such as 600 or 0660")]
pub struct SocketModeError;

impl FromStr for SocketMode {
    type Err = SocketModeError;

    fn from_str(text: &str) -> Result<Self, SocketModeError> {
        let is_octal = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| is_octal && mode <= 0o777);
        mode.map(Self).ok_or(SocketModeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let check = |text: &str, anonymous: Option<&str>, tls| {
            let listen: Listen = text.parse().unwrap();
            let anonymous = anonymous.map(|rights| rights.parse().unwrap());
            assert_eq!((listen.anonymous, listen.tls), (anonymous, tls), "{text}");
            assert_eq!(listen.endpoint.to_string(), text.split('?').next().unwrap());
        };
        check("127.0.0.1:8980", None, true);
        check("[::1]:0", None, true);
        check("0.0.0.0:8980?anonymous=read", Some("read"), true);
        check("127.0.0.1:8980?tls=off", None, false);
        check("127.0.0.1:8980?tls=off&anonymous=read+execute", Some("read+execute"), false);
        check("unix:/run/actiond.sock", None, true);
        check("unix:/run/a?anonymous=none", Some("none"), true);
    }

    #[test]
    fn other_texts_are_refused() {
        let check = |text: &str, expected| {
            assert_eq!(text.parse::<Listen>(), Err(expected), "{text:?}");
        };
        for bad in ["", "8980", "localhost:8980", "unix:", "unix:relative"] {
            check(bad, ListenError::Endpoint);
        }
        for bad in ["?", "?x=y", "?tls", "?tls=on", "?tls=off&", "?anonymous=read&anonymous=all"] {
            check(&format!("127.0.0.1:1{bad}"), ListenError::Option);
        }
        check("127.0.0.1:1?anonymous=", ListenError::Anonymous(RightsError));
    }

    #[test]
    fn modes() {
        assert_eq!("600".parse(), Ok(SocketMode(0o600)));
        assert_eq!("0666".parse(), Ok(SocketMode(0o666)));
        for bad in ["", "8", "1777", "-1", "+7", "rw"] {
            assert_eq!(bad.parse::<SocketMode>(), Err(SocketModeError), "{bad:?}");
        }
    }
}
