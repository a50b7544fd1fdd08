//! A safe view on what an action left behind.
//!
//! Use it when every process of the action is dead, so that nothing changes any more. No path is
//! resolved through a symlink, whoever made it, and none leads out of the root.
//!
//! Every path is looked up in the view of the action, which may have moved or removed inputs and made
//! directories of the tree anew. A file that the action made as a whole can become a blob without a
//! copy. An input that lies where the tree has it is answered from the tree.

mod entry;
mod folder;
mod origin;
mod view;

pub use entry::{NamedEntry, OutputEntry, OutputError, OutputFile, StagedFile};
pub(crate) use origin::first_numbers;
pub use view::OutputView;
pub(crate) use view::Source;
