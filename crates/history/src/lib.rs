//! The daemon's events, kept for later.
//!
//! ```text
//!  events ──┬─► EventFile   a JSON line per answered operation, in a file or on standard output
//!           ├─► History ──► bounded queue ──► writer's thread ──► <root>/history/events.db
//!           │                                                       ▲
//!           │               pages and verbs ──► Reader ─────────────┘
//!           ├─► Feed        new records, to those that follow them
//!           └─► Now         running and queued actions
//! ```
//!
//! Nothing here is needed for serving. A slow or full disk costs records, which are counted, and a broken
//! database is deleted and started anew.
//!
//! - `record`: one execution or lookup, as it is kept.
//! - `schema`: the tables, the indexes and the connections.
//! - `inbox`: the queue in front of the writer.
//! - `hits`: lookups that found a result, many in one record.
//! - `batch`: records on their way into the tables.
//! - `bounds`: what is deleted because it is old or takes too much space.
//! - `compare`: the differences of two Actions.
//! - `text`: times as people read them.
//! - `writer`: the thread that owns the database.
//! - `reader`: questions.
//! - `Archive`: all of it but the event file, for the page and for the services.

mod archive;
mod batch;
mod bounds;
pub mod compare;
mod event_file;
mod feed;
mod hits;
mod inbox;
mod now;
pub mod reader;
pub mod record;
mod schema;
pub mod text;
mod writer;

#[cfg(test)]
mod tests;

pub use archive::{Archive, AskError};
pub use event_file::{EventFile, EventFileError};
pub use feed::{Feed, Follower};
pub use now::{Live, Now, Snapshot};
pub use reader::{Page, ReadError, Reader};
pub use record::{Kind, Record};
pub use writer::{BYTES_MIN, Fixed, History, HistoryStats, Options, Room, bytes_in};
