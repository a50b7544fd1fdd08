//! The directories of an input tree at which it changes whether an action may write.
//!
//! The changes are counted before any path is put together, so a tree that has too many costs one pass
//! over its directories. The names for the paths cost one pass over the entries of each directory that is
//! above a change, however many changes it leads to.

use std::collections::{BTreeSet, HashMap};

use crate::node_properties::SUBTREE_READ_ONLY;
use crate::path::{PathError, RelPath};
use crate::tree::InputTree;

/// An error of listing the write changes of a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteChangesError {
    /// There are more than this.
    #[error(
        "the node property {SUBTREE_READ_ONLY} changes at more than {0} directories of the input tree"
    )]
    TooMany(usize),
    /// The path of a directory is too long.
    #[error(
        "the node property {SUBTREE_READ_ONLY} changes at a directory whose path is longer than \
         {max_bytes} bytes, and nothing can be mounted there; the path begins with {start:?}"
    )]
    PathTooLong {
        /// The first characters of the path.
        start: String,
        /// The length that is accepted, in bytes.
        max_bytes: usize,
    },
    /// The path of a directory is no [`RelPath`] for another reason.
    #[error("the node property {SUBTREE_READ_ONLY} changes at a directory whose path is refused")]
    Path(#[from] PathError),
}

/// The characters of a path that an error shows.
const SHOWN_CHARACTERS: usize = 128;

impl InputTree {
    /// The directories at which it changes whether an action may write, each before those below it:
    /// whether writes are closed from there on.
    ///
    /// # Errors
    /// There are more than `max_changes`, or the path of one is longer than `max_path_bytes`.
    pub fn write_changes(
        &self,
        max_changes: usize,
        max_path_bytes: usize,
    ) -> Result<Vec<(RelPath, bool)>, WriteChangesError> {
        let changes = self.changed_directories(max_changes)?;
        let names = self.names_up_from(changes.iter().map(|(index, _)| *index));
        let path_of = |index| {
            let path = self.join_names(index, &names);
            if path.len() > max_path_bytes {
                let start = path.chars().take(SHOWN_CHARACTERS).collect();
                return Err(WriteChangesError::PathTooLong { start, max_bytes: max_path_bytes });
            }
            Ok(if index == 0 { RelPath::root() } else { RelPath::parse(&path)? })
        };
        changes.into_iter().map(|(index, closed)| Ok((path_of(index)?, closed))).collect()
    }

    /// The indexes of the changed directories in ascending order.
    fn changed_directories(&self, max: usize) -> Result<Vec<(u32, bool)>, WriteChangesError> {
        let mut changes = Vec::new();
        if !self.has_properties() {
            return Ok(changes);
        }
        let mut closed = Vec::with_capacity(self.directories().len());
        for (index, directory) in self.directories().iter().enumerate() {
            // The root's parent is the root, which is not there yet: it is open.
            let above = closed.get(directory.parent as usize).copied().unwrap_or(false);
            let here = directory.content.subtree_read_only().unwrap_or(above);
            closed.push(here);
            if here == above {
                continue;
            }
            if changes.len() == max {
                return Err(WriteChangesError::TooMany(max));
            }
            changes.push((index as u32, here));
        }
        Ok(changes)
    }

    /// The names of these directories and of all above them, but the root, by their indexes.
    fn names_up_from(&self, indexes: impl Iterator<Item = u32>) -> HashMap<u32, &str> {
        let parent_of = |index: u32| self.directories()[index as usize].parent;
        let mut wanted = BTreeSet::new();
        for mut index in indexes {
            while index != 0 && wanted.insert(index) {
                index = parent_of(index);
            }
        }
        let wanted = Vec::from_iter(wanted);
        let mut names = HashMap::with_capacity(wanted.len());
        // The directories of one parent follow each other, in the order of its entries.
        for siblings in wanted.chunk_by(|one, other| parent_of(*one) == parent_of(*other)) {
            let parent = &self.directories()[parent_of(siblings[0]) as usize];
            let mut all = parent.content.directory_names();
            let mut next = parent.first_child;
            for &index in siblings {
                // Names are UTF-8, as the parser saw to, and there are as many as directories.
                let name = all.nth((index - next) as usize).unwrap_or_default();
                names.insert(index, std::str::from_utf8(name).unwrap_or_default());
                next = index + 1;
            }
        }
        names
    }

    fn join_names(&self, mut index: u32, names: &HashMap<u32, &str>) -> String {
        let mut components = Vec::new();
        while index != 0 {
            components.push(names.get(&index).copied().unwrap_or_default());
            index = self.directories()[index as usize].parent;
        }
        components.reverse();
        components.join("/")
    }
}
