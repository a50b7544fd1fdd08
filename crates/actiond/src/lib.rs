//! What the binaries share: flags and wiring.
//!
//! Each binary parses, wires and runs; what they do is decided in the crates
//! below.
//!
//! - [`cli`]: flags, as plain data.
//! - [`logging`]: the log on standard error.
//! - [`privileges`]: what `serve` needs from the machine before anything else.
//! - [`serve`]: the daemon, wired bottom up.
//! - [`serve_vm`]: the same in a VM, seen from the host.
//! - [`guest`]: the same in a VM, seen from inside.
//! - [`doctor`]: what this machine offers, and what its absence costs.

pub mod cli;
pub mod doctor;
pub mod guest;
pub mod logging;
pub mod privileges;
mod runtime_source;
pub mod serve;
pub mod serve_vm;
