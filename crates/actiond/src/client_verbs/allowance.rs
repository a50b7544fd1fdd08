//! The bound of what one verb holds and writes of an action's files.
//!
//! A few bytes from a client name any number of files of any size: a Directory costs nothing to repeat, and a file
//! occurs at as many places as it is named. Everything is counted before the first file is written, so that a verb
//! that is refused has written nothing.

use anyhow::{bail, ensure};
use history::text::size;
use model::{ByteSize, Entry, InputTree, TreeLimits};

/// The amounts that may still be held and written.
pub(crate) struct Allowance {
    /// Entries, and directories for them to be in, at all places.
    entries: u64,
    /// Memory for Directories.
    memory_bytes: u64,
    /// Contents of files.
    content_bytes: u64,
    /// The bytes that the contents may take in all.
    content_bytes_max: u64,
}

impl Allowance {
    /// As many entries, and as much memory, as one input tree of the server may have, and files of that size in all.
    pub(crate) fn new(content: ByteSize) -> Self {
        let TreeLimits { max_entries, max_memory_bytes, .. } = TreeLimits::default();
        Self {
            entries: max_entries,
            memory_bytes: max_memory_bytes,
            content_bytes: content.0,
            content_bytes_max: content.0,
        }
    }

    /// The limits of the next tree.
    pub(crate) fn limits(&self) -> TreeLimits {
        TreeLimits {
            max_entries: self.entries,
            max_memory_bytes: self.memory_bytes,
            ..TreeLimits::default()
        }
    }

    /// Counts a tree that was assembled within [`Self::limits`].
    pub(crate) fn take_tree(&mut self, tree: &InputTree) -> anyhow::Result<()> {
        self.take_entries(tree.entry_count() as u64)?;
        let mut content_bytes: u64 = 0;
        for place in tree.directories() {
            for entry in place.content.entries() {
                if let Entry::File { digest, .. } = entry {
                    content_bytes = content_bytes.saturating_add(digest.size_bytes());
                }
            }
        }
        let memory_bytes = tree.directory_bytes();
        self.memory_bytes = self.memory_bytes.saturating_sub(memory_bytes);
        self.take_content(content_bytes)
    }

    /// Counts a path with the directories above it, and the content there.
    pub(crate) fn take_path(&mut self, path: &str, content_bytes: u64) -> anyhow::Result<()> {
        self.take_entries(1 + path.matches('/').count() as u64)?;
        self.take_content(content_bytes)
    }

    fn take_entries(&mut self, entries: u64) -> anyhow::Result<()> {
        match self.entries.checked_sub(entries) {
            Some(left) => self.entries = left,
            None => bail!(
                "the action has more than {} files, directories and symlinks, which is more than are written",
                TreeLimits::default().max_entries
            ),
        }
        Ok(())
    }

    fn take_content(&mut self, bytes: u64) -> anyhow::Result<()> {
        let left = self.content_bytes.checked_sub(bytes);
        ensure!(
            left.is_some(),
            "the files take more than {}, at all their places together; nothing was written. A larger --up-to \
             allows it",
            size(self.content_bytes_max)
        );
        self.content_bytes = left.unwrap_or_default();
        Ok(())
    }
}
