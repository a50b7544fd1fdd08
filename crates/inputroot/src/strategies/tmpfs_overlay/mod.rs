//! The strategy for ordinary users, who can't mount EROFS: a tmpfs has the names, and overlayfs reads
//! marks that need no privilege (`userxattr`).
//!
//! ```text
//! upper  <staging>/upper
//! lower  a tmpfs: directories, symlinks, and for each file with content an empty one of its size with
//!        user.overlay.metacopy   (empty) says that the content is elsewhere
//!        user.overlay.redirect   /<function>/<shard>/<hash>: the path in the data layer
//! data   <root>/cas/blobs: content, visible only through the tmpfs
//! ```
//!
//! A tmpfs is filled once for a tree and kept, as EROFS images are. Kernels before 6.16 refuse a data
//! layer without `metacopy=on`, which excludes `userxattr`. Without `redirect_dir=on`, which it
//! excludes too, rename(2) of a directory that has inputs fails with EXDEV, as between file systems.

mod fill;
mod layers;

pub(crate) use layers::TmpfsOverlay;
