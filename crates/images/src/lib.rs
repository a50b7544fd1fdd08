//! OCI images as root file systems for actions, without a container daemon.
//!
//! ```text
//! import:  layout (directory or tar) ──► layers, verified ──► files in the CAS, directories as
//!          REAPI Directory blobs ──► <root>/images/<hash of the name>.json
//! show:    record ──► input tree, complete and pinned ──► EROFS image and overlay, mounted once
//!          ──► runtimes::Rootfs, until no action sees it any more
//! ```
//!
//! An image becomes an input tree because that is what the store and [`inputroot`] are good at: its
//! files are blobs like any others, shared with other images and with what actions use and produce,
//! and it is mounted by the mechanism that input roots have. Owners, times, set-user-id and devices have
//! no place in a tree and are dropped on purpose. So are files that not everyone may read in the image:
//! everything in a tree is readable by all.
//!
//! The crate fetches nothing: images come as files.

mod destination;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod images;
mod import;
mod layers;
mod layout;
mod present;
mod record;

pub use destination::Destination;
pub use images::{ChangeError, Images, Reloaded};
pub use import::{FUNCTION, ImportError, Imported, import, unpack};
pub use layout::LayoutError;
pub use present::OpenImageError;
pub use record::{ImageName, NameError, Record, RecordError, list, remove};
