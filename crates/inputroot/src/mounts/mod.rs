//! Overlays, and a thread with a mount namespace for mounts that need attached layers.
//!
//! This room does not know what the layers of an overlay hold.

mod attributes;
mod namespace;
mod overlay;
mod thread;

pub(crate) use attributes::{ATTRIBUTES, clone_directory};
pub(crate) use namespace::{LowerLayer, Namespace};
pub(crate) use overlay::{Dialect, Layers, mount_overlay};
pub(crate) use thread::MountThread;
