//! Configuration: file, environment and flags, in this order of precedence from low to high.
//!
//! ```text
//! /etc/actiond/config.toml ─┐
//! ~/.config/actiond/…      ─┤ file ──┐
//!                           │        ▼
//! ACTIOND_…  ───────────── environment ──► words of one command line ──► clap ──► the typed settings
//! --…  ─────────────────── flags ────┘     and the origin of each
//! ```
//!
//! The flags that clap knows are the one schema. A flag `--queue-limit N` is also the key
//! `queue_limit = N` of the file and the variable `ACTIOND_QUEUE_LIMIT=N`, so a setting is declared,
//! parsed and checked in one place, and a new flag is configurable at once. Values of file and
//! environment are checked one by one, and an error names the file, the line and the key, or the
//! variable.
//!
//! This crate does not know what a setting means.

mod file;
mod layers;
mod locate;
mod show;
mod variables;

pub use file::FileError;
pub use layers::{Error, Layers, Origin, Resolved, Setting};
pub use locate::{CONFIG_FLAG, default_files};
pub use variables::UnknownVariable;
