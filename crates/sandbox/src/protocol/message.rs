//! The messages of daemon and helper, and their order.
//!
//! ```text
//! daemon                     helper
//! Setup ───────────────────►          once
//!       ◄─────────────────── Ready    with the user namespace of its actions; or Failed, after
//!                                     which the helper exits
//! Prepare ─────────────────►          clean up after the last action, clone the
//!                                     next PID 1
//!       ◄─────────────────── Ready    even if that failed: the next Run is told
//! Run ─────────────────────►
//!       ◄─────────────────── Runs     at most once, of an action that takes longer
//! AskStart ────────────────►          any number, also late ones, which nobody answers
//!       ◄─────────────────── Started
//! Kill ────────────────────►          any number, also late ones
//!       ◄─────────────────── Finished or Failed; everything inside is dead
//! Prepare …
//! ```
//!
//! The end of the conversation on the daemon's side ends the helper and what runs in it. The helper
//! trusts the daemon, but not its lengths; the daemon trusts nothing of a helper, which may have
//! been taken over.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sys::init::{Obstacle, Report, Usage};

use crate::plan::step::StepName;
use crate::plan::{Ids, Run, Sizes};

/// A message of the daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Comes with one detached mount for each of [`Setup::mounts`].
    Setup(Setup),
    /// Comes with the action's cgroup, if there are cgroups.
    Prepare,
    /// Comes with standard output, standard error and the input root.
    Run(Run),
    /// Asks when the action that is running was started.
    AskStart,
    Kill,
}

/// The parts of a sandbox's root.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) sizes: Sizes,
    pub(crate) ids: Ids,
    /// The id of the action's user and group where the helper starts; 65534 if the sandbox has no user of its own.
    pub(crate) user: Option<u32>,
    /// Soft limit of an action's open descriptors.
    pub(crate) open_files: u64,
    /// The largest size of an action's file, in bytes.
    pub(crate) file_bytes: u64,
    /// The places of the passed mounts, in order; relative to the root.
    pub(crate) mounts: Vec<Vec<u8>>,
    /// Path and target.
    pub(crate) symlinks: Vec<(Vec<u8>, Vec<u8>)>,
    /// Path and content.
    pub(crate) files: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The `oom_score_adj` of actions: half of all memory on top of their own. The kernel kills
/// processes of a sandbox before others.
pub(crate) const ACTION_OOM_SCORE: i16 = 500;

/// A message of the helper.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    /// The set-up is done, or the preparation of an action.
    Ready,
    /// The action has a memory of its own and has run for a while. The daemon is to lower the helper's
    /// `oom_score_adj`, which the helper has no right to.
    Runs,
    /// When the action was started, nanoseconds of `CLOCK_MONOTONIC`; 0 if it was not yet.
    Started(u64),
    Finished(Finished),
    Failed(Failed),
}

/// An action that ended or was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// As wait4(2) gives it; `None` if it was killed before.
    pub(crate) wait_status: Option<i32>,
    /// Nanoseconds of `CLOCK_MONOTONIC`; 0 if it never started.
    pub(crate) started_ns: u64,
    /// Nanoseconds of `CLOCK_MONOTONIC`; 0 if it was killed.
    pub(crate) ended_ns: u64,
    pub(crate) usage: Usage,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) step: StepName,
    pub(crate) errno: i32,
    /// The object of the step, such as a path; may be empty.
    pub(crate) detail: String,
    /// The file that could not be executed, if that was the step.
    pub(crate) obstacle: Option<Obstacle>,
}

impl Failed {
    pub(crate) fn new(step: StepName, errno: Errno, detail: impl Into<String>) -> Self {
        Self { step, errno: errno.raw_os_error(), detail: detail.into(), obstacle: None }
    }
}

impl From<&Report> for Finished {
    fn from(report: &Report) -> Self {
        Self {
            wait_status: report.wait_status,
            started_ns: report.started_ns.max(0) as u64,
            ended_ns: report.ended_ns.max(0) as u64,
            usage: report.usage,
        }
    }
}
