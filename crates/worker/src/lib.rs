//! An action's life, from the request to the answer and the tidying after it.
//!
//! The worker decides *when* an action runs and what becomes of its parts; it
//! does not know how a tree appears at a directory (`inputroot`), how a process
//! is confined (`sandbox`), nor how a client is spoken to (`reapi`).
//!
//! ```text
//!  execute()                                        one slot thread per job
//! ┌──────────────┐ miss ┌──────────┐ slot free ┌───────────────────────────────┐
//! │ CACHE_CHECK  ├─────►│  QUEUED  ├──────────►│ EXECUTING                     │
//! └──────┬───────┘      └────┬─────┘           │ inputs → run → outputs → cache│
//!        │ hit               │ cancel          └──────────────┬────────────────┘
//!        ▼                   ▼                                ▼
//! ┌──────────────────────────────────────────────────────────────────────────┐
//! │ COMPLETED: the answer is out. Afterwards the slot unmounts, deletes and   │
//! │ hands the sandbox back; only then does it take its next action.           │
//! └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - `below`: the tier below the store, as slots use it.
//! - `boundary`: what slots need of the crates below, as traits, for tests without root.
//! - `config`: every bound, with its reason.
//! - `elsewhere`: another engine that takes actions.
//! - `disk`: the part of the disk that actions may not take.
//! - `error`: what can go wrong, typed by what a client can do about it.
//! - `cancel`: the wish that a running action stops.
//! - `operation`: one execution as its subscribers see it.
//! - `registry`: which operations exist; equal actions in flight are one.
//! - `report`: what listeners are told of an operation.
//! - `limits`: bounds of the queue and of actions that can change while the worker runs.
//! - `queue`: the bounded queue between requests and slots, fair between clients.
//! - `reading`: how much of clients' messages is read at a time.
//! - `inputs`: from an input root digest to a checked, pinned tree.
//! - `cache`: looking up and storing results; a hit is complete or no hit.
//! - `capture`: standard output and error on their way into the store.
//! - `outputs`: declared outputs on their way into the store.
//! - `losses`: what of them could not be stored, and how that is told.
//! - `not_started`: what a program that cannot be executed exits with and says.
//! - `resource_usage`: what the command used, as messages.
//! - `server_log`: what went wrong with the server's part, for the client's people.
//! - `stamp`: the environment that a cached result was computed in.
//! - `slot`: one action from start to end.
//! - `overflow`: one action that another engine runs for us.
//! - `timeline`: when each phase began and ended.
//! - `worker`: the whole, wired.

mod below;
mod boundary;
mod cache;
mod cancel;
mod capture;
mod config;
mod disk;
mod elsewhere;
mod error;
mod ignored_properties;
mod inputs;
mod limits;
mod losses;
mod not_started;
mod operation;
mod output_links;
mod output_parents;
mod outputs;
mod overflow;
mod queue;
mod reading;
mod registry;
mod report;
mod resource_usage;
mod server_log;
mod slot;
mod stamp;
mod timeline;
mod whole_root;
mod worker;
mod write_changes;

#[cfg(test)]
mod fakes;

pub use config::WorkerConfig;
pub use elsewhere::{Answered, Elsewhere, ElsewhereError, News, Order};
pub use error::{ActionError, CacheError, StartError, SubmitError};
pub use limits::{Limits, OutputLimits};
pub use operation::{Done, OperationState, Stage, Subscription};
pub use registry::Forgotten;
pub use sandbox::{ActionStreams, Conversation, ConversationError, TerminalSize, resize};
pub use server_log::NAME as SERVER_LOG;
pub use stamp::{entry_of_others, entry_of_upload, result_for_others};
pub use worker::{ExecuteRequest, PRIORITIES, Worker};
