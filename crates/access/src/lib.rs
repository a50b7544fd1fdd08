//! How clients come in, and what they may do.
//!
//! ```text
//! listeners (TCP, unix, inherited) ──► accept ──► connection with its caller
//!                                                    │
//! call ──► principal: token or anonymous ──► rights ─┴─► handler or refusal
//! ```
//!
//! A connection knows what its listener grants to anonymous callers. A call may carry a bearer token.
//! [`Policy`] decides by these before the call reaches a service. No log and no error contains a secret:
//! tokens are kept as hashes, and the header is taken out of the request.
//!
//! This crate does not know what the services do; it knows their names.

mod accept;

#[cfg(target_os = "linux")]
mod address;
#[cfg(target_os = "linux")]
mod authorize;
#[cfg(target_os = "linux")]
mod connections;
#[cfg(target_os = "linux")]
mod listener;
#[cfg(target_os = "linux")]
mod policy;
#[cfg(target_os = "linux")]
mod principals;
#[cfg(target_os = "linux")]
mod rights;

pub use accept::accept_tcp;
#[cfg(target_os = "linux")]
pub use {
    address::{Listen, ListenError, Place, SocketMode, SocketModeError},
    authorize::Authorize,
    connections::{Caller, Connection, Connections},
    listener::{BindError, Listener, inherited, inherited_count},
    policy::Policy,
    principals::{Principals, PrincipalsError, hash_of_token},
    rights::{Right, Rights, RightsError},
};
