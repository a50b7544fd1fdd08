//! Reading a directory that stands for the root of another system.
//!
//! Its symlinks mean paths of that system: `usr/lib -> /opt/lib` is its own `/opt`, not the host's.
//! So every path is resolved by the kernel with that directory as root (`RESOLVE_IN_ROOT`,
//! openat2(2)), which `..` and absolute links can't leave.
//!
//! Only what every local user may read is shown to actions: a file of mode 0600 stays its owner's
//! secret, though the daemon could read it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::rootfs::Item;

/// The largest file that is copied into a view; a large `ld.so.cache` has 300 KiB.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// The number of tries of a resolution that races with renames (`EAGAIN`, openat2(2)).
const MAX_ATTEMPTS: u32 = 32;

/// A file or directory below an operator's directory could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{step} {path}")]
pub struct ReadError {
    /// The operation.
    pub step: &'static str,
    /// The path on the host.
    pub path: PathBuf,
    /// The operating system's error.
    pub source: io::Error,
}

/// A directory that is the root for every path that is looked up in it.
#[derive(Debug)]
pub(crate) struct ConfinedRoot {
    fd: OwnedFd,
    path: PathBuf,
}

impl ConfinedRoot {
    /// Opens a directory that the operator named; symlinks in `path` itself are the host's.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(|errno| ReadError {
            step: "opening",
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The path by which the directory was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory below as a root of its own; `None` when there is none.
    pub(crate) fn below(&self, path: &str) -> Result<Option<Self>, ReadError> {
        let Some(fd) = self.directory_fd(path)? else {
            return Ok(None);
        };
        Ok(Some(Self { fd, path: self.path.join(path) }))
    }

    /// The view's entry for `path`: a directory as a mount, a symlink as it is, a small file by
    /// its content. `None` for what is absent, of another type, or not readable by everyone.
    pub(crate) fn item(&self, path: &str) -> Result<Option<Item>, ReadError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Some(fd) = self.resolve(path, flags)? else {
            return Ok(None);
        };
        let stat = self.stat(path, &fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if is_public(&stat) => {
                Ok(Some(Item::Mount(self.real_path(path, &fd)?)))
            }
            FileType::Symlink => self.symlink(path, &fd),
            FileType::RegularFile if is_public(&stat) => self.file(path),
            _ => Ok(None),
        }
    }

    /// The directory at `path`, reached through symlinks too, as an absolute path of the host
    /// without symlinks. `None` when there is none that everyone may read.
    pub(crate) fn directory(&self, path: &str) -> Result<Option<PathBuf>, ReadError> {
        let Some(fd) = self.directory_fd(path)? else {
            return Ok(None);
        };
        if !is_public(&self.stat(path, &fd)?) {
            return Ok(None);
        }
        self.real_path(path, &fd).map(Some)
    }

    /// The names in the directory at `path`, sorted, without those that are not UTF-8; none when
    /// there is no such directory.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, ReadError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let Some(fd) = self.resolve(path, flags)? else {
            return Ok(Vec::new());
        };
        let listing = |error| self.error("listing", path, error);
        let mut names = Vec::new();
        for entry in fs::Dir::new(fd).map_err(listing)? {
            let entry = entry.map_err(listing)?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn directory_fd(&self, path: &str) -> Result<Option<OwnedFd>, ReadError> {
        self.resolve(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Opens `path` within the root; `None` when there is nothing of that kind.
    fn resolve(&self, path: &str, flags: OFlags) -> Result<Option<OwnedFd>, ReadError> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        let mut opened = Err(Errno::AGAIN);
        for _ in 0..MAX_ATTEMPTS {
            opened = fs::openat2(&self.fd, path, flags, Mode::empty(), resolve);
            if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.error("opening", path, errno)),
        }
    }

    fn stat(&self, path: &str, fd: &OwnedFd) -> Result<Stat, ReadError> {
        fs::fstat(fd).map_err(|errno| self.error("reading the mode of", path, errno))
    }

    fn symlink(&self, path: &str, fd: &OwnedFd) -> Result<Option<Item>, ReadError> {
        let target = fs::readlinkat(fd, c"", Vec::new())
            .map_err(|errno| self.error("reading the link", path, errno))?;
        Ok(target.into_string().ok().map(Item::Symlink))
    }

    fn file(&self, path: &str) -> Result<Option<Item>, ReadError> {
        // NONBLOCK: should a fifo have taken the file's place, the daemon must not wait on it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let Some(fd) = self.resolve(path, flags)? else {
            return Ok(None);
        };
        let stat = self.stat(path, &fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut content = Vec::new();
        let read = File::from(fd).take(MAX_FILE_BYTES + 1).read_to_end(&mut content);
        read.map_err(|source| self.io_error("reading", path, source))?;
        if content.len() as u64 > MAX_FILE_BYTES {
            let path = self.path.join(path);
            tracing::warn!(path = %path.display(), "left out of the view: larger than 4 MiB");
            return Ok(None);
        }
        Ok(Some(Item::File(content)))
    }

    /// The path by which the host itself reaches what is open, checked to lead to the same thing.
    fn real_path(&self, path: &str, fd: &OwnedFd) -> Result<PathBuf, ReadError> {
        let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
        let real = fs::readlink(link, Vec::new())
            .map_err(|errno| self.error("finding the path of", path, errno))?;
        let real = PathBuf::from(os_string(real.into_bytes()));
        let (expected, found) = (self.stat(path, fd)?, fs::lstat(&real));
        match found {
            Ok(found) if (found.st_dev, found.st_ino) == (expected.st_dev, expected.st_ino) => {
                Ok(real)
            }
            _ => Err(self.error("finding the path of", path, Errno::STALE)),
        }
    }

    fn error(&self, step: &'static str, path: &str, errno: Errno) -> ReadError {
        self.io_error(step, path, errno.into())
    }

    fn io_error(&self, step: &'static str, path: &str, source: io::Error) -> ReadError {
        ReadError { step, path: self.path.join(path), source }
    }
}

/// Whether everyone may read a file, or list and enter a directory.
fn is_public(stat: &Stat) -> bool {
    let needed = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Mode::ROTH | Mode::XOTH,
        _ => Mode::ROTH,
    };
    Mode::from_raw_mode(stat.st_mode).contains(needed)
}

fn os_string(bytes: Vec<u8>) -> OsString {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(bytes)
}
