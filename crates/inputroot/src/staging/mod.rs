//! The directories that hold what an action writes: made before it, read after it, emptied and used
//! again.

mod janitor;
mod make_directories;
mod outputs;
mod pool;

pub(crate) use janitor::{Janitor, Leftovers, Retired};
pub(crate) use make_directories::make_directories;
pub use outputs::{NamedEntry, OutputEntry, OutputError, OutputFile, OutputView, StagedFile};
pub(crate) use outputs::{Source, first_numbers};
pub(crate) use pool::{MappedLayers, Staging, StagingPool};
