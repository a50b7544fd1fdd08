//! Deleting what is below a directory, whatever it is.
//!
//! Actions make these trees: nested deeper than any stack or descriptor table, with modes of zero,
//! with symlinks to anywhere. So nothing is followed, nothing is entered by a path of more than
//! one name, and there is no recursion: a directory that is not empty is first moved up to the
//! directory that is being emptied, under a new name, and has its turn there.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::{Errno, Result};

use crate::disk::{openat, renameat_with, unlinkat};

/// Deletes everything in a directory, but not the directory itself.
///
/// Nothing else may create files in it meanwhile. Fails with the first error that is not that an
/// entry is gone already; what was deleted by then stays deleted.
pub fn empty_directory(directory: BorrowedFd<'_>) -> Result<()> {
    let mut lifted = 0;
    loop {
        // Reopened for every round, so that the listing starts at the beginning.
        let listing = open_directory(directory, c".")?;
        let mut found = false;
        each_entry(&listing, |name, kind| {
            found = true;
            remove_entry(directory, &listing, name, kind, &mut lifted)
        })?;
        if !found {
            return Ok(());
        }
    }
}

/// Deletes an entry of `parent`; what is in it goes to `top` if it is a directory.
fn remove_entry(
    top: BorrowedFd<'_>,
    parent: &OwnedFd,
    name: &std::ffi::CStr,
    kind: FileType,
    lifted: &mut u64,
) -> Result<()> {
    if kind != FileType::Directory {
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {} // a file system that does not tell kinds when listing
            Err(e) => return Err(e),
        }
    }
    if remove_directory(parent, name)? {
        return Ok(());
    }
    let directory = open_directory(parent, name)?;
    each_entry(&directory, |name, kind| {
        if kind != FileType::Directory {
            match unlinkat(&directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::ISDIR) => {}
                Err(e) => return Err(e),
            }
        }
        if remove_directory(&directory, name)? {
            return Ok(());
        }
        lift(&directory, name, top, lifted)
    })?;
    // Not empty still when the listing skipped something: the next round finds it.
    remove_directory(parent, name)?;
    Ok(())
}

/// Removes a directory, and returns whether it is gone, which it is not when it holds something.
fn remove_directory(parent: &OwnedFd, name: &std::ffi::CStr) -> Result<bool> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Moves a directory to the top under a name that is free there.
fn lift(
    parent: &OwnedFd,
    name: &std::ffi::CStr,
    top: BorrowedFd<'_>,
    lifted: &mut u64,
) -> Result<()> {
    loop {
        *lifted += 1;
        let free = CString::new(format!("lifted-{lifted}")).expect("letters and digits");
        match renameat_with(parent, name, top, &free, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
}

fn open_directory(parent: impl std::os::fd::AsFd, name: &std::ffi::CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Calls with every entry but `.` and `..`, and with its kind as the listing tells it.
pub(crate) fn each_entry<E: From<Errno>>(
    directory: &OwnedFd,
    mut visit: impl FnMut(&std::ffi::CStr, FileType) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            visit(entry.file_name(), entry.file_type())?;
        }
    }
    Ok(())
}
