//! What the binaries share: flags and wiring.
//!
//! Each binary parses, wires and runs; what they do is decided in the crates
//! below.
//!
//! - [`cli`]: flags, as plain data.
//! - [`logging`]: the log on standard error.
//! - [`privileges`]: what `serve` needs from the machine before anything else.
//! - [`serve`]: the daemon, wired bottom up.
//! - [`doctor`]: what this machine offers, and what its absence costs.

pub mod cli;
pub mod doctor;
pub mod logging;
pub mod privileges;
mod runtime_source;
pub mod serve;
