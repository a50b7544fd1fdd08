//! The root directory: whose it is, which format it has, that nobody else uses it.
//!
//! The order of the steps is the one of `docs/storage-format.md`; nothing is changed in a root
//! that is refused.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::DigestFunction;
use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock, fstat};
use rustix::io::Errno;
use rustix::process::{geteuid, getpid};

use crate::disk::{fchmod, fsync, ftruncate, mkdirat, openat, pwrite, renameat, unlinkat, write};
use crate::empty_directory::empty_directory;
use crate::error::StoreError;
use crate::function_directories;
use crate::publisher::Publisher;

/// The content of the version file.
const VERSION: &[u8] = b"actiond store 1\n";
/// More than any version file of ours has; the rest of a foreign file is of no interest.
const VERSION_BYTES_MAX: usize = 64;
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An error of a directory that can't be the root of a store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory belongs to somebody else.
    #[error(
        "{path} is owned by uid {owner}, and this server runs as uid {us}; \
             use a directory of its own, or change the owner"
    )]
    NotOwned {
        /// The root.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Our effective user.
        us: u32,
    },
    /// Others may write to the directory, so what it holds can't be trusted.
    #[error(
        "{path} has mode {mode:04o}: others may have written to it; \
             if you know that nobody did, `chmod 700` it"
    )]
    Exposed {
        /// The root.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The directory has something in it, but it is no store.
    #[error("{path} is neither empty nor a store of actiond (it has no file `version`)")]
    NotAStore {
        /// The root.
        path: PathBuf,
    },
    /// The store was written by another version of the format.
    #[error("{path} has the format {found:?}, and this server knows only {:?}; \
             use another directory, or delete it", VERSION.trim_ascii_end().escape_ascii().to_string())]
    Version {
        /// The root.
        path: PathBuf,
        /// The content of its version file.
        found: String,
    },
    /// Another server uses the directory.
    #[error("{path} is in use by another server{}",
            pid.map(|pid| format!(", process {pid}")).unwrap_or_default())]
    InUse {
        /// The root.
        path: PathBuf,
        /// The process, if it said so.
        pid: Option<u32>,
    },
    /// The file system lacks what atomic writes need.
    #[error("{path} is on a file system without O_TMPFILE; use ext4, xfs, btrfs or tmpfs")]
    NoTmpfile {
        /// The root.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
    /// The store could not be brought into order.
    #[error("can't bring {path} into order")]
    Recovery {
        /// The root.
        path: PathBuf,
        /// The operation that failed.
        source: StoreError,
    },
    /// A system call failed.
    #[error("can't {step} {path}")]
    Io {
        /// The act, as in "can't …".
        step: &'static str,
        /// The object of the call.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(
        step: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { step, path: path.into(), source: source.into() }
    }
}

/// A root that is ours alone, with all its directories.
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    /// Whether it became a store just now.
    pub(crate) is_new: bool,
    pub(crate) directory: OwnedFd,
    pub(crate) blobs: OwnedFd,
    pub(crate) action_cache: OwnedFd,
    /// The digest functions that have directories below the two.
    pub(crate) functions: Vec<DigestFunction>,
    pub(crate) temporary: OwnedFd,
    pub(crate) work: OwnedFd,
    pub(crate) quarantine: OwnedFd,
    /// Locked as long as it is open.
    _lock: OwnedFd,
}

impl Root {
    /// Makes or checks a root and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let directory = open_private(path)?;
        let io = |step, name: &str, errno: Errno| OpenError::io(step, path.join(name), errno);

        let is_new = is_new(&directory, path)?;
        let lock = lock(&directory, path)?;
        let temporary = subdirectory(&directory, "tmp").map_err(|e| io("make", "tmp", e))?;
        if is_new {
            write_synced(&temporary, "version", &directory, VERSION)
                .map_err(|e| io("write", "version", e))?;
        } else {
            check_version(&directory, path)?;
        }
        match write_pid(&lock) {
            // It is for messages only, and a full disk is no reason not to serve.
            Ok(()) | Err(Errno::NOSPC | Errno::DQUOT) => {}
            Err(e) => return Err(io("write", "lock", e)),
        }

        let make = |parent: &OwnedFd, name: &str| {
            subdirectory(parent, name).map_err(|e| io("make", name, e))
        };
        let cas = make(&directory, "cas")?;
        let blobs = make(&cas, "blobs")?;
        let action_cache = make(&directory, "ac")?;
        let functions = function_directories::make_or_complete([&blobs, &action_cache])
            .map_err(|e| io("make the directories of blobs and cached results in", "", e))?;
        Ok(Self {
            path: path.to_owned(),
            is_new,
            work: make(&directory, "work")?,
            quarantine: make(&directory, "quarantine")?,
            directory,
            blobs,
            action_cache,
            functions,
            temporary,
            _lock: lock,
        })
    }
}

impl Root {
    /// Deletes what the last server left that has no use any more.
    pub(crate) fn empty_scratch(&self) -> Result<(), OpenError> {
        for (directory, name) in [(&self.temporary, "tmp"), (&self.work, "work")] {
            empty_directory(directory.as_fd())
                .map_err(|e| OpenError::io("empty", self.path.join(name), e))?;
        }
        Ok(())
    }

    /// Another descriptor of a directory of this root.
    pub(crate) fn share(&self, directory: &OwnedFd) -> Result<OwnedFd, OpenError> {
        let shared = directory.try_clone();
        shared.map_err(|e| OpenError::io("duplicate a descriptor of", &self.path, e))
    }

    /// Makes files of that mode below a directory of this root.
    pub(crate) fn publisher(
        &self,
        directory: &OwnedFd,
        prefix: &'static str,
        mode: Mode,
    ) -> Result<Publisher, OpenError> {
        let directory = self.share(directory)?;
        Publisher::new(directory, self.share(&self.temporary)?, prefix, mode)
            .map_err(|errno| OpenError::NoTmpfile { path: self.path.clone(), source: errno.into() })
    }
}

/// Opens the directory, which is made when it is not there, and sees that it is ours alone.
fn open_private(path: &Path) -> Result<OwnedFd, OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(PRIVATE_DIRECTORY.as_raw_mode());
    builder.create(path).map_err(|source| OpenError::io("make", path, source))?;
    let directory = openat(rustix::fs::CWD, path, directory_flags(), Mode::empty())
        .map_err(|e| OpenError::io("open", path, e))?;

    let stat = fstat(&directory).map_err(|e| OpenError::io("stat", path, e))?;
    let us = geteuid().as_raw();
    if stat.st_uid != us {
        return Err(OpenError::NotOwned { path: path.to_owned(), owner: stat.st_uid, us });
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.intersects(Mode::WGRP | Mode::WOTH) {
        return Err(OpenError::Exposed { path: path.to_owned(), mode: mode.as_raw_mode() });
    }
    if mode != PRIVATE_DIRECTORY {
        fchmod(&directory, PRIVATE_DIRECTORY).map_err(|e| OpenError::io("chmod", path, e))?;
    }
    remove_default_acl(&directory).map_err(|e| OpenError::io("remove the ACL of", path, e))?;
    Ok(directory)
}

/// Directories inherit a default ACL from the one above them, and pass it on. Below it modes are not
/// what was asked for, up to the files that actions create.
fn remove_default_acl(directory: &OwnedFd) -> rustix::io::Result<()> {
    match rustix::fs::fremovexattr(directory, c"system.posix_acl_default") {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        removed => removed,
    }
}

/// Whether the root is still to become a store: what has no version file must be empty, but for
/// what a server leaves that dies in its very first moments.
fn is_new(directory: &OwnedFd, path: &Path) -> Result<bool, OpenError> {
    let failed = |e: Errno| OpenError::io("list", path, e);
    let mut foreign = false;
    for entry in Dir::read_from(directory).map_err(failed)? {
        match entry.map_err(failed)?.file_name().to_bytes() {
            b"version" => return Ok(false),
            b"." | b".." | b"lock" | b"tmp" | b"lost+found" => {}
            _ => foreign = true,
        }
    }
    if foreign {
        return Err(OpenError::NotAStore { path: path.to_owned() });
    }
    Ok(true)
}

fn lock(directory: &OwnedFd, path: &Path) -> Result<OwnedFd, OpenError> {
    let failed = |step, e: Errno| OpenError::io(step, path.join("lock"), e);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, "lock", flags, PRIVATE_FILE).map_err(|e| failed("open", e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => {
            Err(OpenError::InUse { path: path.to_owned(), pid: read_pid(&file) })
        }
        Err(e) => Err(failed("lock", e)),
    }
}

fn read_pid(lock: &OwnedFd) -> Option<u32> {
    let mut text = [0; 16];
    let length = rustix::io::pread(lock, &mut text, 0).ok()?;
    str::from_utf8(&text[..length]).ok()?.trim_end().parse().ok()
}

fn write_pid(lock: &OwnedFd) -> rustix::io::Result<()> {
    ftruncate(lock, 0)?;
    let text = format!("{}\n", getpid().as_raw_nonzero());
    pwrite(lock, text.as_bytes(), 0)?;
    Ok(())
}

fn check_version(directory: &OwnedFd, path: &Path) -> Result<(), OpenError> {
    let mut content = Vec::with_capacity(VERSION_BYTES_MAX);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(directory, "version", flags, Mode::empty())
        .and_then(|file| rustix::io::read(&file, rustix::buffer::spare_capacity(&mut content)))
        .map_err(|e| OpenError::io("read", path.join("version"), e))?;
    if content == VERSION {
        return Ok(());
    }
    Err(OpenError::Version {
        path: path.to_owned(),
        found: String::from_utf8_lossy(content.trim_ascii_end()).into_owned(),
    })
}

fn make_directory(parent: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    match mkdirat(parent, name, PRIVATE_DIRECTORY) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Opens a directory below the root, which is made when it is not there.
fn subdirectory(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    make_directory(parent, name)?;
    let directory = openat(parent, name, directory_flags() | OFlags::NOFOLLOW, Mode::empty())?;
    remove_default_acl(&directory)?;
    Ok(directory)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

/// Replaces a small file as a whole, on the disk when this returns.
pub(crate) fn write_synced(
    temporary: impl AsFd,
    name: &str,
    directory: impl AsFd,
    content: &[u8],
) -> rustix::io::Result<()> {
    let temporary = temporary.as_fd();
    match unlinkat(temporary, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(temporary, name, flags, PRIVATE_FILE)?;
    write_all(file.as_fd(), content)?;
    fsync(&file)?;
    renameat(temporary, name, &directory, name)?;
    fsync(&directory)
}

/// Writes everything at the file's position.
pub(crate) fn write_all(file: BorrowedFd<'_>, mut content: &[u8]) -> rustix::io::Result<()> {
    while !content.is_empty() {
        match write(file, content) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => content = &content[written..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
