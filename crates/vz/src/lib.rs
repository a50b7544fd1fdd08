//! Virtualization.framework as the VMM of a macOS host.
//!
//! This crate is the [`vm::Vmm`] that Linux hosts have QEMU for. It knows how a machine is described
//! to the framework and which of its calls may be made where; artifacts, bridge, control protocol
//! and supervision are in `vm` and are the same on both hosts.
//!
//! ```text
//!   Boot ──► plan (pure) ──► configuration ──► machine, on its own serial queue
//!                                                │  connect ► dup'ed socket
//!                                                │  delegate ► how it ended
//!                                                └─ balloon ◄ the host's memory pressure
//! ```
//! - [`plan`]: the machine as plain data, and what is refused before the framework sees it.
//! - [`image`]: what the framework expects of the files it is given.
//! - `queue`: values that are only touched on one dispatch queue.
//! - `configuration`: the plan as the framework's objects. - `delegate`: how a machine ended.
//! - `machine`: a running one. - `pressure`, [`balloon`]: memory for a host that is short of it.
//! - `vmm`: the way in.
//!
//! The pure parts compile and are tested everywhere; the rest exists on macOS alone and is
//! type-checked and linked from Linux by `cargo xtask darwin`.

pub mod balloon;
pub mod image;
pub mod plan;

#[cfg(target_os = "macos")]
mod configuration;
#[cfg(target_os = "macos")]
mod delegate;
#[cfg(target_os = "macos")]
mod error;
#[cfg(target_os = "macos")]
mod machine;
#[cfg(target_os = "macos")]
mod pressure;
#[cfg(target_os = "macos")]
mod queue;
#[cfg(target_os = "macos")]
mod vmm;

#[cfg(target_os = "macos")]
pub use error::VzError;
#[cfg(target_os = "macos")]
pub use vmm::{VzVmm, host_limits, is_supported};
