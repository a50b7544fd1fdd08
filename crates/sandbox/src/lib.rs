//! A process in its namespaces: a pure plan, then its application.
//!
//! One action runs in a root of its own making, alone in its PID, IPC and mount
//! namespace, as a user with no rights, with no network but a loopback, and when
//! it ends everything that it started is dead. The root holds the input tree
//! and a [`runtimes::Rootfs`]; how the input tree gets there is
//! `inputroot`'s business. Nothing here knows of REAPI or of outputs.
//!
//! ```text
//!  daemon, a slot's thread     helper, one per slot          per action
//!  ───────────────────────     ────────────────────          ──────────
//!  Pool::acquire ──spawn─────► template root, network,
//!                              user namespace
//!                    Prepare ► ──────────clone──────────────► PID 1: /proc, /tmp …
//!                                                             action: user, filter;
//!  Sandbox::run ───────Run───► ──────────gates──────────────► both wait
//!   carries stdout, stderr                                    attach inputs, execve
//!   deadline, cancel ──Kill──►                                   ⋮
//!              ◄────Finished── ◄─────────pidfd─────────────── all dead
//!  Pool::release ────Prepare─► take down mounts, look at the
//!                              network, clone the next PID 1
//! ```
//!
//! All that does not depend on the action is done before it is known, and all that
//! its answer does not need is done after.
//!
//! The walls, from the inside out:
//! - the action: nobody, in no group, no capability in any set and no way to one, a
//!   system call filter, resource limits;
//! - its namespaces: nothing to reach but itself, a read-only root of which every
//!   mount is nosuid and all but the template are nodev, two bounded scratch file
//!   systems, a loopback;
//! - PID 1: gives up what it has before the action's first instruction matters;
//! - the helper: from its set-up on root in a user namespace of its own only, with
//!   four capabilities there and none on the host.
//!
//! Needs root and Linux 6.5; what later kernels add is used where it is there.

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod plan;
mod protocol;

mod helper;

mod daemon;

pub use crate::daemon::{
    ActionStreams, CgroupError, Cgroups, Config, Controllers, Conversation, ConversationError,
    Exit, ExitStatus, HelperCommand, Leaf, OutputSink, Pool, RunError, SUPERVISION, Sandbox, Spec,
    StopConditions, Stopped, Streams, TerminalSize, Usage, Watchdog, resize,
};
pub use crate::helper::helper_main;
pub use crate::plan::step::StepName;
pub use crate::plan::{DEFAULT_PATH, MAX_MOUNT_PATH_BYTES};
pub use sys::init::{Hindrance, Obstacle, Part};
