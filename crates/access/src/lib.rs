//! The listeners for clients, and the clients' rights.
//!
//! ```text
//! listener (TCP, unix, inherited) ──► accept ──► TLS ──► connection with its caller
//!                                                           │
//! call ──► principal: token, certificate or anonymous ──► rights ──► service or refusal
//! ```
//!
//! A connection knows the names in the client's certificate, and which rights its listener grants to
//! callers without credentials. A call can carry a bearer token. [`Policy`] decides by these before the
//! call reaches a service. No log line and no error contains a secret: the file of principals has hashes
//! of tokens, and no service sees the header with the token.
//!
//! This crate knows the services by their names only.
//!
//! TLS is behind the feature `tls`, for its primitives take a while to build.

mod accept;

#[cfg(target_os = "linux")]
mod address;
#[cfg(target_os = "linux")]
mod authority;
#[cfg(target_os = "linux")]
mod authorize;
#[cfg(target_os = "linux")]
mod certificate;
#[cfg(target_os = "linux")]
mod connections;
#[cfg(all(target_os = "linux", feature = "fuzzing"))]
pub mod fuzzing;
#[cfg(target_os = "linux")]
mod granted;
#[cfg(all(target_os = "linux", feature = "tls"))]
mod handshakes;
#[cfg(target_os = "linux")]
mod hpack;
#[cfg(target_os = "linux")]
mod instances;
#[cfg(target_os = "linux")]
mod listener;
#[cfg(target_os = "linux")]
mod permit;
#[cfg(target_os = "linux")]
mod policy;
#[cfg(target_os = "linux")]
mod principals;
#[cfg(target_os = "linux")]
mod rights;
#[cfg(target_os = "linux")]
mod stream;
#[cfg(target_os = "linux")]
mod tcp_owner;
#[cfg(target_os = "linux")]
mod tls;
#[cfg(target_os = "linux")]
mod trusted_file;
#[cfg(target_os = "linux")]
mod write_through;

pub use accept::accept_tcp;
#[cfg(target_os = "linux")]
pub use {
    address::{Endpoint, Listen, ListenError, SocketMode, SocketModeError},
    authorize::Authorize,
    certificate::CertificateNames,
    connections::{Caller, Connection, Connections, Door, Owners},
    granted::has_right,
    listener::{BindError, Listener, inherited, inherited_count},
    permit::{Permit, check_instance},
    policy::{NewPrincipals, Policy},
    principals::{Principals, PrincipalsError, hash_of_token},
    rights::{Right, Rights, RightsError},
    tls::{NewCertificates, Tls, TlsError, TlsFiles},
    trusted_file::TrustedFileError,
};
