//! Directories of tests, looked at from outside of a store. The tests inside of the crate share this.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The usual place of a tmpfs.
const MEMORY: &str = "/dev/shm";

/// A directory in memory where there is one: every store makes a thousand directories and syncs its
/// file system, which on a busy disk takes seconds, and no test here is about the disk.
pub(crate) fn temp_dir() -> TempDir {
    TempDir::new_in(MEMORY).or_else(|_| TempDir::new()).expect("a temporary directory")
}

/// All files below a directory that are no directories, sorted.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a kind").is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Copies a root as it is while a server uses it: what a killed server leaves.
pub(crate) fn snapshot(root: &Path) -> TempDir {
    let copy = temp_dir();
    copy_tree(root, copy.path());
    copy
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            match fs::DirBuilder::new().mode(0o700).create(&target) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => panic!("{error}"),
                _ => {}
            }
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

/// A generator of numbers, the same on every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
