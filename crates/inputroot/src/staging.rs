//! The directories that hold what actions write.
//!
//! Each input root needs two on one file system: the *upper* directory, which collects what the
//! action creates, and the *work* directory, which overlayfs uses for its own ends. Making and
//! deleting them costs a journaled file system more than all else in an input root together, so
//! they are kept: after the answer they are emptied in the background and used again.
//!
//! ```text
//! <work>/staging/<number>/upper    root 1777, or the action's own 0755
//! <work>/staging/<number>/work
//! ```

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::access::Access;
use crate::directory::open_directory;
use crate::erofs::MODIFIED_SECONDS;
use crate::error::PresentError;

/// How many idle ones are kept.
///
/// More are in circulation only while more actions are being set up at once; what is above this
/// when they end is deleted. Each costs a few inodes.
const MAX_IDLE: usize = 64;

const UPPER: &std::ffi::CStr = c"upper";
const WORK: &std::ffi::CStr = c"work";
/// What overlayfs leaves in a work directory, from the inside out. No action gets there, so whole
/// paths can be trusted.
const LEFT_BY_OVERLAY: [(&std::ffi::CStr, AtFlags); 4] = [
    (c"work/incompat/volatile/dirty", AtFlags::empty()),
    (c"work/incompat/volatile", AtFlags::REMOVEDIR),
    (c"work/incompat", AtFlags::REMOVEDIR),
    (c"work", AtFlags::REMOVEDIR),
];
/// Overlayfs marks a directory in which it has put a copy; nothing may be marked at the start.
const IMPURE_ATTRIBUTE: &std::ffi::CStr = c"trusted.overlay.impure";

/// An upper and a work directory.
#[derive(Debug)]
pub(crate) struct Staging {
    name: CString,
    access: Access,
    /// What the action writes; shared with the views on its outputs.
    pub(crate) upper: Arc<OwnedFd>,
    pub(crate) work: OwnedFd,
}

impl Staging {
    /// Number of its directory, unique while it is in use.
    pub(crate) fn name(&self) -> &std::ffi::CStr {
        &self.name
    }

    /// What its action may do to its inputs.
    pub(crate) fn access(&self) -> Access {
        self.access
    }
}

/// Why a staging directory was not put away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GiveBackError {
    #[error("emptying it: {0}")]
    Empty(#[from] Errno),
    #[error("replacing it: {0}")]
    Replace(#[from] PresentError),
}

/// Makes staging directories and takes them back.
#[derive(Debug)]
pub(crate) struct StagingPool {
    base: OwnedFd,
    idle: Mutex<Vec<Staging>>,
    next: AtomicU64,
}

impl StagingPool {
    /// A pool in `base`, an empty directory that it has for itself, with `prepared` ready to use.
    pub(crate) fn new(base: OwnedFd, prepared: usize) -> Result<Self, PresentError> {
        let pool = Self { base, idle: Mutex::default(), next: AtomicU64::new(0) };
        for _ in 0..prepared.min(MAX_IDLE) {
            let staging = pool.make()?;
            pool.idle.lock().push(staging);
        }
        Ok(pool)
    }

    /// An empty one whose upper directory is owned as `access` wants the root of a tree.
    pub(crate) fn take(&self, access: Access) -> Result<Staging, PresentError> {
        let idle = self.idle.lock().pop();
        let mut staging = match idle {
            Some(staging) => staging,
            None => self.make()?,
        };
        if access != Access::Strict {
            staging.access = access;
            set_root_attributes(&staging.upper, access)
                .map_err(PresentError::staging("chown, chmod(upper)"))?;
        }
        Ok(staging)
    }

    /// Empties one whose mount is gone and keeps it; replaces it if it cannot be trusted to be as
    /// new, because a directory that an action owned may carry attributes that it chose.
    pub(crate) fn give_back(&self, staging: Staging) -> Result<(), GiveBackError> {
        for (path, flags) in LEFT_BY_OVERLAY {
            // Whatever is there still, or instead, is left to what follows, which takes longer.
            let _ = rustix::fs::unlinkat(&staging.work, path, flags);
        }
        store::empty_directory(staging.work.as_fd())?;
        store::empty_directory(staging.upper.as_fd())?;
        let is_wanted = self.idle.lock().len() < MAX_IDLE;
        let staging = match (is_wanted, staging.access) {
            (true, Access::Strict) => {
                match rustix::fs::fremovexattr(&*staging.upper, IMPURE_ATTRIBUTE) {
                    Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                    Err(errno) => return Err(errno.into()),
                }
                set_root_time(&staging.upper)?;
                staging
            }
            (true, Access::Mutable) => {
                self.delete(&staging)?;
                self.make()?
            }
            (false, _) => return Ok(self.delete(&staging)?),
        };
        self.idle.lock().push(staging);
        Ok(())
    }

    fn delete(&self, staging: &Staging) -> Result<(), Errno> {
        let directory = open_directory(&self.base, &staging.name)?;
        rustix::fs::unlinkat(&directory, UPPER, AtFlags::REMOVEDIR)?;
        rustix::fs::unlinkat(&directory, WORK, AtFlags::REMOVEDIR)?;
        rustix::fs::unlinkat(&self.base, &*staging.name, AtFlags::REMOVEDIR)
    }

    fn make(&self) -> Result<Staging, PresentError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(number.to_string()).unwrap_or_default();
        let directory = make_directory(&self.base, &name)
            .map_err(PresentError::staging(format!("mkdir(staging/{number})")))?;
        let upper = make_directory(&directory, UPPER)
            .map_err(PresentError::staging(format!("mkdir(staging/{number}/upper)")))?;
        let work = make_directory(&directory, WORK)
            .map_err(PresentError::staging(format!("mkdir(staging/{number}/work)")))?;
        set_root_attributes(&upper, Access::Strict)
            .and_then(|()| set_root_time(&upper))
            .map_err(PresentError::staging(format!("attributes of staging/{number}/upper")))?;
        Ok(Staging { name, access: Access::Strict, upper: Arc::new(upper), work })
    }
}

fn make_directory(parent: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    open_directory(parent, name)
}

/// The root of an overlay has the attributes of the upper directory.
fn set_root_attributes(upper: &OwnedFd, access: Access) -> Result<(), Errno> {
    let owner = access.owner();
    rustix::fs::fchown(upper, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
    rustix::fs::fchmod(upper, Mode::from_raw_mode(access.directory_mode().into()))
}

fn set_root_time(upper: &OwnedFd) -> Result<(), Errno> {
    let time = Timespec { tv_sec: MODIFIED_SECONDS as i64, tv_nsec: 0 };
    rustix::fs::futimens(upper, &Timestamps { last_access: time, last_modification: time })
}
