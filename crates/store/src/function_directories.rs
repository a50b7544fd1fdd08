//! The directories of each digest function, below those of blobs and of cached results:
//! `<function>/00` to `<function>/ff`.
//!
//! Those of the functions that nearly all clients use are made with the store. The others, which
//! would make every store larger and every start slower, are made for their first file.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};

use model::DigestFunction;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, statat};
use rustix::io::{Errno, Result};

use crate::disk::{mkdirat, openat};

/// The functions whose directories every store has.
#[cfg(not(test))]
const ALWAYS: [DigestFunction; 2] = [DigestFunction::Sha256, DigestFunction::Blake3];

/// The tests of this crate make thousands of stores, and those of another function than this are few.
#[cfg(test)]
const ALWAYS: [DigestFunction; 1] = [DigestFunction::Sha256];

/// The directories of one function.
pub(crate) const DIRECTORIES: u64 = 256;

/// The functions that have directories below one directory.
pub(crate) struct FunctionDirectories {
    directory: OwnedFd,
    /// A bit for each function.
    made: AtomicU8,
    making: Mutex<()>,
}

/// Makes the directories of [`ALWAYS`], completes those of other functions that are there, and
/// returns both.
pub(crate) fn make_or_complete(parents: [&OwnedFd; 2]) -> Result<Vec<DigestFunction>> {
    let mut functions = Vec::new();
    for function in DigestFunction::ALL {
        let is_there =
            |parent: &&OwnedFd| match statat(parent, function.name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Ok(true),
                Err(Errno::NOENT) => Ok(false),
                Err(e) => Err(e),
            };
        if ALWAYS.contains(&function) || is_there(&parents[0])? || is_there(&parents[1])? {
            for parent in parents {
                make(parent, function)?;
            }
            functions.push(function);
        }
    }
    Ok(functions)
}

impl FunctionDirectories {
    /// Those below `directory`, where `functions` have theirs.
    pub(crate) fn new(directory: OwnedFd, functions: &[DigestFunction]) -> Self {
        let made = functions.iter().fold(0, |made, function| made | bit(*function));
        Self { directory, made: AtomicU8::new(made), making: Mutex::new(()) }
    }

    /// Whether the function has directories. No system call.
    pub(crate) fn contain(&self, function: DigestFunction) -> bool {
        self.made.load(Ordering::Acquire) & bit(function) != 0
    }

    /// Makes the function's directories. Returns whether that was left to be done.
    pub(crate) fn make(&self, function: DigestFunction) -> Result<bool> {
        let _making = self.making.lock();
        if self.contain(function) {
            return Ok(false);
        }
        make(&self.directory, function)?;
        self.made.fetch_or(bit(function), Ordering::Release);
        Ok(true)
    }

    /// The functions that have directories.
    pub(crate) fn functions(&self) -> impl Iterator<Item = DigestFunction> {
        DigestFunction::ALL.into_iter().filter(|function| self.contain(*function))
    }
}

const fn bit(function: DigestFunction) -> u8 {
    1 << function as u8
}

/// Makes those that are not there. Most often all are, and one look shows it.
fn make(parent: &OwnedFd, function: DigestFunction) -> Result<()> {
    make_directory(parent, function.name())?;
    let mut is_there = [false; DIRECTORIES as usize];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for entry in Dir::new(openat(parent, function.name(), flags, Mode::empty())?)? {
        if let Some(shard) = shard_of(entry?.file_name()) {
            is_there[usize::from(shard)] = true;
        }
    }
    for shard in (0..=u8::MAX).filter(|shard| !is_there[usize::from(*shard)]) {
        make_directory(parent, &format!("{}/{shard:02x}", function.name()))?;
    }
    Ok(())
}

/// The first byte of the hashes in the directory of that name.
fn shard_of(name: &CStr) -> Option<u8> {
    let name = name.to_str().ok()?;
    let shard = u8::from_str_radix(name, 16).ok()?;
    (name == format!("{shard:02x}")).then_some(shard)
}

fn make_directory(parent: &OwnedFd, path: &str) -> Result<()> {
    match mkdirat(parent, path, Mode::RWXU) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_once_and_found_again() {
        let root = tempfile::tempdir().expect("a directory");
        let open = || OwnedFd::from(std::fs::File::open(root.path()).expect("a directory"));
        let (first, second) = (open(), open());
        let functions = make_or_complete([&first, &second]).expect("made");
        assert_eq!(functions, ALWAYS);
        let directories = FunctionDirectories::new(first, &functions);
        for function in DigestFunction::ALL {
            let is_new = !ALWAYS.contains(&function);
            assert_eq!(directories.contain(function), !is_new);
            assert_eq!(directories.make(function), Ok(is_new));
            assert_eq!(directories.make(function), Ok(false));
            let path = root.path().join(function.name());
            assert_eq!(std::fs::read_dir(path).expect("a directory").count(), 256);
        }
        std::fs::remove_dir(root.path().join("md5/7f")).expect("removed");
        std::fs::create_dir(root.path().join("md5/7F")).expect("a directory of another name");
        let functions = make_or_complete([&open(), &second]).expect("made");
        assert_eq!(functions, DigestFunction::ALL);
        assert!(root.path().join("md5/7f").is_dir());
    }
}
