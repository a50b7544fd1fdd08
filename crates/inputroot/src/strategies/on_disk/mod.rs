//! Input trees as directories on disk: what `bind` and `link-overlay` have in common.

mod executables;
mod files;
mod materialize;
mod walk;

pub(crate) use executables::Executables;
pub(crate) use materialize::{Content, Materializer};
pub(crate) use walk::{c_string, failed, is_bound, walk};
