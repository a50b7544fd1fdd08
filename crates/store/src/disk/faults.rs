//! A disk that fails at a chosen call, for the tests of this crate.
//!
//! A test arms a fault for the store below one directory: other tests run at the same time. Calls are counted from
//! then on, so that a test which tries every number meets every call.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::thread::ThreadId;

use parking_lot::Mutex;
use rustix::io::{Errno, Result};

/// The fault at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails so. A write has written a half of its bytes by then.
    Fails(Errno),
    /// From it on nothing reaches the disk any more, as if the server was killed before it.
    Dies,
}

/// The calls that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Those of the thread that armed the fault. The same operation makes the same ones each time.
    OfThisThread,
    /// Those of every thread.
    All,
}

struct Plan {
    root: PathBuf,
    thread: Option<ThreadId>,
    fault: Fault,
    /// Calls before the chosen one.
    left: u64,
    /// The chosen call, once it was made.
    met: Option<&'static str>,
    /// The effect when the chosen call is a sync that fails.
    lose: Option<Lose>,
    /// Whether a sync of the file system has succeeded since it was armed.
    has_synced: bool,
}

/// Loses what is not on the disk.
pub(crate) type Lose = Box<dyn FnOnce() + Send>;

static PLANS: Mutex<BTreeMap<u64, Plan>> = Mutex::new(BTreeMap::new());

/// A fault that is armed. Dropping this mends the disk.
#[derive(Debug)]
pub(crate) struct Armed {
    number: u64,
}

/// Has the call after `calls` others fail, of those that change files below `root`.
/// When it is a sync, `lose` is called: the kernel tells once of data that it could not write.
pub(crate) fn arm(root: &Path, counted: Counted, calls: u64, fault: Fault, lose: Lose) -> Armed {
    let thread = (counted == Counted::OfThisThread).then(|| std::thread::current().id());
    let root = root.canonicalize().expect("a directory");
    let mut plans = PLANS.lock();
    let number = plans.last_key_value().map_or(0, |(last, _)| last + 1);
    let (met, lose) = (None, Some(lose));
    let plan = Plan { root, thread, fault, left: calls, met, lose, has_synced: false };
    plans.insert(number, plan);
    Armed { number }
}

impl Armed {
    /// The name of the call that failed, if it was reached.
    pub(crate) fn met(&self) -> Option<&'static str> {
        PLANS.lock().get(&self.number).and_then(|plan| plan.met)
    }

    /// Whether a sync of the file system has succeeded since the fault was armed.
    pub(crate) fn has_synced(&self) -> bool {
        PLANS.lock().get(&self.number).is_some_and(|plan| plan.has_synced)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        PLANS.lock().remove(&self.number);
    }
}

/// The plan for a file or for what is below a directory.
fn plan_of(plans: &mut BTreeMap<u64, Plan>, place: impl AsFd) -> Option<&mut Plan> {
    let link = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
    let path = std::fs::read_link(link).ok()?;
    plans.values_mut().find(|plan| path.starts_with(&plan.root))
}

/// Notes that everything has reached the disk.
fn note_synced(place: impl AsFd) {
    if let Some(plan) = plan_of(&mut PLANS.lock(), place) {
        plan.has_synced = true;
    }
}

/// Whether a call on a file or below a directory may be made.
fn may(call: &'static str, place: impl AsFd) -> Result<()> {
    let mut plans = PLANS.lock();
    if plans.is_empty() {
        return Ok(());
    }
    let Some(plan) = plan_of(&mut plans, &place) else { return Ok(()) };
    if plan.met.is_some() {
        return if plan.fault == Fault::Dies { Err(Errno::IO) } else { Ok(()) };
    }
    let is_counted = plan.thread.is_none_or(|thread| thread == std::thread::current().id());
    if !is_counted {
        return Ok(());
    }
    if plan.left > 0 {
        plan.left -= 1;
        return Ok(());
    }
    plan.met = Some(call);
    let Fault::Fails(errno) = plan.fault else { return Err(Errno::IO) };
    let lose = plan.lose.take().filter(|_| call == "syncfs");
    drop(plans);
    if let Some(lose) = lose {
        lose();
    }
    Err(errno)
}

/// The calls, each of which may fail.
pub(crate) mod calls {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid};
    use rustix::io::Result;
    use rustix::path::Arg;

    use super::{may, note_synced};

    pub(crate) fn openat(
        directory: impl AsFd,
        path: impl Arg,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        // O_TMPFILE has the bit of O_DIRECTORY in it.
        if flags.contains(OFlags::TMPFILE) {
            may("open unnamed", &directory)?;
        } else if flags.intersects(OFlags::CREATE | OFlags::TRUNC) {
            may("create", &directory)?;
        }
        rustix::fs::openat(directory, path, flags, mode)
    }

    pub(crate) fn write(file: impl AsFd, content: &[u8]) -> Result<usize> {
        if let Err(errno) = may("write", &file) {
            let _ = rustix::io::write(file, &content[..content.len() / 2]);
            return Err(errno);
        }
        rustix::io::write(file, content)
    }

    pub(crate) fn pwrite(file: impl AsFd, content: &[u8], offset: u64) -> Result<usize> {
        if let Err(errno) = may("pwrite", &file) {
            let _ = rustix::io::pwrite(file, &content[..content.len() / 2], offset);
            return Err(errno);
        }
        rustix::io::pwrite(file, content, offset)
    }

    pub(crate) fn ftruncate(file: impl AsFd, length: u64) -> Result<()> {
        may("ftruncate", &file)?;
        rustix::fs::ftruncate(file, length)
    }

    pub(crate) fn fchmod(file: impl AsFd, mode: Mode) -> Result<()> {
        may("fchmod", &file)?;
        rustix::fs::fchmod(file, mode)
    }

    pub(crate) fn fchown(file: impl AsFd, owner: Option<Uid>, group: Option<Gid>) -> Result<()> {
        may("fchown", &file)?;
        rustix::fs::fchown(file, owner, group)
    }

    pub(crate) fn fsync(file: impl AsFd) -> Result<()> {
        may("fsync", &file)?;
        rustix::fs::fsync(file)
    }

    pub(crate) fn syncfs(file: impl AsFd) -> Result<()> {
        may("syncfs", &file)?;
        rustix::fs::syncfs(&file)?;
        note_synced(file);
        Ok(())
    }

    pub(crate) fn mkdirat(directory: impl AsFd, path: impl Arg, mode: Mode) -> Result<()> {
        may("mkdirat", &directory)?;
        rustix::fs::mkdirat(directory, path, mode)
    }

    pub(crate) fn unlinkat(directory: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<()> {
        may("unlinkat", &directory)?;
        rustix::fs::unlinkat(directory, path, flags)
    }

    pub(crate) fn linkat(
        old_directory: impl AsFd,
        old: impl Arg,
        directory: impl AsFd,
        path: impl Arg,
        flags: AtFlags,
    ) -> Result<()> {
        may("linkat", &directory)?;
        rustix::fs::linkat(old_directory, old, directory, path, flags)
    }

    pub(crate) fn renameat(
        old_directory: impl AsFd,
        old: impl Arg,
        directory: impl AsFd,
        path: impl Arg,
    ) -> Result<()> {
        may("renameat", &directory)?;
        rustix::fs::renameat(old_directory, old, directory, path)
    }

    pub(crate) fn renameat_with(
        old_directory: impl AsFd,
        old: impl Arg,
        directory: impl AsFd,
        path: impl Arg,
        flags: RenameFlags,
    ) -> Result<()> {
        may("renameat2", &directory)?;
        rustix::fs::renameat_with(old_directory, old, directory, path, flags)
    }
}
