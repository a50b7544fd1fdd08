//! The content of a folder, to be compared with another's.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The entry at a path. Write permissions are left out: clients give outputs those that they like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File { content: Vec<u8>, is_executable: bool },
    Symlink(PathBuf),
}

/// All that is below a folder, by its path there.
pub(super) type Tree = BTreeMap<PathBuf, Entry>;

/// Reads a folder.
pub(super) fn read(folder: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    read_into(folder, Path::new(""), &mut tree)?;
    Ok(tree)
}

fn read_into(folder: &Path, below: &Path, tree: &mut Tree) -> Result<()> {
    let directory = folder.join(below);
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        let kind = entry.file_type()?;
        let found = if kind.is_dir() {
            read_into(folder, &path, tree)?;
            Entry::Directory
        } else if kind.is_symlink() {
            Entry::Symlink(fs::read_link(entry.path())?)
        } else {
            let is_executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            Entry::File { content: fs::read(entry.path())?, is_executable }
        };
        tree.insert(path, found);
    }
    Ok(())
}

/// Fails with the names of what differs.
pub(in crate::e2e) fn ensure_equal(ours: &Path, theirs: &Path) -> Result<usize> {
    let (left, right) = (read(ours)?, read(theirs)?);
    ensure!(!left.is_empty(), "{} is empty", ours.display());
    let names = left.keys().chain(right.keys());
    let mut differing: Vec<_> = names.filter(|name| left.get(*name) != right.get(*name)).collect();
    differing.dedup();
    ensure!(
        differing.is_empty(),
        "{} and {}: {differing:?} differ",
        ours.display(),
        theirs.display()
    );
    Ok(left.len())
}

/// Mode and time of modification in seconds.
pub(super) fn mode_and_time(path: &Path) -> Result<(u32, i64)> {
    let metadata = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    Ok((metadata.mode() & 0o7777, metadata.mtime()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("e2e-tree-{}-{name}", std::process::id()));
        fs::create_dir_all(folder.join("below")).unwrap();
        for (path, content) in files {
            fs::write(folder.join(path), content).unwrap();
        }
        folder
    }

    #[test]
    fn a_difference_is_named() {
        let left = folder("left", &[("same", "x"), ("below/file", "x")]);
        let right = folder("right", &[("same", "x"), ("below/file", "y")]);
        assert_eq!(ensure_equal(&left, &left).unwrap(), 3);
        let error = ensure_equal(&left, &right).unwrap_err().to_string();
        assert!(error.contains("below/file") && !error.contains("same"), "{error}");
        fs::set_permissions(right.join("same"), fs::Permissions::from_mode(0o755)).unwrap();
        let error = ensure_equal(&left, &right).unwrap_err().to_string();
        assert!(error.contains("same"), "{error}");
        for folder in [left, right] {
            fs::remove_dir_all(folder).unwrap();
        }
    }
}
