//! Overlays, and a thread with a mount namespace for mounts that need attached layers.
//!
//! This room does not know what the layers of an overlay hold.

mod attributes;
mod layer_directory;
mod mounter;
mod namespace;
mod overlay;
mod thread;

pub(crate) use attributes::{ATTRIBUTES, clone_directory, clone_for};
pub(crate) use layer_directory::LayerDirectory;
pub(crate) use mounter::{Mounter, MounterPaths, Upper};
pub(crate) use namespace::{LowerLayer, Namespace};
pub(crate) use overlay::{Dialect, Marks};
pub(crate) use thread::MountThread;
