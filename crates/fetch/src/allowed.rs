//! The hosts that may be asked, as the operator writes them: `public,mirror.example,10.1.2.3:8080`.
//!
//! `public` stands for every host as far as its addresses are public. A host that is named may have any address: the
//! operator knows it. With a port, only that port is meant.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

use crate::public::is_public;

/// The word for all hosts on the internet.
const PUBLIC: &str = "public";

/// Hosts in one list. More would be a file.
const MAX_HOSTS: usize = 1000;

/// The hosts that may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    is_public_allowed: bool,
    hosts: Vec<Host>,
}

/// A host, as URLs write it after they were parsed: in lower case, with brackets around IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

/// A list of hosts that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowedError {
    /// An entry is no host.
    #[error(
        "{0:?} is not a host: write {PUBLIC}, a name or an address, and a port after it if only that is meant"
    )]
    Host(String),
    /// There are too many.
    #[error("{0} hosts are more than {MAX_HOSTS}")]
    TooMany(usize),
}

/// A URL that may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The operator named the host: it may have any address.
    Named,
    /// Its addresses must be public.
    OnlyPublic,
}

/// A URL that may not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("URLs of the scheme {0:?} are not opened, only http and https")]
    Scheme(String),
    #[error(
        "the operator of this server allows no fetches from {0}; --allow-fetch names the hosts"
    )]
    Host(String),
    #[error(
        "{0} is not on the internet, and this server asks hosts of its own network only where \
         --allow-fetch names them"
    )]
    Private(String),
}

impl Allowed {
    /// Whether that URL may be opened, as far as can be told without asking for addresses.
    pub(crate) fn check(&self, url: &Url) -> Result<Trust, Denied> {
        if !["http", "https"].contains(&url.scheme()) {
            return Err(Denied::Scheme(url.scheme().to_owned()));
        }
        let name = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default();
        // A name may end with the dot of the root, which leads to the same host.
        let plain = name.strip_suffix('.').unwrap_or(name);
        let is_meant =
            |host: &Host| host.name == plain && host.port.is_none_or(|only| Some(only) == port);
        if self.hosts.iter().any(is_meant) {
            return Ok(Trust::Named);
        }
        if !self.is_public_allowed || plain.is_empty() {
            return Err(Denied::Host(name.to_owned()));
        }
        match address(name) {
            Some(address) if !is_public(address) => Err(Denied::Private(name.to_owned())),
            _ => Ok(Trust::OnlyPublic),
        }
    }
}

/// The address that a host of a URL is.
fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

impl FromStr for Host {
    type Err = AllowedError;

    fn from_str(text: &str) -> Result<Self, AllowedError> {
        let bad = || AllowedError::Host(text.to_owned());
        if text.contains(['/', '@', '?', '#', '*', '\\']) || text.chars().any(char::is_whitespace) {
            return Err(bad());
        }
        // The parser leaves out the port that it takes for granted.
        let port = Url::parse(&format!("ftp://{text}")).map_err(|_| bad())?.port();
        let other = Url::parse(&format!("http://{text}")).map_err(|_| bad())?;
        let name = other.host_str().filter(|name| !name.is_empty()).ok_or_else(bad)?;
        let name = name.strip_suffix('.').unwrap_or(name).to_owned();
        if name.is_empty() || text.ends_with(':') {
            return Err(bad());
        }
        Ok(Self { name, port: port.or(other.port()) })
    }
}

impl FromStr for Allowed {
    type Err = AllowedError;

    fn from_str(text: &str) -> Result<Self, AllowedError> {
        let entries: Vec<_> = text.split(',').collect();
        if entries.len() > MAX_HOSTS {
            return Err(AllowedError::TooMany(entries.len()));
        }
        let is_public_allowed = entries.contains(&PUBLIC);
        let hosts = entries.into_iter().filter(|entry| *entry != PUBLIC).map(str::parse);
        Ok(Self { is_public_allowed, hosts: hosts.collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |Host { name, port }: &Host| match port {
            Some(port) => format!("{name}:{port}"),
            None => name.clone(),
        };
        let public = self.is_public_allowed.then(|| PUBLIC.to_owned());
        let all: Vec<_> = public.into_iter().chain(self.hosts.iter().map(host)).collect();
        f.write_str(&all.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(allowed: &str, url: &str) -> Result<Trust, Denied> {
        allowed.parse::<Allowed>().unwrap().check(&Url::parse(url).unwrap())
    }

    #[test]
    fn lists_have_one_notation() {
        for text in
            ["public", "a.example", "public,a.example:8080,10.1.2.3,[::1]:80", "a.example:21"]
        {
            assert_eq!(text.parse::<Allowed>().unwrap().to_string(), text);
        }
        for bad in
            ["", ",", "a,", "http://a", "a/b", "*.a", "a@b", "a b", "a:", "a:x", ":80", ".", "::1"]
        {
            assert!(matches!(bad.parse::<Allowed>(), Err(AllowedError::Host(_))), "{bad:?}");
        }
        let many = vec!["a"; 1001].join(",");
        assert_eq!(many.parse::<Allowed>(), Err(AllowedError::TooMany(1001)));
    }

    #[test]
    fn a_named_host_may_be_anywhere() {
        let check = |allowed: &str, url: &str| assert_eq!(trust(allowed, url), Ok(Trust::Named));
        check("mirror.example", "http://mirror.example/file");
        check("mirror.example", "https://MIRROR.example.:8443/file");
        check("Mirror.Example.", "http://mirror.example/file");
        check("mirror.example:443", "https://mirror.example/file");
        check("mirror.example:80", "http://mirror.example/file");
        check("127.0.0.1", "http://127.0.0.1:1234/");
        check("127.0.0.1", "http://0x7f.1/");
        check("[::1]", "http://[0:0::1]/");
    }

    #[test]
    fn other_hosts_must_be_public() {
        let check = |url: &str| assert_eq!(trust("public,a:8080", url), Ok(Trust::OnlyPublic));
        check("http://b/");
        check("http://a/");
        check("https://1.1.1.1:444/");
        check("http://[2606:4700::1111]/");
    }

    #[test]
    fn urls_that_are_denied() {
        let scheme = |scheme: &str| Err(Denied::Scheme(scheme.into()));
        for (url, name) in
            [("file:///etc/passwd", "file"), ("ftp://a/", "ftp"), ("data:,a", "data")]
        {
            assert_eq!(trust("public,a", url), scheme(name));
        }
        let host = |host: &str| Err(Denied::Host(host.into()));
        assert_eq!(trust("a", "http://b/"), host("b"));
        assert_eq!(trust("a:80", "https://a/"), host("a"));
        assert_eq!(trust("a", "http://b@b/"), host("b"));
        assert_eq!(trust("a", "http://a@b/"), host("b"));
        assert_eq!(trust("a", "http://b.a/"), host("b.a"));
        let private = |host: &str| Err(Denied::Private(host.into()));
        for (url, host) in [
            ("http://127.0.0.1/", "127.0.0.1"),
            ("http://2130706433/", "127.0.0.1"),
            ("http://0177.0.0.1/", "127.0.0.1"),
            ("http://169.254.169.254/latest/", "169.254.169.254"),
            ("http://[::1]/", "[::1]"),
            ("http://[::ffff:10.0.0.1]/", "[::ffff:a00:1]"),
            ("http://0/", "0.0.0.0"),
        ] {
            assert_eq!(trust("public", url), private(host), "{url}");
        }
    }
}
