//! The flags of verbs about the server that they ask.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use access::{Endpoint, Listen};
use anyhow::{Context as _, bail};
use clap::Args;
use upstream::Security;
use upstream::address::{Address, AddressError};

use crate::server::{self, Server};

/// The server that a verb asks.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// A server at ADDRESS:PORT, unix:PATH, or grpcs://HOST:PORT where it has TLS, in place of the one on --root.
    /// The variable ACTIOND_TOKEN may hold the token of a principal
    #[arg(long, value_name = "PLACE", global = true)]
    pub server: Option<ServerPlace>,

    /// Certificates of the CAs of a grpcs:// server in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", global = true)]
    pub tls_ca: Option<PathBuf>,

    /// Certificate in PEM to show to a grpcs:// server
    #[arg(long, value_name = "FILE", global = true)]
    pub tls_cert: Option<PathBuf>,

    /// Private key of that certificate in PEM
    #[arg(long, value_name = "FILE", global = true)]
    pub tls_key: Option<PathBuf>,
}

/// The place of a server, as `--server` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPlace {
    /// `ADDRESS:PORT` or `unix:/PATH`, as `serve --listen` takes it.
    Plain(Endpoint),
    /// `grpc://HOST:PORT`, or `grpcs://HOST:PORT` for TLS.
    Named(Address),
}

impl FromStr for ServerPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str = "use ADDRESS:PORT, unix:/PATH, grpc://HOST:PORT or grpcs://HOST:PORT";
        if !text.contains("://") {
            let listen: Listen = text.parse().map_err(|error| format!("{error}; {FORMS}"))?;
            return Ok(Self::Plain(listen.endpoint));
        }
        let address: Address = text.parse().map_err(|error| match error {
            AddressError::Credentials => {
                "credentials do not belong into an address: set the variable ACTIOND_TOKEN".into()
            }
            AddressError::Form | AddressError::Instance(_) => FORMS.to_owned(),
        })?;
        if address.instance.as_str().is_empty() {
            Ok(Self::Named(address))
        } else {
            Err(format!("a verb asks the server and not an instance of it: {FORMS}"))
        }
    }
}

impl ServerArgs {
    /// The server that the flags name; `None` without `--server`.
    ///
    /// # Errors
    /// When nothing listens there, it is not what its certificate should say, or the flags do not fit together.
    pub(crate) fn connect(&self) -> anyhow::Result<Option<Server>> {
        let security = self.security()?;
        Ok(match &self.server {
            None => None,
            Some(ServerPlace::Plain(endpoint)) => Some(Server::connect(endpoint)?),
            Some(ServerPlace::Named(address)) => {
                if address.is_in_the_clear() && server::has_token() {
                    tracing::warn!(server = %address, "the token travels in the clear; use grpcs://");
                }
                let endpoint = upstream::endpoint(address, &security)?;
                Some(Server::connect_to(&endpoint, address)?)
            }
        })
    }

    /// The server that the flags name, or else the one that has the store at `root`.
    ///
    /// # Errors
    /// As [`Self::connect`], or when no server has it.
    pub(crate) fn connect_or(&self, root: &Path) -> anyhow::Result<Server> {
        self.connect()?.map_or_else(|| Server::of_root(root), Ok)
    }

    /// The files of TLS.
    fn security(&self) -> anyhow::Result<Security> {
        let has_tls = matches!(&self.server, Some(ServerPlace::Named(address)) if address.tls);
        let flags = [
            ("--tls-ca", &self.tls_ca),
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
        ];
        if let Some((flag, _)) = flags.into_iter().find(|(_, file)| file.is_some() && !has_tls) {
            bail!("{flag} is for a server with TLS: name it with --server=grpcs://HOST:PORT");
        }
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(anyhow::anyhow!("--tls-cert needs --tls-key")),
            (None, Some(_)) => return Err(anyhow::anyhow!("--tls-key needs --tls-cert")),
        };
        // A file that holds no certificate would leave no CA, and each server would be a stranger.
        if let Some(ca) = &self.tls_ca {
            let text = std::fs::read_to_string(ca)
                .with_context(|| format!("--tls-ca: reading {}", ca.display()))?;
            if !text.contains("-----BEGIN CERTIFICATE-----") {
                bail!("--tls-ca: {} has no certificate in PEM", ca.display());
            }
        }
        Ok(Security { ca: self.tls_ca.clone(), identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let check = |text: &str, has_tls: Option<bool>| {
            let place = text.parse::<ServerPlace>().unwrap();
            let found = match place {
                ServerPlace::Plain(_) => None,
                ServerPlace::Named(address) => Some(address.tls),
            };
            assert_eq!(found, has_tls, "{text}");
        };
        check("127.0.0.1:8980", None);
        check("unix:/run/socket", None);
        check("grpc://127.0.0.1:8980", Some(false));
        check("grpcs://build.example:8980", Some(true));
        check("grpcs://[::1]:8980/", Some(true));
    }

    #[test]
    fn other_texts_are_refused() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<ServerPlace>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("build.example:8980", "grpcs://HOST:PORT");
        check("https://build.example:8980", "grpcs://HOST:PORT");
        check("grpcs://build.example", "grpcs://HOST:PORT");
        check("grpcs://build.example:1/main", "not an instance");
        check("grpcs://me:secret@build.example:1", "ACTIOND_TOKEN");
    }

    #[test]
    fn flags_that_do_not_fit_are_refused() {
        let check = |server: Option<&str>, files: [Option<&str>; 3], part: &str| {
            let [tls_ca, tls_cert, tls_key] = files.map(|file| file.map(PathBuf::from));
            let server = server.map(|text| text.parse().unwrap());
            let error = ServerArgs { server, tls_ca, tls_cert, tls_key }.security().unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        };
        check(None, [Some("ca"), None, None], "--tls-ca is for a server with TLS");
        check(Some("127.0.0.1:1"), [None, Some("c"), Some("k")], "--tls-cert is for");
        check(Some("grpc://a:1"), [None, None, Some("key")], "--tls-key is for");
        check(Some("grpcs://a:1"), [None, Some("c"), None], "--tls-cert needs --tls-key");
        check(Some("grpcs://a:1"), [None, None, Some("k")], "--tls-key needs --tls-cert");
        check(Some("grpcs://a:1"), [Some("/nowhere/ca"), None, None], "reading /nowhere/ca");
        check(Some("grpcs://a:1"), [Some("/dev/null"), None, None], "has no certificate");
    }
}
