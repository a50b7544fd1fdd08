//! The way into a leaf of a cgroup: one with controllers for its children has no processes of its own.

use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use sys::proc_file;

use crate::daemon::hierarchy::{
    ACTIONS, CgroupError, Controllers, DAEMON, create, disable, enable, own_cgroup,
    remove_empty_children,
};

/// The leaf of a process that starts the daemon, and of what else it starts.
const STARTER: &str = "actiond-run";

/// A cgroup that is divided, with this process in a leaf of it. Dropped, all of that is undone.
#[derive(Debug)]
pub struct Leaf {
    divided: PathBuf,
    name: &'static str,
    /// The cgroup that this process came from.
    before: Option<PathBuf>,
    /// The controllers that children have since then.
    enabled: Controllers,
    is_to_stay: bool,
}

impl Leaf {
    /// Moves this process, which starts the daemon, out of the daemon's way: both would be in one cgroup, and the
    /// daemon could not divide it. `None` where there is nothing to divide: no controllers, a cgroup of another
    /// user, or others' processes in it, which are left where they are. The daemon tells the reason.
    pub fn for_starter() -> Option<Self> {
        let own = own_cgroup()?;
        let controllers = Controllers::of(&own);
        controllers.any().then(|| Self::enter(own, STARTER, controllers).ok())?
    }

    /// Moves this process to a leaf of `divided`, and gives the controllers to its children.
    pub(super) fn enter(
        divided: PathBuf,
        name: &'static str,
        controllers: Controllers,
    ) -> Result<Self, CgroupError> {
        let path = divided.join(name);
        let failed = |action| {
            let path = path.clone();
            move |errno: Errno| CgroupError { action, path, errno }
        };
        let before = own_cgroup();
        create(CWD, &path).map_err(failed("creating"))?;
        let enabled = controllers.without(Controllers::enabled_in(&divided));
        let leaf = Self { divided, name, before, enabled, is_to_stay: false };
        let moved = proc_file::write(CWD, path.join("cgroup.procs"), "0");
        moved.map_err(failed("moving this process to"))?;
        enable(&leaf.divided, controllers)?;
        Ok(leaf)
    }

    /// The cgroup above.
    pub fn divided(&self) -> &Path {
        &self.divided
    }

    /// Leaves everything as it is.
    pub(super) fn stay(mut self) {
        self.is_to_stay = true;
    }
}

impl Drop for Leaf {
    /// A failure here changes nothing for this process.
    fn drop(&mut self) {
        if self.is_to_stay {
            return;
        }
        if self.name == STARTER {
            // The remains of the daemon, which has ended.
            let actions = self.divided.join(ACTIONS);
            remove_empty_children(&actions);
            for path in [actions, self.divided.join(DAEMON)] {
                let _ = std::fs::remove_dir(path);
            }
        }
        // A cgroup takes no process as long as its children have controllers.
        disable(&self.divided, self.enabled);
        if let Some(before) = &self.before {
            let _ = proc_file::write(CWD, before.join("cgroup.procs"), "0");
        }
        let _ = std::fs::remove_dir(self.divided.join(self.name));
    }
}
