//! How servers under test are started: at an address that stays theirs, and by an ordinary user.
//!
//! `testkit` and `xtask` both start the daemon. `xtask` does without `testkit`, whose clients take long to
//! compile, so that what both need is here. It has few dependencies and starts nothing itself.
//!
//! - [`reserved_address`]: a port that a server keeps while it is down.
//! - [`start_as`]: the ways in which an ordinary user starts a program.

pub mod reserved_address;
pub mod start_as;

pub use reserved_address::ReservedAddress;
pub use start_as::{ORDINARY_USER, StartAs};
