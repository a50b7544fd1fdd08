//! The queue between requests and slots: bounded in items and in bytes, and fair between clients.
//!
//! ```text
//! priority -5 ─► client A: 3 items ─► client B: 1 item ─► (A again …)
//! priority  0 ─► client C: 200 items
//! ```
//!
//! The most urgent priority goes first; within one, clients take turns, so that a client with 200 items
//! holds up another's single one by one item and not by 200. Every fourth item is of the next
//! priority in a round of all, whatever the more urgent ones have: urgency delays others and never
//! starves them.
//!
//! An item declares what it takes of the machine. The next item waits until there is room for it, and
//! all others wait behind it: an item that could be passed by would never find the room of a large one. An
//! item that declares more than there is runs alone.
//!
//! Some takers work elsewhere, on another machine: they take what may leave and has waited for too long, the most overdue
//! first, and foreign items, which can't be worked on here. Foreign items have lines of their own in the same order, and count in
//! all bounds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use lines::{Lines, Number, Waiting};

mod lines;

/// One client may fill so many eighths of the queue: with one that floods it, others still get in.
const CLIENT_EIGHTHS: u64 = 7;

/// The pause after which it is asked again whether overdue items are welcome elsewhere.
const UNWELCOME_PERIOD: Duration = Duration::from_secs(1);

/// The part of the machine that an item takes while it is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) cpu_cores: u32,
    pub(crate) memory_bytes: u64,
}

/// Where an item stands in the queue.
#[derive(Debug, Clone)]
pub(crate) struct Rank {
    /// The lower, the sooner.
    pub(crate) priority: i32,
    /// Items of one client take their turns together.
    pub(crate) client: Arc<str>,
    pub(crate) demand: Demand,
    /// Takers of overdue items may have it.
    pub(crate) may_leave: bool,
}

/// The bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Items that wait, at the start.
    pub(crate) items: usize,
    /// Memory of the items that wait.
    pub(crate) bytes: u64,
    /// The part of the machine that all items in work may take together.
    pub(crate) machine: Demand,
}

/// A queue that refuses what goes over its bound instead of growing.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// For takers of overdue items: there is one more, or the first one.
    overdue: Condvar,
    limits: Limits,
}

#[derive(Debug)]
struct State<T> {
    /// The bound on the items that wait.
    items_max: usize,
    /// Items for everybody.
    local: Lines<T>,
    /// Items that only takers of overdue ones may have.
    foreign: Lines<T>,
    clients: HashMap<Arc<str>, Share>,
    waiting: Share,
    /// Takers that hold an item they have not finished yet, and what those take of the machine.
    busy: usize,
    used: Demand,
    /// Takers of overdue items that wait until one is due. One is enough; the others sleep.
    watchers: usize,
    closed: bool,
}

/// How much is waiting.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    items: usize,
    bytes: u64,
}

impl Share {
    fn add(&mut self, bytes: u64) {
        self.items += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: u64) {
        self.items -= 1;
        self.bytes -= bytes;
    }
}

/// An item that is worked on; to be answered with [`Queue::finished`].
#[derive(Debug)]
pub(crate) struct Taken<T> {
    pub(crate) item: T,
    pub(crate) demand: Demand,
}

/// The reason why an item was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// As many items as the bound allows are waiting.
    Full,
    /// The waiting items take as many bytes as the bound allows.
    TooManyBytes,
    /// This client's items alone take nearly all of the queue.
    ClientFull,
    /// The queue is closed.
    Closed,
}

impl<T> Queue<T> {
    /// An empty queue.
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            items_max: limits.items,
            local: Lines::default(),
            foreign: Lines::default(),
            clients: HashMap::new(),
            waiting: Share::default(),
            busy: 0,
            used: Demand { cpu_cores: 0, memory_bytes: 0 },
            watchers: 0,
            closed: false,
        };
        let (changed, overdue) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::new(state), changed, overdue, limits }
    }

    /// Appends an item that takes `bytes` of memory while it waits.
    pub(crate) fn push(&self, item: T, bytes: u64, rank: Rank) -> Result<(), PushError> {
        let mut state = self.state.lock();
        self.check(&state, bytes, &rank.client)?;
        self.append(&mut state, item, bytes, rank);
        Ok(())
    }

    /// Gives an item back that was taken as overdue. It was admitted before, and no bound refuses it. Returns it if the
    /// queue is closed, for all takers may be gone.
    pub(crate) fn put_back(&self, item: T, bytes: u64, rank: Rank) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        self.append(&mut state, item, bytes, rank);
        Ok(())
    }

    /// Leaves an item that was taken to those who take overdue ones, as it can't be worked on here. Returns it if the
    /// queue is closed, for all of them may be gone.
    pub(crate) fn push_foreign(&self, item: T, bytes: u64, rank: Rank) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        let Rank { priority, client, .. } = rank;
        state.count(bytes, &client);
        state.foreign.append(priority, client, Waiting { item, bytes, demand: Demand::NOTHING });
        self.overdue.notify_one();
        Ok(())
    }

    fn append(&self, state: &mut State<T>, item: T, bytes: u64, rank: Rank) {
        let Rank { priority, client, demand, may_leave } = rank;
        let demand = demand.at_most(self.limits.machine);
        state.count(bytes, &client);
        let waiting = Waiting { item, bytes, demand };
        self.changed.notify_one();
        if !may_leave {
            return state.local.append(priority, client, waiting);
        }
        state.local.append_leaving(priority, client, waiting);
        // One that waits knows of an older item.
        if state.watchers == 0 {
            self.overdue.notify_one();
        }
    }

    /// Changes the bound on the items that wait. Those that wait already stay.
    pub(crate) fn set_items_max(&self, items_max: usize) {
        self.state.lock().items_max = items_max;
    }

    fn check(&self, state: &State<T>, bytes: u64, client: &str) -> Result<(), PushError> {
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.waiting.items >= state.items_max {
            return Err(PushError::Full);
        }
        if state.waiting.bytes + bytes > self.limits.bytes {
            return Err(PushError::TooManyBytes);
        }
        let of_client = state.clients.get(client).copied().unwrap_or_default();
        // A queue for a handful has no eighths.
        let items = (state.items_max as u64 * CLIENT_EIGHTHS).div_ceil(8);
        let most_bytes = self.limits.bytes / 8 * CLIENT_EIGHTHS;
        let is_over = of_client.items as u64 >= items || of_client.bytes + bytes > most_bytes;
        if of_client.items > 0 && is_over { Err(PushError::ClientFull) } else { Ok(()) }
    }

    /// The next item, waiting for one and for its room; `None` once the queue is closed and
    /// empty. Each item is to be answered with [`Queue::finished`].
    pub(crate) fn pop(&self) -> Option<Taken<T>> {
        let mut state = self.state.lock();
        loop {
            match state.next(self.limits.machine) {
                Next::Item => {
                    let taken = state.take();
                    self.was_taken(&state);
                    return taken;
                }
                Next::Nothing if state.closed => return None,
                Next::Nothing | Next::NoRoom => self.changed.wait(&mut state),
            }
        }
    }

    /// The next foreign item, or the most overdue one of those that may leave and have waited for `wait`, while they are
    /// welcome; waits for one. `None` once the queue is closed and empty. Such an item takes nothing of the machine.
    pub(crate) fn pop_overdue(
        &self,
        wait: Duration,
        is_welcome: impl Fn() -> bool,
    ) -> Option<Taken<T>> {
        let mut state = self.state.lock();
        loop {
            if let Some(taken) = state.take_foreign() {
                self.was_taken(&state);
                self.overdue.notify_one();
                return Some(taken);
            }
            if state.closed && state.waiting.items == 0 {
                return None;
            }
            let Some((number, due)) = state.local.first_due(wait) else {
                self.overdue.wait(&mut state);
                continue;
            };
            let now = Instant::now();
            if due <= now && is_welcome() {
                let taken = state.take_away(number);
                self.was_taken(&state);
                self.overdue.notify_one();
                return taken;
            }
            // Something that is due and not welcome is asked for again after a while.
            let until = if due > now { due } else { now + UNWELCOME_PERIOD };
            state.watchers += 1;
            _ = self.overdue.wait_until(&mut state, until);
            state.watchers -= 1;
        }
    }

    /// Wakes those who may go on after an item was taken.
    fn was_taken(&self, state: &State<T>) {
        if state.waiting.items > 0 {
            // One wake-up can have brought room for several, and what was taken away makes room for the next.
            self.changed.notify_one();
        } else if state.closed {
            // It was the last one.
            self.changed.notify_all();
            self.overdue.notify_all();
        }
    }

    /// A taker is through with an item of that demand.
    pub(crate) fn finished(&self, demand: Demand) {
        let mut state = self.state.lock();
        state.busy -= 1;
        state.used.cpu_cores -= demand.cpu_cores;
        state.used.memory_bytes -= demand.memory_bytes;
        if state.waiting.items > 0 {
            self.changed.notify_one();
        }
    }

    /// Takes nothing new; what waits is still served.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
        self.overdue.notify_all();
    }

    /// Whether nothing waits and nothing is being worked on.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting.items == 0 && state.busy == 0
    }
}

/// The item that comes next.
enum Next {
    Item,
    /// An item that does not fit beside those that are worked on.
    NoRoom,
    Nothing,
}

impl<T> State<T> {
    fn next(&self, machine: Demand) -> Next {
        match self.local.next() {
            Some(waiting) if self.busy > 0 && !self.used.leaves(waiting.demand, machine) => {
                Next::NoRoom
            }
            Some(_) => Next::Item,
            None => Next::Nothing,
        }
    }

    fn take(&mut self) -> Option<Taken<T>> {
        let (client, waiting) = self.local.take()?;
        let taken = self.hand_out(&client, waiting);
        self.used.cpu_cores += taken.demand.cpu_cores;
        self.used.memory_bytes += taken.demand.memory_bytes;
        Some(taken)
    }

    fn take_foreign(&mut self) -> Option<Taken<T>> {
        let (client, waiting) = self.foreign.take()?;
        Some(self.hand_out(&client, waiting))
    }

    /// Takes an item that is worked on elsewhere.
    fn take_away(&mut self, number: Number) -> Option<Taken<T>> {
        let (client, waiting) = self.local.take_leaving(number)?;
        Some(Taken { demand: Demand::NOTHING, ..self.hand_out(&client, waiting) })
    }

    fn hand_out(&mut self, client: &Arc<str>, waiting: Waiting<T>) -> Taken<T> {
        let Waiting { item, bytes, demand } = waiting;
        self.waiting.remove(bytes);
        if let Some(share) = self.clients.get_mut(client) {
            share.remove(bytes);
            if share.items == 0 {
                self.clients.remove(client);
            }
        }
        self.busy += 1;
        Taken { item, demand }
    }

    fn count(&mut self, bytes: u64, client: &Arc<str>) {
        self.waiting.add(bytes);
        self.clients.entry(Arc::clone(client)).or_default().add(bytes);
    }
}

impl Demand {
    /// The demand of what is worked on elsewhere.
    const NOTHING: Self = Self { cpu_cores: 0, memory_bytes: 0 };

    fn at_most(self, machine: Self) -> Self {
        Self {
            cpu_cores: self.cpu_cores.min(machine.cpu_cores),
            memory_bytes: self.memory_bytes.min(machine.memory_bytes),
        }
    }

    /// Whether `more` fits into the machine beside this.
    fn leaves(self, more: Self, machine: Self) -> bool {
        more.cpu_cores <= machine.cpu_cores.saturating_sub(self.cpu_cores)
            && more.memory_bytes <= machine.memory_bytes.saturating_sub(self.memory_bytes)
    }
}

#[cfg(test)]
mod tests;
