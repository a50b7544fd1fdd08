//! The ways to make a tree appear, each a [`Strategy`](workshop::Strategy) in one
//! [`Workshop`](workshop::Workshop).
//!
//! A strategy only makes a mount of a tree and a staging directory. All that the ways have in common
//! is the workshop's.

mod actiondfs;
mod bind;
mod by_properties;
mod erofs_overlay;
mod input_roots;
mod layer_cache;
mod link_overlay;
mod on_disk;
mod tmpfs_overlay;
mod workshop;

pub(crate) use actiondfs::ActiondFs;
pub(crate) use bind::BindMounts;
pub(crate) use by_properties::ByProperties;
#[cfg(test)]
pub(crate) use erofs_overlay::ImageWriter;
pub(crate) use erofs_overlay::{Backing, ErofsOverlay};
pub use input_roots::{Attachment, InputRoots, PresentRequest, Presented};
pub(crate) use link_overlay::LinkOverlay;
pub(crate) use tmpfs_overlay::TmpfsOverlay;
pub(crate) use workshop::Places;
