//! The strategy for ordinary users on kernels before 6.16: a tree of hard links to blobs is the lower
//! layer of an overlay.
//!
//! ```text
//! upper  <staging>/upper
//! lower  layers/<number>: directories, symlinks, and each file a hard link to its blob; an executable
//!        is a hard link to a copy, as a blob's mode is 0444
//! ```
//!
//! Nothing writes to a lower layer: who opens an input for writing, or changes its mode, gets a copy in
//! the upper directory. A tree is made once and kept, like an EROFS image. An input that is no
//! executable shows the mode and the time of its blob (0444, elsewhere 0644). Without `redirect_dir=on`,
//! which `userxattr` excludes, rename(2) of a directory that has inputs fails with EXDEV, as between
//! file systems. For a mutating action every file is a copy.

mod layers;

pub(crate) use layers::LinkOverlay;
