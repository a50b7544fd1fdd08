//! Makes what users download, from Debian packages and the project's own programs.
//!
//! [`build::run`] makes a runtime image: the recipe ([`recipe`]) names packages, [`apt`] fetches
//! them through the machine's package configuration, [`lock`] says which bytes they must be,
//! [`deb`] unpacks them, [`tree`] puts their files together, [`closure`] proves that no library is
//! missing, and [`image`] writes the SquashFS.
//!
//! [`dist::run`] makes a release: the image becomes a section of the daemon's executable ([`elf`]),
//! and that a Debian package ([`debian`]).
//!
//! Nothing of a package is ever executed. Everything here runs when a release is made, never in the
//! daemon; what both sides must agree on, the image's layout and manifest, is in
//! [`runtimes::manifest`].

pub mod apt;
pub mod ar;
pub mod build;
pub mod cache;
pub mod closure;
pub mod compression;
pub mod deb;
pub mod debian;
pub mod dist;
pub mod elf;
pub mod fetch;
pub mod image;
pub mod lock;
pub mod recipe;
pub mod tree;
