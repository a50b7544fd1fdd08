//! The content-addressed store (CAS) and the action cache on a directory.
//!
//! The store keeps three promises. A blob is visible only after its hash and size were verified,
//! whole, and never changes. Asking whether a blob is there costs no system call, and the answer is
//! right after a restart and after a deletion. A blob that somebody pinned is not deleted.
//!
//! It never takes more of the disk than it may: what was idle for longest is evicted ahead of need.
//!
//! It knows neither gRPC nor actions; a cached result is bytes to it, and whether the blobs that a
//! result names are there is asked by those who can read it. The format on disk is written down in
//! `docs/storage-format.md`.
//!
//! ```text
//!   Store ─┬─ Cas ──────── Index (what is there), Pins (what must stay), files below cas/blobs
//!          ├─ ActionCache  files below ac
//!          ├─ Space        what is charged, and the bounds; Evictor  makes room
//!          ├─ work         a directory for others, emptied at the start
//!          └─ Checkpoints  syncs every few seconds, knows what a crash may have torn
//! ```

mod account_file;
mod action_cache;
mod adopt;
mod beside;
mod blob_path;
mod cas;
mod changes;
mod checkpoint;
mod disk;
mod empty_directory;
mod entry;
mod error;
mod evictor;
#[cfg(test)]
mod fitting_test;
mod function_directories;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod hash_disk;
mod hash_file;
#[cfg(test)]
mod hit_rates;
mod index;
mod index_file;
mod losses;
mod maintenance;
#[cfg(test)]
mod model_test;
mod opening;
mod others;
mod pins;
mod publisher;
mod quarantine;
mod recency;
mod resident;
mod root;
mod scan;
mod scrub;
mod size;
mod space;
mod state;
mod store;
mod stripes;
mod stuck;
mod sync;
mod table;
mod tier;
mod trouble;
mod verify;
mod view;
mod watch;
mod writer;

pub use action_cache::{ActionCache, ENTRY_BYTES_MAX};
pub use adopt::{AdoptError, Adopted};
pub use beside::Beside;
pub use blob_path::BlobPath;
pub use cas::{Cas, Deleted, READ_BYTES_MAX};
pub use checkpoint::Durability;
pub use empty_directory::empty_directory;
pub use error::{Shortage, StoreError, is_exhaustion};
pub use maintenance::{Collected, Goals, Item, Verified};
pub use pins::{Pin, PinSet};
pub use root::OpenError;
pub use size::{SizeError, StoreSize};
pub use store::{Stats, Store, StoreOptions};
pub use sync::Journal;
pub use tier::{Pending, Tier};
pub use trouble::FailedWrites;
pub use verify::{Verdict, Verifier};
pub use view::{Blocking, Resident, StoreView};
pub use watch::Notice;
pub use writer::BlobWriter;
