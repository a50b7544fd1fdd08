//! The parts that the verbs of `cargo xtask` share, and the verb that new users start with.
//!
//! `cargo xtask` is built before it does anything, and who tries actiond waits for that. So this library,
//! and the program `xtask` on top of it, have no dependencies but [`anyhow`]. The other verbs, and all that
//! they need, are in the program `xtask-verbs` (`verbs.rs`), which `xtask` has cargo build and run.
//!
//! - [`serve`]: builds the daemon and runs it. - [`setup`]: what the distribution has to give.
//! - [`process`]: running programs, as root too. - [`workspace`]: where things are.

pub mod process;
pub mod serve;
pub mod setup;
pub mod workspace;
