//! The parts that the binaries share: flags and wiring.
//!
//! Each binary parses, wires and runs; the crates below decide what it does. Everything about VMs is
//! behind the feature `vm`, which is on unless `cargo xtask serve` builds the daemon.
//!
//! - [`logging`]: the log on standard error.
//! - [`darwin`]: `darwin-actiond`, for macOS hosts.
//! - [`image`]: the OCI images that actions can have as their root.
//! - [`doctor`]: what this machine offers, and what its absence costs.
//!
//! The rest is for Linux alone:
//! - [`bazelrc`]: the lines that Bazel needs to use a server.
//! - [`cli`]: flags, as plain data.
//! - [`client_verbs`]: what people ask a running server about its actions.
//! - [`cluster_worker`]: a worker of a cluster that has a scheduler.
//! - [`completions`]: scripts that complete words in a shell.
//! - [`configuration`]: the settings of `serve` from files, environment and flags.
//! - [`observers`]: the log, the event file and the page, which listen to events.
//! - [`server_flags`]: the server that a verb asks.
//! - [`span`]: spans of time on the command line.
//! - [`store_verbs`]: what operators do with the store.
//! - [`run`]: one command with a server of its own.
//! - [`trace_flags`]: traces of actions.
//! - [`upstream_flags`]: the tier below the store.
//! - [`overflow_flags`]: another engine that takes actions.
//! - [`fetch_flags`]: files that clients have the server fetch.
//! - [`serve`]: the daemon, wired bottom up.
//! - [`serve_vm`]: the same in a VM, seen from the host.
//! - [`guest`]: the same in a VM, seen from inside.
//! - [`worker_flags`]: the flags of `serve` that a worker in a VM takes.

// The macros panic when the reader is gone, as in `doctor | head`: `output` has functions in their place.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

#[cfg(target_os = "linux")]
pub mod action_ids;
#[cfg(target_os = "linux")]
pub mod bazelrc;
#[cfg(target_os = "linux")]
pub mod cli;
#[cfg(target_os = "linux")]
pub mod client_verbs;
#[cfg(target_os = "linux")]
pub mod cluster_worker;
#[cfg(target_os = "linux")]
pub mod completions;
#[cfg(target_os = "linux")]
pub mod configuration;
#[cfg(target_os = "linux")]
mod container;
#[cfg(feature = "vm")]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "`output` is for Linux alone")]
pub mod darwin;
pub mod doctor;
#[cfg(target_os = "linux")]
mod doors;
#[cfg(target_os = "linux")]
pub mod fetch_flags;
#[cfg(all(target_os = "linux", feature = "vm"))]
pub mod guest;
#[cfg(target_os = "linux")]
pub mod helper;
#[cfg(target_os = "linux")]
mod history_room;
#[cfg(target_os = "linux")]
pub mod image;
#[cfg(target_os = "linux")]
mod journal;
mod log_line;
pub mod logging;
#[cfg(target_os = "linux")]
mod machine_load;
#[cfg(target_os = "linux")]
pub mod observers;
#[cfg(target_os = "linux")]
mod output;
#[cfg(target_os = "linux")]
mod overflow;
#[cfg(target_os = "linux")]
pub mod overflow_flags;
#[cfg(target_os = "linux")]
mod privileges;
#[cfg(target_os = "linux")]
mod reload;
mod repeated;
#[cfg(target_os = "linux")]
mod root_directory;
#[cfg(target_os = "linux")]
mod rootless;
#[cfg(target_os = "linux")]
pub mod run;
#[cfg(target_os = "linux")]
mod runtime_source;
#[cfg(target_os = "linux")]
pub mod serve;
#[cfg(all(target_os = "linux", feature = "vm"))]
pub mod serve_vm;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
pub mod server_flags;
#[cfg(target_os = "linux")]
mod service_manager;
#[cfg(target_os = "linux")]
pub mod span;
#[cfg(target_os = "linux")]
mod store_observers;
#[cfg(target_os = "linux")]
pub mod store_verbs;
#[cfg(target_os = "linux")]
mod surroundings;
#[cfg(target_os = "linux")]
mod taken_ids;
#[cfg(target_os = "linux")]
mod tally;
#[cfg(target_os = "linux")]
pub mod trace_flags;
#[cfg(target_os = "linux")]
pub mod upstream_flags;
#[cfg(all(target_os = "linux", feature = "vm"))]
pub mod worker_flags;
