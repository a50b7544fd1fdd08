//! Where to listen, as flags have it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::rights::Rights;

/// `ADDRESS:PORT` or `unix:PATH`, and after a `?` what anonymous callers may do:
/// `127.0.0.1:8980?anonymous=read`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The place.
    pub place: Place,
    /// The rights of anonymous callers, where they are given.
    pub anonymous: Option<Rights>,
}

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A TCP address; port 0 takes any free one.
    Tcp(SocketAddr),
    /// The path of a socket in the file system.
    Unix(PathBuf),
}

/// A text that is not a [`Listen`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not ADDRESS:PORT or unix:/PATH, with ?anonymous=RIGHTS or without")]
pub struct ListenError;

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let (place, anonymous) = match text.split_once('?') {
            Some((place, options)) => {
                let rights = options.strip_prefix("anonymous=").ok_or(ListenError)?;
                (place, Some(rights.parse().map_err(|_| ListenError)?))
            }
            None => (text, None),
        };
        let place = match place.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Place::Unix(path.into()),
            Some(_) => return Err(ListenError),
            None => Place::Tcp(place.parse().map_err(|_| ListenError)?),
        };
        Ok(Self { place, anonymous })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The mode of sockets in the file system, in octal digits.
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
        let check = |text: &str, anonymous: Option<Rights>| {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.anonymous, anonymous, "{text}");
            assert_eq!(listen.place.to_string(), text.split('?').next().unwrap());
        };
        check("127.0.0.1:8980", None);
        check("[::1]:0", None);
        check("0.0.0.0:8980?anonymous=read", Some("read".parse().unwrap()));
        check("unix:/run/actiond.sock", None);
        check("unix:/run/a?anonymous=none", Some(Rights::NONE));
        for bad in
            ["", "8980", "localhost:8980", "unix:", "unix:relative", "127.0.0.1:1?", "[::1]:1?x=y"]
        {
            assert_eq!(bad.parse::<Listen>(), Err(ListenError), "{bad:?}");
        }
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
