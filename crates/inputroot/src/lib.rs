//! Makes an input tree appear at a directory.
//!
//! The input is a tree that is whole in memory ([`model::InputTree`]); the result is a mount that a
//! sandbox attaches ([`Attachment`]). After the action, an [`OutputView`] reads its outputs. The
//! mechanism depends on the kernel: each strategy is an [`InputRoots`], and [`choose`] finds the best
//! one that works by trying them.
//!
//! ```text
//!   probe         tries the strategies and starts one
//!     strategies  make a mount of a tree and a staging directory
//!       staging   holds what an action writes, reads it, and puts it away
//!       mounts    makes overlays, in the process's own mount namespace where needed
//!       erofs     builds the metadata image of a tree
//! ```
//!
//! A room uses only those below it. The crate does not check that the blobs of a tree are in the
//! store, does not keep them there, and runs no command. All mounts are detached: none shows in the
//! host's mount table, and all are gone when the process dies.

mod access;
mod directory;
mod erofs;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod interrupt;
mod mounts;
mod probe;
mod staging;
mod strategies;

pub use access::HostUser;
pub use erofs::ImageError;
pub use error::PresentError;
pub use interrupt::Interrupt;
pub use probe::{
    ChooseError, StrategyName, StrategyReport, TrialError, UnknownStrategy, choose, probe, try_user,
};
pub use staging::{NamedEntry, OutputEntry, OutputError, OutputFile, OutputView, StagedFile};
pub use strategies::{Attachment, InputRoots, PresentRequest, Presented};

#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "../tests/support/tree.rs"]
mod tree_fixture;
