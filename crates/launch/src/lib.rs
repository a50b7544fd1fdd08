//! How servers under test are started: at an address that stays theirs, by an ordinary user, and with a bound on their
//! memory.
//!
//! `testkit` and `xtask` both start the daemon. `xtask` does without `testkit`, whose clients take long to
//! compile, so that what both need is here. It has few dependencies and starts nothing itself.
//!
//! - [`bounded`]: servers of others that can't take all memory.
//! - [`reserved_address`]: a port that a server keeps while it is down.
//! - [`start_as`]: the ways in which an ordinary user starts a program.

pub mod bounded;
pub mod reserved_address;
pub mod start_as;

pub use bounded::bounded;
pub use reserved_address::ReservedAddress;
pub use start_as::{ORDINARY_USER, StartAs};
