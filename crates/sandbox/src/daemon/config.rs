//! The operator's settings for sandboxes.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use model::ACTION_ID;

use crate::daemon::cgroup::Cgroups;
use crate::daemon::error::RunError;
use crate::daemon::helper_program;
use crate::plan::step::TmpfsSize;
use crate::plan::{Ids, Sizes};

/// The command that starts a helper; it must run `helper_main`. The program is a copy in sealed memory,
/// out of the reach of actions.
#[derive(Clone, Debug)]
pub struct HelperCommand {
    pub(crate) program: Arc<OwnedFd>,
    pub(crate) args: Arc<[OsString]>,
}

impl HelperCommand {
    /// Copies `program`; `args` is the sub-command that makes it a helper.
    ///
    /// # Errors
    /// [`StepName::SealHelper`](crate::StepName::SealHelper).
    pub fn new(program: &Path, args: impl IntoIterator<Item = OsString>) -> Result<Self, RunError> {
        let program = Arc::new(helper_program::seal(program)?);
        Ok(Self { program, args: args.into_iter().collect() })
    }
}

/// The bounds of every sandbox, and of their number.
#[derive(Clone, Debug)]
pub struct Config {
    /// The command that starts helpers.
    pub helper: HelperCommand,
    /// Helpers that may exist at the same time, idle ones included. At least as
    /// many as actions run at the same time; more keep several root file systems warm.
    pub helpers_max: usize,
    /// Bytes of an action's `/tmp`.
    pub tmp_bytes: u64,
    /// Inodes of an action's `/tmp`; each takes about 1 KiB of kernel memory.
    pub tmp_inodes: u64,
    /// Bytes of an action's `/dev/shm`.
    pub shm_bytes: u64,
    /// Processes and threads of an action that asks for no other limit.
    pub processes_max: u32,
    /// Soft limit of open descriptors; an action can raise it up to the daemon's
    /// own hard limit.
    pub open_files: u64,
    /// The largest size of one file of an action, in bytes; its writer gets SIGXFSZ.
    pub file_bytes: u64,
    /// Cgroups, where there are controllers.
    pub cgroups: Option<Arc<Cgroups>>,
    /// The ids of this process's user namespace.
    pub ids: Ids,
    /// The first of [`Config::helpers_max`] ids of the host that are the users and groups of sandboxes, each of
    /// one. Only for root in the initial user namespace, and if input roots can be shown to them. Otherwise
    /// all sandboxes share one user, 65534 where there is one.
    pub first_user: Option<u32>,
}

impl Ids {
    /// The ids of this process's user namespace.
    pub fn of_this_process() -> Self {
        Self {
            are_initial: sys::user_namespace::is_initial(),
            has_action: sys::user_namespace::maps(ACTION_ID),
        }
    }
}

/// Inodes of `/dev/shm`: shared memory comes in few and large pieces.
const SHM_INODES: u64 = 4096;

impl Config {
    /// The bounds of a build machine: a linker's temporary files fit, a runaway
    /// process is stopped.
    pub fn new(helper: HelperCommand) -> Self {
        Self {
            helper,
            helpers_max: 64,
            tmp_bytes: 4 << 30,
            tmp_inodes: 256 << 10,
            shm_bytes: 1 << 30,
            processes_max: 4096,
            open_files: 4096,
            file_bytes: u64::MAX,
            cgroups: None,
            ids: Ids::of_this_process(),
            first_user: None,
        }
    }

    /// The id of the user and group of the sandbox with that number, in this process's user namespace, if it has its own.
    pub(crate) fn user_of(&self, number: u32) -> Option<u32> {
        self.first_user.filter(|_| self.ids.are_initial)?.checked_add(number)
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes {
            tmp: TmpfsSize { bytes: self.tmp_bytes, inodes: self.tmp_inodes },
            shm: TmpfsSize { bytes: self.shm_bytes, inodes: SHM_INODES },
        }
    }
}
