//! A worker of a cluster that has a scheduler of its own: Buildbarn's or BuildGrid's.
//!
//! The scheduler queues actions, and each slot asks it for one after the other. Inputs come from the storage of the
//! cluster through the local store, which is a cache here, and outputs are in that storage before the scheduler is told
//! that the action is completed. This crate decides nothing about how an action runs (`worker`) or how blobs travel
//! (`upstream`), and it offers no service.
//!
//! ```text
//!             calls of its protocol        execute              fetch
//!  scheduler ◄──────────────► slot ──► run ─────────► worker ─────────────► upstream ◄─► storage
//!                              │        └─────────────── deliver ─────────────►│
//!                           session
//! ```
//!
//! - [`config`]: everything an operator decides.
//! - `assignment`: an action to run.
//! - [`counters`]: the counters of the calls to the scheduler.
//! - `protocol`: the part of a slot that depends on the kind of scheduler.
//! - `bots`: the Remote Workers API, as BuildGrid speaks it.
//! - `buildbarn`: Buildbarn's protocol: what a slot tells the scheduler, and when; its orders; the call.
//! - `run`: an assignment from the start to its answer.
//! - `slot`: one loop between the scheduler and the worker.
//! - [`agent`]: all slots, and their end.

pub mod agent;
mod assignment;
mod bots;
mod buildbarn;
pub mod config;
pub mod counters;
mod protocol;
mod run;
mod slot;

pub use agent::Agent;
pub use config::Config;
pub use counters::Counters;
