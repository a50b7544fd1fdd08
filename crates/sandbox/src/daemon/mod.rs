//! The daemon's side of sandboxes: starts helpers, sends them actions, carries output, ends what is
//! to be ended. Runs with the daemon's threads and privileges, and never inside a sandbox.

mod cgroup;
mod config;
mod conversation;
mod cpus;
mod deadline;
mod error;
mod exit;
mod helper_program;
mod hierarchy;
mod leaf;
mod oom_score;
mod permit;
mod pool;
mod process;
mod sandbox;
mod streams;
mod view;

pub use cgroup::Cgroups;
pub use config::{Config, HelperCommand};
pub use conversation::{ActionStreams, Conversation, ConversationError, TerminalSize, resize};
pub use error::RunError;
pub use exit::{Exit, ExitStatus, Stopped, Usage};
pub use hierarchy::{CgroupError, Controllers};
pub use leaf::Leaf;
pub use pool::Pool;
pub use sandbox::{SUPERVISION, Sandbox, Spec, StopConditions, Watchdog};
pub use streams::{OutputSink, Streams};
