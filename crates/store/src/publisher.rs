//! Files that have no name before they are whole.
//!
//! A file is made with `O_TMPFILE`, and gets its name by `linkat` when its content is complete: no
//! reader ever sees half of it, and one that is given up, or whose server is killed, is gone.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::disk::{fchmod, linkat, openat, renameat, unlinkat};

/// Makes files below one directory.
pub(crate) struct Publisher {
    directory: OwnedFd,
    /// On the same file system, for what must be renamed. Others use it too, with other prefixes.
    temporary: OwnedFd,
    prefix: &'static str,
    next: AtomicU64,
    mode: Mode,
    /// The umask takes bits from the mode of a new file, so that it must be set.
    mode_is_masked: bool,
    /// `linkat` takes no bare descriptor from us, only its name in /proc.
    link_by_proc: AtomicBool,
}

impl Publisher {
    /// Fails when the file system has no `O_TMPFILE`.
    pub(crate) fn new(
        directory: OwnedFd,
        temporary: OwnedFd,
        prefix: &'static str,
        mode: Mode,
    ) -> Result<Self, Errno> {
        let mode_is_masked = match open_unnamed(&directory, mode) {
            Ok(probe) => Mode::from_raw_mode(fstat(&probe)?.st_mode) != mode,
            // No room for a file now, but there will be: the mode is set each time.
            Err(Errno::NOSPC | Errno::DQUOT) => true,
            Err(e) => return Err(e),
        };
        Ok(Self {
            directory,
            temporary,
            prefix,
            next: AtomicU64::new(0),
            mode,
            mode_is_masked,
            link_by_proc: AtomicBool::new(false),
        })
    }

    /// The directory that names are relative to.
    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// A file without a name, opened for writing.
    pub(crate) fn create(&self) -> Result<OwnedFd, Errno> {
        let file = open_unnamed(&self.directory, self.mode)?;
        if self.mode_is_masked {
            fchmod(&file, self.mode)?;
        }
        Ok(file)
    }

    /// Gives a file that name, in place of any file that has it.
    pub(crate) fn publish(&self, file: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
        match self.link(file, &self.directory, path) {
            Err(Errno::EXIST) => self.replace(file, path),
            linked => linked,
        }
    }

    /// `linkat` never replaces, and `renameat` needs a name.
    fn replace(&self, file: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.prefix);
        self.link(file, &self.temporary, &name)?;
        renameat(&self.temporary, &name, &self.directory, path).inspect_err(|_| {
            // If this fails too, the next start removes it.
            let _ = unlinkat(&self.temporary, &name, AtFlags::empty());
        })
    }

    /// `linkat` by descriptor needs CAP_DAC_READ_SEARCH, or a kernel from 6.10.
    fn link(
        &self,
        file: BorrowedFd<'_>,
        directory: &OwnedFd,
        name: impl Arg + Copy,
    ) -> Result<(), Errno> {
        if !self.link_by_proc.load(Ordering::Relaxed) {
            match linkat(file, c"", directory, name, AtFlags::EMPTY_PATH) {
                Err(Errno::NOENT) => self.link_by_proc.store(true, Ordering::Relaxed),
                result => return result,
            }
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(CWD, path, directory, name, AtFlags::SYMLINK_FOLLOW)
    }
}

/// All files are made in one directory, so that their inodes lie side by side.
fn open_unnamed(directory: &OwnedFd, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    openat(directory, c".", flags, mode)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;
    use crate::root::write_all;

    #[test]
    fn both_ways_of_linking_make_and_replace_a_file() {
        for by_proc in [false, true] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let names = directory.path().join("names");
            let temporary = directory.path().join("temporary");
            for path in [&names, &temporary] {
                fs::create_dir(path).expect("a directory");
            }
            let open = |path| OwnedFd::from(File::open(path).expect("a directory"));
            let publisher = Publisher::new(open(&names), open(&temporary), "x", Mode::RUSR)
                .expect("a file system with O_TMPFILE");
            publisher.link_by_proc.store(by_proc, Ordering::Relaxed);
            for content in ["first", "second"] {
                let file = publisher.create().expect("a file");
                write_all(file.as_fd(), content.as_bytes()).expect("written");
                publisher.publish(file.as_fd(), c"name").expect("published");
                let read = fs::read_to_string(names.join("name")).expect("a file");
                assert_eq!(read, content);
            }
            assert_eq!(fs::read_dir(&temporary).expect("a directory").count(), 0);
        }
    }

    #[test]
    fn a_file_that_can_not_be_replaced_leaves_no_temporary_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join("name")).expect("a directory");
        let open = || OwnedFd::from(File::open(directory.path()).expect("a directory"));
        let publisher =
            Publisher::new(open(), open(), "x", Mode::RUSR).expect("a file system with O_TMPFILE");
        let file = publisher.create().expect("a file");
        let error = publisher.publish(file.as_fd(), c"name");
        assert_eq!(error, Err(Errno::ISDIR));
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }
}
