//! Reads an image back, for tests and fuzzing.
//!
//! The reader takes any bytes. It knows only what the writer uses of the format and refuses the rest
//! ([`ReadError::Unsupported`]); of that it checks what the kernel checks, and what the writer
//! promises beyond: sorted names, right link counts, one name for each inode.
//!
//! A hostile image cannot make it work or allocate more than a small multiple of its size. Every
//! inode is read once, so there is no loop; and what is read is charged to a budget of as many bytes
//! as the image has, so that overlapping structures are an error. Nothing recurses.

mod parse;
mod read;
mod round_trip;
mod tree;

pub(crate) use read::read;
pub use round_trip::RoundTripError;
pub(crate) use round_trip::round_trip;
pub use tree::ReadError;
