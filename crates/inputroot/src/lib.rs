//! Makes an input tree appear at a directory.
//!
//! A tree that is whole in memory goes in ([`model::InputTree`]), something that a sandbox attaches
//! comes out ([`Attachment`]); when the action is over, its outputs are read through an
//! [`OutputView`]. How it is done depends on the kernel: each strategy is an [`InputRoots`], and
//! [`choose`] finds the best one that works by trying it out.
//!
//! ```text
//!   InputTree ──> erofs (image) ──> image, image_cache (mounted) ─┐
//!   make_directories ──> staging (upper, work) ───────────────────┴─> overlay ──> Presented
//!                                └──> actiondfs (in our own guest's kernel) ────> Presented
//!   Presented ──> outputs (what the action left) ──> janitor (unmount, empty, use again)
//! ```
//!
//! The crate neither checks that the blobs of a tree are there nor keeps them there, and it runs
//! nothing. All mounts are detached: nothing shows in the host's mount table, and everything is
//! gone when the process dies.

mod access;
mod error;

mod outputs;
mod present;

mod erofs;
mod image;
mod image_cache;
mod make_directories;
mod namespace;
mod overlay;

mod directory;
mod janitor;
mod mount_thread;
mod staging;
mod workshop;

mod actiondfs;
mod bind;
mod erofs_overlay;
mod probe;
mod trial;

pub use erofs::ImageError;
pub use error::PresentError;
pub use outputs::{NamedEntry, OutputEntry, OutputError, OutputFile, OutputView, StagedFile};
pub use present::{Attachment, InputRoots, PresentRequest, Presented};
pub use probe::{ChooseError, StrategyName, StrategyReport, UnknownStrategy, choose, probe};
pub use trial::TrialError;

#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "../tests/support/tree.rs"]
mod tree_fixture;
