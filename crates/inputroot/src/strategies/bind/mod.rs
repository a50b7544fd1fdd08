//! The strategy for kernels without data-only layers: a real directory for every directory, an
//! empty file for every file, and the store's blob mounted over it.
//!
//! ```text
//! the caller's thread                          a mount thread
//! directories, symlinks, executables,          the staging directory is attached,
//! placeholders in a staging directory  ─────>  a blob bound over every placeholder, and
//!                                              the whole copied as one detached mount
//! ```
//!
//! It costs several system calls for each input, and exists for kernels that have nothing better. An
//! input with content that is not executable shows the mode of its blob (0444, elsewhere 0644), and
//! its name stays where it is, because a mount point cannot be moved or removed. A blob is not
//! executable and a mount cannot make it so: executables are hard links to copies. For a mutating action every file is a copy, and nothing is bound.

mod binder;
mod mount_count;
mod mounts;

pub(crate) use mounts::BindMounts;
