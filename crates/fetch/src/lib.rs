//! Files of web servers, which clients ask for by the Remote Asset API.
//!
//! A client names a URL, and the server opens it: a client could so reach what only the server reaches. The operator
//! says where that may lead ([`allowed`]). Each address is checked that a name leads to, and each step of a redirect, before
//! anything is sent there.
//!
//! ```text
//!  wish ──► allowed? ──► resolve, public? ──► GET ──► 200 ──► store, hashes right? ──► digest
//!              ▲                               │
//!              └────────── redirect ◄──────────┘
//! ```
//!
//! Only GET is sent, without cookies, proxies and credentials of the server's own. Nothing is kept of a URL but the content.
//!
//! - [`public`]: addresses of the internet, and those of networks and hosts.
//! - [`allowed`]: the hosts that may be asked, as the operator writes them.
//! - `resolver`: names of hosts to addresses, of which only public ones pass.
//! - `request`: a request with its redirects.
//! - `pace`: how slow a host may be.
//! - `receive`: the content, checked and into the store.
//! - [`web`]: the whole, with its bounds.

pub mod allowed;
mod pace;
pub mod public;
mod receive;
mod request;
mod resolver;
pub mod web;

pub use allowed::{Allowed, AllowedError};
pub use web::{Web, WebError};
