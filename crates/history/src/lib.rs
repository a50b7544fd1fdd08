//! The daemon's events, kept for later.
//!
//! Today this is the event file: one JSON line per answered operation, appended to a file or written
//! to standard output. It is never needed for serving. A thread of its own writes it, so that a slow
//! or full disk costs lines of the file and nothing else.

mod event_file;

pub use event_file::{EventFile, EventFileError};
