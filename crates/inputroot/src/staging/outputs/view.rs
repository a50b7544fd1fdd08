//! The view on an input root after its action.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::{InputTree, Mtime, NodeProperties, RelPath};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::entry::{NamedEntry, OutputEntry, OutputError};
use super::folder::{Files, Folder, open_beneath};

/// A view on an input root after its action.
#[derive(Debug, Clone)]
pub struct OutputView {
    source: Source,
}

/// The place that a view reads.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// An overlay whose input files belong to root. `merged` is the view of the action; `upper` holds
    /// what it made and moved.
    Overlay { tree: Arc<InputTree>, merged: Arc<OwnedFd>, upper: Arc<OwnedFd> },
    /// A directory that has everything. Regular files of root are inputs, or stand for them.
    Bound { tree: Arc<InputTree>, root: Arc<OwnedFd> },
    /// Every file may have changed. `merged` is the view of the action; `upper` holds the files that
    /// can be moved. They are the same where there is no second layer.
    Mutable { merged: Arc<OwnedFd>, upper: Arc<OwnedFd> },
}

impl OutputView {
    pub(crate) fn new(source: Source) -> Self {
        Self { source }
    }

    /// The entry at `path`; `None` if there is nothing, also because something on the way to it is
    /// not a directory.
    pub fn entry(&self, path: &RelPath) -> Result<Option<OutputEntry>, OutputError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Some(OutputEntry::Directory));
        };
        // A component of a clean path has no NUL.
        let Ok(name) = CString::new(name) else {
            return Ok(None);
        };
        // Most outputs are files that the action made; they are found without the overlay.
        if let Source::Overlay { upper, .. } = &self.source
            && let Some(made) = open_beneath(upper, &parent)?
            && let Some(entry) = Folder::made(&parent, made).made_entry(&name)?
        {
            return Ok(Some(entry));
        }
        let Some(folder) = self.open(&parent)? else {
            return Ok(None);
        };
        folder.entry(&name, FileType::Unknown)
    }

    /// The time of modification and the mode of the entry at `path`, both set; that of a symlink itself.
    pub fn properties(&self, path: &RelPath) -> Result<NodeProperties, OutputError> {
        let root = self.root();
        let stat = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => match open_beneath(root, &parent)? {
                Some(directory) => rustix::fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW),
                None => Err(Errno::NOENT),
            },
            _ => rustix::fs::fstat(&**root),
        };
        let stat = stat.map_err(|source| {
            let path = path.as_str().to_owned();
            OutputError::Read { step: "fstatat", path, source }
        })?;
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Ok(NodeProperties {
            mtime: Some(Mtime { seconds: stat.st_mtime, nanos }),
            unix_mode: Some((stat.st_mode & 0o7777) as u16),
        })
    }

    /// The directory that shows everything as the action saw it.
    fn root(&self) -> &Arc<OwnedFd> {
        match &self.source {
            Source::Overlay { merged, .. } | Source::Mutable { merged, .. } => merged,
            Source::Bound { root, .. } => root,
        }
    }

    /// Everything in the directory at `path`, sorted by the bytes of the names.
    ///
    /// A directory with more than `max_entries` is refused rather than listed in part: an action
    /// can make as many files as the disk has room for.
    pub fn read_dir(
        &self,
        path: &RelPath,
        max_entries: usize,
    ) -> Result<Vec<NamedEntry>, OutputError> {
        let Some(folder) = self.open(path)? else {
            return Err(OutputError::NotADirectory { path: path.as_str().to_owned() });
        };
        let mut listing = Vec::new();
        folder.list(|name, kind| {
            if listing.len() == max_entries {
                return Err(OutputError::TooManyEntries {
                    path: path.as_str().to_owned(),
                    max_entries,
                });
            }
            if let Some(entry) = folder.entry(name, kind)? {
                listing.push(NamedEntry { name: name.to_bytes().to_vec(), entry });
            }
            Ok(())
        })?;
        listing.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(listing)
    }

    /// The directory at `path` as the action left it; `None` if there is none.
    fn open<'a>(&'a self, path: &'a RelPath) -> Result<Option<Folder<'a>>, OutputError> {
        let Some(directory) = open_beneath(self.root(), path)? else {
            return Ok(None);
        };
        let files = match &self.source {
            Source::Overlay { tree, upper, .. } => {
                Files::by_owner(tree, upper, open_beneath(upper, path)?)
            }
            Source::Bound { tree, .. } => Files::Bound { tree },
            Source::Mutable { upper, .. } => Files::Unmarked(open_beneath(upper, path)?),
        };
        Ok(Some(Folder::new(path, directory, files)))
    }
}
