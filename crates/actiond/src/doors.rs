//! The listeners of `serve`: TLS, and the rights of anonymous callers at each.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use access::{
    BindError, Connections, Door, Endpoint, Listen, Listener, Owners, Policy, Rights, SocketMode,
    Tls, TlsFiles,
};
use anyhow::{Context as _, bail, ensure};

use crate::cli::ServeArgs;
use crate::server::OPERATORS_SOCKET;

/// The endpoint where `serve` listens if neither a flag nor systemd names one.
const DEFAULT: &str = "127.0.0.1:8980";

/// The name of an ordinary user's socket.
const USERS_SOCKET: &str = "actiond.sock";

/// The listeners, the policy for those who come in, and what both are read from.
pub(crate) struct Doors {
    pub(crate) connections: Connections,
    pub(crate) places: Vec<OpenEndpoint>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// An endpoint where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenEndpoint {
    pub(crate) endpoint: Endpoint,
    pub(crate) protection: Protection,
}

/// The protection of the bytes at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// None, or the machine's own.
    Plain,
    /// TLS with the server's certificate.
    Tls,
    /// TLS with certificates of server and clients.
    MutualTls,
}

impl fmt::Display for OpenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.protection {
            Protection::Plain => "",
            Protection::Tls => " with TLS",
            Protection::MutualTls => " with TLS and client certificates",
        };
        write!(f, "{}{suffix}", self.endpoint)
    }
}

/// The first endpoint at which a server with these arguments listens, unless systemd gives it sockets.
///
/// # Errors
/// When the flags of TLS do not fit together.
pub(crate) fn first_place(arguments: &ServeArgs) -> anyhow::Result<OpenEndpoint> {
    let default = DEFAULT.parse::<Listen>().context("the default endpoint")?;
    let listen = arguments.listen.first().unwrap_or(&default);
    let files = tls_files(arguments)?;
    let has_tls = listen.tls && matches!(listen.endpoint, Endpoint::Tcp(_));
    let protection = match files.filter(|_| has_tls) {
        None => Protection::Plain,
        Some(TlsFiles { client_ca: Some(_), .. }) => Protection::MutualTls,
        Some(_) => Protection::Tls,
    };
    Ok(OpenEndpoint { endpoint: listen.endpoint.clone(), protection })
}

/// The files that the flags of TLS name.
///
/// # Errors
/// When one flag lacks another.
pub(crate) fn tls_files(arguments: &ServeArgs) -> anyhow::Result<Option<TlsFiles>> {
    let client_ca = arguments.tls_client_ca.clone();
    match (arguments.tls_cert.clone(), arguments.tls_key.clone()) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key, client_ca })),
        (None, None) if client_ca.is_none() => Ok(None),
        (None, None) => bail!("--tls-client-ca needs --tls-cert and --tls-key"),
        (Some(_), None) => bail!("--tls-cert needs --tls-key, the file of its private key"),
        (None, Some(_)) => bail!("--tls-key needs --tls-cert, the file of its certificate"),
    }
}

/// Reads certificates and principals, and opens all listeners.
///
/// # Errors
/// When a file can't be used, or the server can't listen at an endpoint, or must not.
pub(crate) async fn open(arguments: &ServeArgs) -> anyhow::Result<Doors> {
    let tls = tls_files(arguments)?.map(Tls::open).transpose().context("reading certificates")?;
    let tls = tls.map(Arc::new);
    let policy =
        Policy::open(arguments.token_file.clone()).context("reading the file of principals")?;
    let asks_for_certificates = tls.as_ref().is_some_and(|tls| tls.asks_for_certificates());
    let policy = if asks_for_certificates { policy.with_certificates() } else { policy };
    let policy = policy.withholding(arguments.withheld());
    let mut doors = Vec::new();
    let mut places = Vec::new();
    for listener in listeners(arguments).await? {
        let endpoint = listener.endpoint().clone();
        let tls = tls.clone().filter(|_| listener.may_have_tls());
        let protection = match &tls {
            None => Protection::Plain,
            Some(tls) if tls.asks_for_certificates() => Protection::MutualTls,
            Some(_) => Protection::Tls,
        };
        let facts = Facts {
            is_tcp: matches!(endpoint, Endpoint::Tcp(_)),
            is_local: listener.is_local(),
            protection,
            given: listener.anonymous(),
            has_tokens: policy.has_tokens(),
            has_principals: policy.has_principals(),
        };
        let anonymous = facts
            .anonymous(arguments.insecure)
            .with_context(|| format!("listening on {endpoint}"))?;
        let owners = arguments.tcp_owner_only.map(|choice| Owners { also: choice.0 });
        let also = owners.and_then(|owners| owners.also);
        ensure!(
            also.is_none() || sys::user_namespace::is_initial(),
            "--tcp-owner-only=USER needs root: in a user namespace this server can tell its own user from \
             others, and no others from each other; use --tcp-owner-only, or a socket with --listen=unix:PATH"
        );
        ensure!(
            owners.is_none() || listener.is_local(),
            "listening on {endpoint}: --tcp-owner-only tells users of this machine apart, and others \
             can connect there"
        );
        places.push(OpenEndpoint { endpoint, protection });
        doors.push(Door { listener, anonymous, tls, owners });
    }
    doors.extend(operators_door(arguments).await);
    Ok(Doors { connections: Connections::new(doors), places, policy: Arc::new(policy), tls })
}

/// The socket in the root directory, for `linux-actiond store`. Only the owner of the root and the
/// superuser reach it, and they have all rights there.
async fn operators_door(arguments: &ServeArgs) -> Option<Door> {
    let path = std::path::absolute(&arguments.root).ok()?.join(OPERATORS_SOCKET);
    let listen =
        Listen { endpoint: Endpoint::Unix(path), anonymous: Some(Rights::NONE), tls: false };
    match Listener::bind(&listen, SocketMode(0o600)).await {
        Ok(listener) => Some(Door { listener, anonymous: Rights::NONE, tls: None, owners: None }),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "`linux-actiond store` can't reach this server by its root");
            None
        }
    }
}

async fn listeners(arguments: &ServeArgs) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = access::inherited().context("taking over the sockets of systemd")?;
    let nothing_given = arguments.listen.is_empty() && listeners.is_empty();
    let default = if nothing_given { default_places()? } else { Vec::new() };
    for listen in arguments.listen.iter().chain(&default) {
        let listener = Listener::bind(listen, arguments.listen_mode).await;
        listeners.push(listener.map_err(with_cure)?);
    }
    Ok(listeners)
}

/// The error, with the cure where another program listens there already: the default port is the same for all users of a machine.
fn with_cure(error: BindError) -> anyhow::Error {
    match &error {
        BindError::Bind { endpoint, source } if source.kind() == ErrorKind::AddrInUse => {
            let context = format!(
                "another program listens on {endpoint}; --listen=127.0.0.1:0 takes a free port, and --listen=unix:PATH \
                 a socket"
            );
            anyhow::Error::new(error).context(context)
        }
        _ => error.into(),
    }
}

/// The endpoints where `serve` listens if neither a flag nor systemd names one.
fn default_places() -> anyhow::Result<Vec<Listen>> {
    let port = DEFAULT.parse::<Listen>().context("the default endpoint")?;
    let socket = users_socket(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    let socket =
        socket.map(|path| Listen { endpoint: Endpoint::Unix(path), anonymous: None, tls: false });
    Ok(std::iter::once(port).chain(socket).collect())
}

/// The socket of an ordinary user, in the directory that the login made for such things.
fn users_socket(runtime: Option<PathBuf>) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;

    // Root of a user namespace is the user who started the server.
    let user = rustix::process::geteuid();
    let is_ordinary = !user.is_root() || !sys::user_namespace::is_initial();
    // su(1) leaves the variable as it was, and then it is another user's.
    let is_own = |path: &PathBuf| path.metadata().is_ok_and(|it| it.uid() == user.as_raw());
    runtime
        .filter(|path| is_ordinary && path.is_absolute() && is_own(path))
        .map(|path| path.join(USERS_SOCKET))
}

/// The facts that decide about the rights of anonymous callers at an endpoint.
#[derive(Debug, Clone, Copy)]
struct Facts {
    is_tcp: bool,
    is_local: bool,
    protection: Protection,
    /// The rights that the flag names.
    given: Option<Rights>,
    has_tokens: bool,
    has_principals: bool,
}

impl Facts {
    /// The rights of anonymous callers; an error where the server must not listen without `--insecure`.
    fn anonymous(self, insecure: bool) -> anyhow::Result<Rights> {
        let is_plain = self.protection == Protection::Plain;
        if !self.is_local && !insecure {
            ensure!(
                !(is_plain && self.has_tokens),
                "tokens would travel in the clear beyond the loopback device; give --tls-cert and \
                 --tls-key, let something that speaks TLS stand before a local address, or give \
                 --insecure"
            );
            ensure!(
                self.given.is_some() || (!is_plain && self.has_principals),
                "everybody who can connect could run actions and write results; give --tls-cert \
                 with --tls-client-ca or --token-file, say what they may do with \
                 ?anonymous=RIGHTS, or give --insecure"
            );
        }
        // If there are principals, a client at a port has to be one. The mode of its file
        // guards a socket in the file system.
        let default =
            if self.has_principals && self.is_tcp { Rights::NONE } else { Rights::CLIENT };
        Ok(self.given.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Facts = Facts {
        is_tcp: true,
        is_local: true,
        protection: Protection::Plain,
        given: None,
        has_tokens: false,
        has_principals: false,
    };

    #[track_caller]
    fn check(facts: Facts, insecure: bool, expected: Option<Rights>) {
        assert_eq!(facts.anonymous(insecure).ok(), expected, "{facts:?} {insecure}");
    }

    fn with_tokens(facts: Facts) -> Facts {
        Facts { has_tokens: true, has_principals: true, ..facts }
    }

    fn with_certificates(facts: Facts) -> Facts {
        Facts { protection: Protection::MutualTls, has_principals: true, ..facts }
    }

    #[test]
    fn anonymous_rights_on_this_machine() {
        let given = Some("read".parse().unwrap());
        check(LOOPBACK, false, Some(Rights::CLIENT));
        check(with_tokens(LOOPBACK), false, Some(Rights::NONE));
        check(with_certificates(LOOPBACK), false, Some(Rights::NONE));
        check(with_tokens(Facts { given, ..LOOPBACK }), false, given);
        check(with_tokens(Facts { is_tcp: false, ..LOOPBACK }), false, Some(Rights::CLIENT));
        check(Facts { protection: Protection::Tls, ..LOOPBACK }, false, Some(Rights::CLIENT));
    }

    #[test]
    fn a_port_beyond_the_loopback_needs_a_decision() {
        let given = Some("read".parse().unwrap());
        let beyond = Facts { is_local: false, ..LOOPBACK };
        check(beyond, false, None);
        check(beyond, true, Some(Rights::CLIENT));
        check(Facts { given, ..beyond }, false, given);
        // Tokens in the clear.
        check(with_tokens(beyond), false, None);
        check(with_tokens(Facts { given, ..beyond }), false, None);
        check(with_tokens(beyond), true, Some(Rights::NONE));
        // `tls=off` where the other ports have certificates.
        check(Facts { has_principals: true, ..beyond }, false, None);
    }

    #[test]
    fn tls_beyond_the_loopback_needs_principals() {
        let given = Some("read".parse().unwrap());
        let beyond = Facts { is_local: false, protection: Protection::Tls, ..LOOPBACK };
        check(beyond, false, None);
        check(beyond, true, Some(Rights::CLIENT));
        check(Facts { given, ..beyond }, false, given);
        check(with_tokens(beyond), false, Some(Rights::NONE));
        check(with_certificates(beyond), false, Some(Rights::NONE));
    }
}
