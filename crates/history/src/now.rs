//! Running and queued actions, and the last ones that ended.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use events::{Event, Finished, Listener, Origin};
use parking_lot::Mutex;

/// Ended actions that are remembered: more than a person reads, at about 1 KiB each.
const RECENT_MAX: usize = 200;

/// Live actions that are remembered: the default bound of the worker's queue. More of them are
/// counted only.
const LIVE_MAX: usize = 10_000;

/// Remembers running and queued actions, and the last ones that ended.
#[derive(Default)]
pub struct Now(Mutex<State>);

#[derive(Default)]
struct State {
    live: HashMap<Arc<str>, Live>,
    ended: u64,
    recent: VecDeque<Arc<Finished>>,
}

/// An action that waits or runs.
#[derive(Debug, Clone)]
pub struct Live {
    /// The operation's name.
    pub operation: Arc<str>,
    /// The instance name.
    pub instance: String,
    /// The function of the digest.
    pub digest_function: &'static str,
    /// The action's digest, as `hash/size`.
    pub action: String,
    /// Names that the client gave the request.
    pub origin: Arc<Origin>,
    /// When it was queued.
    pub queued: Instant,
    /// When a slot took it, if one has.
    pub started: Option<Instant>,
}

/// The state at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Running actions, the longest first.
    pub running: Vec<Live>,
    /// Queued actions, the longest first.
    pub queued: Vec<Live>,
    /// Ended actions, the latest first.
    pub recent: Vec<Arc<Finished>>,
}

impl Now {
    /// The current state.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.0.lock();
        let (mut running, mut queued): (Vec<_>, Vec<_>) =
            state.live.values().cloned().partition(|live| live.started.is_some());
        let recent = state.recent.iter().rev().cloned().collect();
        drop(state);
        running.sort_by_key(|live| live.started);
        queued.sort_by_key(|live| live.queued);
        Snapshot { running, queued, recent }
    }

    /// The number of actions that have ended since the start.
    pub fn ended(&self) -> u64 {
        self.0.lock().ended
    }

    /// The numbers of waiting and of running actions.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.0.lock();
        let running = state.live.values().filter(|live| live.started.is_some()).count();
        (state.live.len() - running, running)
    }
}

impl Listener for Now {
    fn tell(&self, event: &Event) {
        if matches!(event, Event::LookedUp(_)) {
            return;
        }
        let mut state = self.0.lock();
        match event {
            Event::Queued(queued) if state.live.len() < LIVE_MAX => {
                let live = Live {
                    operation: Arc::clone(&queued.operation),
                    instance: queued.instance.clone(),
                    digest_function: queued.digest_function,
                    action: queued.action.clone(),
                    origin: Arc::clone(&queued.origin),
                    queued: Instant::now(),
                    started: None,
                };
                state.live.insert(Arc::clone(&queued.operation), live);
            }
            Event::Queued(_) | Event::LookedUp(_) => {}
            Event::Started { operation } => {
                if let Some(live) = state.live.get_mut(operation) {
                    live.started = Some(Instant::now());
                }
            }
            Event::Withdrawn { operation } => {
                state.live.remove(operation);
            }
            Event::Finished(finished) => {
                state.live.remove(&finished.operation);
                state.ended += 1;
                if state.recent.len() == RECENT_MAX {
                    state.recent.pop_front();
                }
                state.recent.push_back(Arc::clone(finished));
            }
        }
    }
}
