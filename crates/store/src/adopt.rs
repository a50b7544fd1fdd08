//! Making an action's output a blob without copying it: its file gets its name in the store.
//!
//! The action is dead, every process of it, so nobody changes the file while it is looked at. But
//! hostile code made it, so nothing about it is taken for granted: it may be no file at all, claim
//! exabytes, have other names, carry attributes or flags, or blocks beyond its end. A file that
//! can't become a plain blob by chown and chmod is copied.
//!
//! ```text
//!   stat ─ not a file, too large ──> refused
//!     │
//!   open, hash ─ there already ────> nothing to do
//!     │
//!   plain? ─ no ───────────────────> copied
//!     │
//!   chown, chmod, link
//! ```
//!
//! The file is linked by its descriptor: what was hashed is what becomes the blob, whatever its
//! old name means by then. A rename would look that name up again, and takes half as long again;
//! the old name goes with its directory, after the answer.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::{Digest, DigestFunction, Mtime, NodeProperties};
use rustix::buffer::spare_capacity;
use rustix::fs::{
    Advice, AtFlags, FileType, IFlags, Mode, OFlags, Stat, fadvise, fgetxattr, flistxattr,
    flistxattr_query, fstat, ioctl_getflags, statat,
};
use rustix::io::{Errno, pread};
use rustix::process::{getegid, geteuid};

use crate::cas::{BLOB_MODE, Cas};
use crate::disk::{fchmod, fchown, openat};
use crate::error::StoreError;
use crate::hash_file::{FileHash, hash_file};

/// A file may have this much more on the disk than its size says, for what file systems reserve.
const EXCESS_BYTES_MAX: u64 = 64 << 10;
/// Copies go in pieces of this size.
const COPY_BYTES: usize = 256 * 1024;
/// Files from this size on are announced to the kernel as read from end to end.
const READ_AHEAD_FROM_BYTES: u64 = 1 << 20;

/// The flags of `chattr` that the owner of a file can set, on any file system; privileged ones too. A
/// blob that is immutable or append-only could never be evicted; one that is compressed, synchronous,
/// journaled or left out of backups takes other time and space than the store knows. Flags by which a
/// file system notes how it keeps a file, such as ext4's for extents, are not among them.
const FLAGS_OF_OWNERS: IFlags = IFlags::SECURE_REMOVAL
    .union(IFlags::UNRM)
    .union(IFlags::COMPRESSED)
    .union(IFlags::SYNC)
    .union(IFlags::IMMUTABLE)
    .union(IFlags::APPEND)
    .union(IFlags::NODUMP)
    .union(IFlags::NOATIME)
    .union(IFlags::JOURNALING)
    .union(IFlags::NOTAIL)
    .union(IFlags::DIRSYNC)
    .union(IFlags::TOPDIR)
    .union(IFlags::NOCOW)
    .union(IFlags::PROJECT_INHERIT)
    // FS_NOCOMP_FL, FS_VERITY_FL and FS_DAX_FL.
    .union(IFlags::from_bits_retain(0x400 | 0x0010_0000 | 0x0200_0000));
/// SELinux's label, with the NUL that ends it in a list of names.
const LABEL: &[u8] = b"security.selinux\0";
/// The kernel takes no label that is longer than a page.
const LABEL_BYTES_MAX: usize = 4096;

/// A file that is a blob now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    /// The blob.
    pub digest: Digest,
    /// Whether the action had made it executable for anyone. The blob itself is not.
    pub executable: bool,
    /// Its time of modification and its mode, as the action left them; both set.
    pub left: NodeProperties,
}

/// An error of adopting an action's file as a blob.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It is a directory, symlink, device, socket or pipe.
    #[error("{name} is not a regular file but a {kind:?}")]
    NotAFile {
        /// The file's name.
        name: String,
        /// Its kind.
        kind: FileType,
    },
    /// It is larger than the caller allows.
    #[error("{name} has {size_bytes} bytes, over the limit of {max_bytes}")]
    TooLarge {
        /// The file's name.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// It changed while it was looked at: somebody who should be dead is not.
    #[error("{name} changed while it was stored")]
    Changed {
        /// The file's name.
        name: String,
    },
    /// A system call on the file failed; so it is `ENOENT` when there is no such file.
    #[error("can't {step} {name}")]
    Io {
        /// The act, as in "can't …".
        step: &'static str,
        /// The file's name.
        name: String,
        /// The errno.
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The file on its way.
struct Candidate<'a> {
    name: &'a CStr,
    file: OwnedFd,
    stat: Stat,
}

impl Cas {
    /// Makes a file of a dead action a blob.
    ///
    /// The old name stays, as another name of the blob's file that nobody may write to any more;
    /// the caller deletes the directory it is in, soon, and lets no other action see it.
    ///
    /// `name` is one name in the directory, which no symlink can lead out of. `max_bytes` bounds
    /// what is hashed: a sparse file of any size costs an action nothing.
    pub fn adopt(
        &self,
        function: DigestFunction,
        directory: BorrowedFd<'_>,
        name: &CStr,
        max_bytes: u64,
    ) -> Result<Adopted, AdoptError> {
        let candidate = Candidate::open(directory, name, max_bytes)?;
        let digest = candidate.hash(function)?;
        if !self.contains(&digest) {
            if candidate.is_plain(self.blobs_dirfd())? {
                self.take(&candidate, &digest)?;
            } else {
                self.copy(&candidate, &digest)?;
            }
        }
        Ok(Adopted { digest, executable: candidate.is_executable(), left: candidate.properties() })
    }

    fn take(&self, candidate: &Candidate<'_>, digest: &Digest) -> Result<(), AdoptError> {
        fchown(&candidate.file, Some(geteuid()), Some(getegid()))
            .map_err(|e| candidate.failed("chown", e))?;
        // After the chown, so that no set-user-ID file of ours exists for a moment; and it takes
        // those bits away.
        fchmod(&candidate.file, BLOB_MODE).map_err(|e| candidate.failed("chmod", e))?;
        let charge = self.charge_file(digest.size_bytes())?;
        match self.publish_file(candidate.file.as_fd(), digest, charge) {
            // Another mount of the same file system is another device to link.
            Err(StoreError::Io { source, .. })
                if source.raw_os_error() == Some(Errno::XDEV.raw_os_error()) =>
            {
                self.copy(candidate, digest)
            }
            published => Ok(published?),
        }
    }

    fn copy(&self, candidate: &Candidate<'_>, digest: &Digest) -> Result<(), AdoptError> {
        let mut writer = self.writer(digest.function(), Some(*digest));
        let mut buffer = Vec::with_capacity(COPY_BYTES.min(digest.size_bytes() as usize + 1));
        loop {
            buffer.clear();
            match pread(&candidate.file, spare_capacity(&mut buffer), writer.written()) {
                Ok(0) => break,
                Ok(_) => writer.write(&buffer).map_err(|e| candidate.changed(e))?,
                Err(Errno::INTR) => {}
                Err(e) => return Err(candidate.failed("read", e)),
            }
        }
        writer.commit().map_err(|e| candidate.changed(e))?;
        Ok(())
    }
}

impl<'a> Candidate<'a> {
    fn open(directory: BorrowedFd<'a>, name: &'a CStr, max_bytes: u64) -> Result<Self, AdoptError> {
        let shown = || name.to_string_lossy().into_owned();
        let failed =
            |step, errno: Errno| AdoptError::Io { step, name: shown(), source: errno.into() };
        if name.to_bytes().contains(&b'/') || matches!(name.to_bytes(), b"" | b"." | b"..") {
            return Err(failed("take for one name", Errno::INVAL));
        }
        // Looked at before it is opened: opening a device can have effects.
        let before =
            statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed("stat", e))?;
        let kind = FileType::from_raw_mode(before.st_mode);
        if kind != FileType::RegularFile {
            return Err(AdoptError::NotAFile { name: shown(), kind });
        }
        let flags = OFlags::RDONLY
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOATIME
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::empty()).map_err(|e| failed("open", e))?;
        let stat = fstat(&file).map_err(|e| failed("stat", e))?;
        if (stat.st_dev, stat.st_ino) != (before.st_dev, before.st_ino) {
            return Err(AdoptError::Changed { name: shown() });
        }
        let size_bytes = stat.st_size as u64;
        if size_bytes > max_bytes {
            return Err(AdoptError::TooLarge { name: shown(), size_bytes, max_bytes });
        }
        Ok(Self { name, file, stat })
    }

    fn hash(&self, function: DigestFunction) -> Result<Digest, AdoptError> {
        let size_bytes = self.stat.st_size as u64;
        if size_bytes >= READ_AHEAD_FROM_BYTES {
            // A failing hint costs nothing.
            let _ = fadvise(&self.file, 0, None, Advice::Sequential);
        }
        match hash_file(self.file.as_fd(), function, size_bytes) {
            Ok(FileHash::Whole(digest)) if digest.size_bytes() == size_bytes => Ok(digest),
            Ok(_) => Err(AdoptError::Changed { name: self.shown() }),
            Err(e) => Err(self.failed("read", e)),
        }
    }

    /// Whether chown, chmod and link make a blob of it that is like any other.
    fn is_plain(&self, blobs: BorrowedFd<'_>) -> Result<bool, AdoptError> {
        // Another name would be another way to the blob.
        let has_one_name = self.stat.st_nlink == 1;
        // Blocks beyond the end are disk that the store would not know of.
        let on_disk = (self.stat.st_blocks as u64).saturating_mul(512);
        let is_lean = on_disk <= (self.stat.st_size as u64).saturating_add(EXCESS_BYTES_MAX);
        if !has_one_name || !is_lean {
            return Ok(false);
        }
        let stat = fstat(blobs).map_err(|e| self.failed("stat the store for", e))?;
        if stat.st_dev != self.stat.st_dev {
            return Ok(false);
        }
        let has_flags = has_flags(self.file.as_fd(), blobs);
        if has_flags.map_err(|e| self.failed("read the flags of", e))? {
            return Ok(false);
        }
        has_no_attributes(&self.file, blobs).map_err(|e| self.failed("list the attributes of", e))
    }

    fn is_executable(&self) -> bool {
        let mode = Mode::from_raw_mode(self.stat.st_mode);
        mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH)
    }

    fn properties(&self) -> NodeProperties {
        let Stat { st_mtime: seconds, st_mtime_nsec: nanos, st_mode: mode, .. } = self.stat;
        let mtime = Mtime { seconds, nanos: u32::try_from(nanos).unwrap_or(0) };
        NodeProperties { mtime: Some(mtime), unix_mode: Some((mode & 0o7777) as u16) }
    }

    /// A file that has another hash than a moment ago has changed.
    fn changed(&self, error: StoreError) -> AdoptError {
        match error {
            StoreError::DigestMismatch { .. } | StoreError::TooManyBytes { .. } => {
                AdoptError::Changed { name: self.shown() }
            }
            other => other.into(),
        }
    }

    fn failed(&self, step: &'static str, errno: Errno) -> AdoptError {
        AdoptError::Io { step, name: self.shown(), source: errno.into() }
    }

    fn shown(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }
}

/// Whether a file has a flag that its owner can set and that no file of the store would have: those are
/// inherited from its directories.
fn has_flags(file: BorrowedFd<'_>, blobs: BorrowedFd<'_>) -> Result<bool, Errno> {
    let flags = |file| match ioctl_getflags(file) {
        Ok(flags) => Ok(flags.intersection(FLAGS_OF_OWNERS)),
        // A file system without flags.
        Err(Errno::NOTTY | Errno::NOTSUP | Errno::NOSYS) => Ok(IFlags::empty()),
        Err(e) => Err(e),
    };
    let of_file = flags(file)?;
    Ok(!of_file.is_empty() && !flags(blobs)?.contains(of_file))
}

/// Whether a file has neither extended attributes nor an ACL, which is one of them. SELinux puts a label
/// on every file: one of the same kind as the store's own is the system's, not the action's.
fn has_no_attributes(file: &OwnedFd, blobs: BorrowedFd<'_>) -> Result<bool, Errno> {
    let length = match flistxattr_query(file) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(true),
        Ok(length) => length,
        Err(e) => return Err(e),
    };
    if length != LABEL.len() {
        return Ok(false);
    }
    let mut names = Vec::with_capacity(length);
    match flistxattr(file, spare_capacity(&mut names)) {
        Ok(_) if names == LABEL => has_usual_label(file, blobs),
        Ok(_) | Err(Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether SELinux would give a file of the store this file's label. Labels read `user:role:type:level`,
/// and type and level are inherited from the directory; the user is that of the process.
fn has_usual_label(file: &OwnedFd, blobs: BorrowedFd<'_>) -> Result<bool, Errno> {
    let (of_file, of_blobs) = (label(file.as_fd())?, label(blobs)?);
    let behind_user =
        |label: &[u8]| label.iter().position(|byte| *byte == b':').map(|at| label[at..].to_vec());
    Ok(of_file == of_blobs
        || of_file
            .as_deref()
            .and_then(behind_user)
            .is_some_and(|rest| of_blobs.as_deref().and_then(behind_user) == Some(rest)))
}

fn label(file: BorrowedFd<'_>) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = Vec::with_capacity(LABEL_BYTES_MAX);
    match fgetxattr(file, c"security.selinux", spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(e) => Err(e),
    }
}
