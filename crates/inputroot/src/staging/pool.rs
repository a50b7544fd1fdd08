//! The directories that hold what actions write.
//!
//! Each input root needs two directories on one file system: the *upper* directory collects what the
//! action creates, and overlayfs uses the *work* directory. On a journaled file system, making and
//! deleting them costs more than the rest of an input root. So they are kept: the janitor empties
//! them after the answer, and the next action gets them.
//!
//! ```text
//! <work>/staging/<number>/upper    the action's own, 0755: the root of what it sees
//! <work>/staging/<number>/work
//! ```
//!
//! An action reads the paths of its overlay's layers in `/proc/self/mountinfo`, and the kernel writes each as the path
//! below the root of the mount that it was opened on. So layers are opened on a detached mount of `staging`: the action
//! reads `/<number>/upper`, and nothing of where the state is. Outputs are moved into the store from the same directory on the
//! state's own mount, because rename(2) and link(2) refuse to leave a mount.
//!
//! An action with a user of its own on the host has its layers on one more detached mount, on which what belongs to 65534
//! on disk belongs to that user, and the other way round (mount_setattr(2), `MOUNT_ATTR_IDMAP`).

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Gid, IFlags, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::access::{DIRECTORY_MODE, HostUser, MODIFIED_SECONDS, action_id};
use crate::directory::open_directory;
use crate::error::PresentError;
use crate::mounts::{Upper, clone_for};

/// The number of idle ones that are kept.
///
/// More exist only while more actions run at once; the surplus is deleted when they end. Each costs a
/// few inodes.
const MAX_IDLE: usize = 64;

const UPPER: &std::ffi::CStr = c"upper";
const WORK: &std::ffi::CStr = c"work";
/// The leftovers of overlayfs in a work directory, from the inside out. No action can reach it, so whole
/// paths can be trusted.
const LEFT_BY_OVERLAY: [(&std::ffi::CStr, AtFlags); 4] = [
    (c"work/incompat/volatile/dirty", AtFlags::empty()),
    (c"work/incompat/volatile", AtFlags::REMOVEDIR),
    (c"work/incompat", AtFlags::REMOVEDIR),
    (c"work", AtFlags::REMOVEDIR),
];
/// A directory that has grown beyond this is replaced: ext4 never makes one smaller, so 60,000 files of
/// one action would keep 20 MB for as long as the server runs. Directories of most actions take one block.
const MAX_DIRECTORY_BYTES: u64 = 64 << 10;
/// SELinux's label, which belongs to the system.
const LABEL: &[u8] = b"security.selinux";
/// FS_INDEX_FL: ext4 itself sets it on a directory that has grown.
const INDEX_FLAG: u32 = 0x1000;

/// An upper and a work directory.
#[derive(Debug)]
pub(crate) struct Staging {
    name: CString,
    /// Inode flags that the upper directory was made with, on file systems that have some.
    flags: Option<IFlags>,
    /// Holds what the action writes; shared with the views on its outputs. On the state's own mount.
    pub(crate) upper: Arc<OwnedFd>,
    /// The same directory, on the detached mount.
    upper_layer: OwnedFd,
    /// On the detached mount, because overlayfs wants both on one.
    work: OwnedFd,
}

impl Staging {
    /// The name of its directory, unique while it is in use.
    pub(crate) fn name(&self) -> &std::ffi::CStr {
        &self.name
    }

    /// Its directories as the upper layer of an overlay.
    pub(crate) fn as_upper<'a>(&'a self, mapped: Option<&'a MappedLayers>) -> Upper<'a> {
        let (upper, work) = match mapped {
            Some(MappedLayers { upper, work }) => (upper, work),
            None => (&self.upper_layer, &self.work),
        };
        Upper { name: &self.name, upper: upper.as_fd(), work: work.as_fd() }
    }
}

/// The upper and the work directory of a staging directory, as a user of the host sees them.
#[derive(Debug)]
pub(crate) struct MappedLayers {
    upper: OwnedFd,
    work: OwnedFd,
}

/// An error of putting a staging directory away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GiveBackError {
    #[error("emptying it")]
    Empty(#[from] Errno),
    #[error("replacing it")]
    Replace(#[from] PresentError),
}

/// Makes staging directories and takes them back.
#[derive(Debug)]
pub(crate) struct StagingPool {
    base: OwnedFd,
    /// A detached mount of `base`.
    layers: OwnedFd,
    /// The same for each user of the host that has had an action. There is one for each sandbox that may exist at a time.
    mapped: Mutex<HashMap<u32, Arc<OwnedFd>>>,
    idle: Mutex<Vec<Staging>>,
    next: AtomicU64,
}

impl StagingPool {
    /// A pool in `base`, an empty directory that it has for itself, with `prepared` ready to use.
    pub(crate) fn new(base: OwnedFd, prepared: usize) -> Result<Self, PresentError> {
        let layers = sys::mount::clone_mount(base.as_fd())?;
        let pool = Self {
            base,
            layers,
            mapped: Mutex::default(),
            idle: Mutex::default(),
            next: AtomicU64::new(0),
        };
        for _ in 0..prepared.min(MAX_IDLE) {
            let staging = pool.make()?;
            pool.idle.lock().push(staging);
        }
        Ok(pool)
    }

    /// An empty staging directory.
    pub(crate) fn take(&self) -> Result<Staging, PresentError> {
        let idle = self.idle.lock().pop();
        idle.map_or_else(|| self.make(), Ok)
    }

    /// The layers of `staging` for an action of `user`.
    pub(crate) fn map(
        &self,
        staging: &Staging,
        user: HostUser<'_>,
    ) -> Result<MappedLayers, PresentError> {
        let layers = self.layers_of(user)?;
        let (upper, work) = open_layers(&layers, &staging.name)
            .map_err(PresentError::staging("open(staging) on the mount of a user"))?;
        Ok(MappedLayers { upper, work })
    }

    fn layers_of(&self, user: HostUser<'_>) -> Result<Arc<OwnedFd>, PresentError> {
        let mut mapped = self.mapped.lock();
        if let Some(layers) = mapped.get(&user.id) {
            return Ok(Arc::clone(layers));
        }
        let layers = Arc::new(clone_for(user, &self.base)?);
        mapped.insert(user.id, Arc::clone(&layers));
        Ok(layers)
    }

    /// Empties a staging directory whose mount is gone and keeps it. Replaces it if its attributes
    /// cannot be restored, for the action owned its upper directory and could change them, and if it has
    /// grown.
    pub(crate) fn give_back(&self, staging: Staging) -> Result<(), GiveBackError> {
        for (path, flags) in LEFT_BY_OVERLAY {
            // If this fails, emptying the directory below removes the rest, more slowly.
            let _ = rustix::fs::unlinkat(&staging.work, path, flags);
        }
        // First, because the action may have removed the permission to change the directory.
        let as_new = restore(&staging)?;
        store::empty_directory(staging.work.as_fd())?;
        store::empty_directory(staging.upper.as_fd())?;
        if self.idle.lock().len() >= MAX_IDLE {
            return Ok(self.delete(&staging)?);
        }
        let staging = if as_new && is_small(&staging.upper)? && is_small(&staging.work)? {
            set_root_time(&staging.upper)?;
            staging
        } else {
            self.delete(&staging)?;
            self.make()?
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
        make_directory(&directory, WORK)
            .map_err(PresentError::staging(format!("mkdir(staging/{number}/work)")))?;
        let (upper_layer, work) = open_layers(&self.layers, &name).map_err(
            PresentError::staging(format!("open(staging/{number}) on a detached mount")),
        )?;
        let flags = set_root_attributes(&upper)
            .and_then(|()| set_root_time(&upper))
            .and_then(|()| inode_flags(&upper))
            .map_err(PresentError::staging(format!("attributes of staging/{number}/upper")))?;
        Ok(Staging { name, flags, upper: Arc::new(upper), upper_layer, work })
    }
}

/// The upper and the work directory of a staging directory, on a detached mount of all.
fn open_layers(layers: &OwnedFd, name: &std::ffi::CStr) -> Result<(OwnedFd, OwnedFd), Errno> {
    let directory = open_directory(layers, name)?;
    Ok((open_directory(&directory, UPPER)?, open_directory(&directory, WORK)?))
}

fn make_directory(parent: &OwnedFd, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    open_directory(parent, name)
}

/// The root of an overlay has the attributes of the upper directory. Most actions leave them as they
/// are, and reading them is cheaper than a change of the inode that the file system has to record.
fn set_root_attributes(upper: &OwnedFd) -> Result<(), Errno> {
    let now = rustix::fs::fstat(upper)?;
    let id = action_id();
    let owned = (now.st_uid, now.st_gid) == (id, id);
    if owned && now.st_mode & 0o7777 == u32::from(DIRECTORY_MODE) {
        return Ok(());
    }
    rustix::fs::fchown(upper, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?;
    rustix::fs::fchmod(upper, Mode::from_raw_mode(DIRECTORY_MODE.into()))
}

/// Gives the upper directory the attributes that it was made with; false if that is impossible.
/// Removes the marks of overlayfs as well.
fn restore(staging: &Staging) -> Result<bool, Errno> {
    let upper = &*staging.upper;
    let mut names = [0; 4096];
    let length = match rustix::fs::flistxattr(upper, &mut names) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(Errno::RANGE) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    for name in names[..length].split(|byte| *byte == 0) {
        if !name.is_empty() && name != LABEL {
            rustix::fs::fremovexattr(upper, name)?;
        }
    }
    // After the removal of access control lists, which `chmod` would change otherwise.
    set_root_attributes(upper)?;
    Ok(inode_flags(upper)? == staging.flags)
}

/// Whether an empty directory takes no more than is kept.
fn is_small(directory: &OwnedFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstat(directory)?.st_size as u64 <= MAX_DIRECTORY_BYTES)
}

/// The flags of `chattr`, some of which the owner may change.
fn inode_flags(directory: &OwnedFd) -> Result<Option<IFlags>, Errno> {
    match rustix::fs::ioctl_getflags(directory) {
        Ok(flags) => Ok(Some(IFlags::from_bits_retain(flags.bits() & !INDEX_FLAG))),
        Err(Errno::NOTTY | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn set_root_time(upper: &OwnedFd) -> Result<(), Errno> {
    let time = Timespec { tv_sec: MODIFIED_SECONDS as i64, tv_nsec: 0 };
    rustix::fs::futimens(upper, &Timestamps { last_access: time, last_modification: time })
}
