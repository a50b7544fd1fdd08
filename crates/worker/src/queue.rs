//! The queue between requests and slots: bounded in items and in bytes, and fair between clients.
//!
//! ```text
//! priority -5 ─► client A: 3 items ─► client B: 1 item ─► (A again …)
//! priority  0 ─► client C: 200 items
//! ```
//!
//! The most urgent priority goes first; within one, clients take turns, so that a client with 200 items
//! holds up another's single one by one item and not by 200. Every [`TURNS`]th item is of the next
//! priority in a round of all, whatever the more urgent ones have: urgency delays others and never
//! starves them.
//!
//! An item declares what it takes of the machine. The next item waits until there is room for it, and
//! all others wait behind it: an item that could be passed by would never find the room of a large one. An
//! item that declares more than there is runs alone.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// One of so many items is taken without regard to its priority.
const TURNS: u64 = 4;

/// One client may fill so many eighths of the queue: with one that floods it, others still get in.
const CLIENT_EIGHTHS: u64 = 7;

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
}

/// The bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Items that wait.
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
    limits: Limits,
}

#[derive(Debug)]
struct State<T> {
    levels: BTreeMap<i32, Level<T>>,
    clients: HashMap<Arc<str>, Share>,
    waiting: Share,
    /// Items that were taken so far.
    taken: u64,
    /// The priority that was served last without regard to urgency.
    last_round: i32,
    /// Takers that hold an item they have not finished yet, and what those take of the machine.
    busy: usize,
    used: Demand,
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

/// The items of one priority.
#[derive(Debug)]
struct Level<T> {
    /// Each client that has items, the next one first.
    turns: VecDeque<Arc<str>>,
    lines: HashMap<Arc<str>, VecDeque<Waiting<T>>>,
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), lines: HashMap::new() }
    }
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    bytes: u64,
    demand: Demand,
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
            levels: BTreeMap::new(),
            clients: HashMap::new(),
            waiting: Share::default(),
            taken: 0,
            last_round: i32::MAX,
            busy: 0,
            used: Demand { cpu_cores: 0, memory_bytes: 0 },
            closed: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), limits }
    }

    /// Appends an item that takes `bytes` of memory while it waits.
    pub(crate) fn push(&self, item: T, bytes: u64, rank: Rank) -> Result<(), PushError> {
        let mut state = self.state.lock();
        self.check(&state, bytes, &rank.client)?;
        let Rank { priority, client, demand } = rank;
        let demand = demand.at_most(self.limits.machine);
        state.waiting.add(bytes);
        state.clients.entry(Arc::clone(&client)).or_default().add(bytes);
        let level = state.levels.entry(priority).or_default();
        let line = level.lines.entry(Arc::clone(&client)).or_default();
        if line.is_empty() {
            level.turns.push_back(client);
        }
        line.push_back(Waiting { item, bytes, demand });
        self.changed.notify_one();
        Ok(())
    }

    fn check(&self, state: &State<T>, bytes: u64, client: &str) -> Result<(), PushError> {
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.waiting.items >= self.limits.items {
            return Err(PushError::Full);
        }
        if state.waiting.bytes + bytes > self.limits.bytes {
            return Err(PushError::TooManyBytes);
        }
        let of_client = state.clients.get(client).copied().unwrap_or_default();
        // A queue for a handful has no eighths.
        let items = (self.limits.items as u64 * CLIENT_EIGHTHS).div_ceil(8);
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
                Next::Item(priority) => {
                    let taken = state.take(priority);
                    // One wake-up can have brought room for several.
                    if state.waiting.items > 0 {
                        self.changed.notify_one();
                    }
                    return taken;
                }
                Next::Nothing if state.closed => return None,
                Next::Nothing | Next::NoRoom => self.changed.wait(&mut state),
            }
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
    }

    /// Whether nothing waits and nothing is being worked on.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting.items == 0 && state.busy == 0
    }
}

/// The item that comes next.
enum Next {
    /// The first item of this priority.
    Item(i32),
    /// An item that does not fit beside those that are worked on.
    NoRoom,
    Nothing,
}

impl<T> State<T> {
    fn next(&self, machine: Demand) -> Next {
        let Some(priority) = self.next_priority() else { return Next::Nothing };
        let first = self.levels.get(&priority).and_then(Level::first);
        match first {
            Some(waiting) if self.busy > 0 && !self.used.leaves(waiting.demand, machine) => {
                Next::NoRoom
            }
            Some(_) => Next::Item(priority),
            None => Next::Nothing,
        }
    }

    fn is_round(&self) -> bool {
        self.taken % TURNS == TURNS - 1
    }

    fn next_priority(&self) -> Option<i32> {
        let most_urgent = self.levels.keys().next().copied();
        if !self.is_round() {
            return most_urgent;
        }
        let behind = (Bound::Excluded(self.last_round), Bound::Unbounded);
        self.levels.range(behind).next().map(|(priority, _)| *priority).or(most_urgent)
    }

    fn take(&mut self, priority: i32) -> Option<Taken<T>> {
        if self.is_round() {
            self.last_round = priority;
        }
        let level = self.levels.get_mut(&priority)?;
        let client = level.turns.pop_front()?;
        let line = level.lines.get_mut(&client)?;
        let Waiting { item, bytes, demand } = line.pop_front()?;
        if line.is_empty() {
            level.lines.remove(&client);
        } else {
            level.turns.push_back(Arc::clone(&client));
        }
        if level.turns.is_empty() {
            self.levels.remove(&priority);
        }
        self.waiting.remove(bytes);
        if let Some(share) = self.clients.get_mut(&client) {
            share.remove(bytes);
            if share.items == 0 {
                self.clients.remove(&client);
            }
        }
        self.taken += 1;
        self.busy += 1;
        self.used.cpu_cores += demand.cpu_cores;
        self.used.memory_bytes += demand.memory_bytes;
        Some(Taken { item, demand })
    }
}

impl<T> Level<T> {
    fn first(&self) -> Option<&Waiting<T>> {
        self.lines.get(self.turns.front()?)?.front()
    }
}

impl Demand {
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
mod tests {
    use super::*;

    const ONE: Demand = Demand { cpu_cores: 1, memory_bytes: 0 };

    fn queue<T>(items: usize, bytes: u64) -> Queue<T> {
        let machine = Demand { cpu_cores: 1_000, memory_bytes: 1_000 };
        Queue::new(Limits { items, bytes, machine })
    }

    fn rank(client: &str, priority: i32, demand: Demand) -> Rank {
        Rank { priority, client: client.into(), demand }
    }

    fn plain() -> Rank {
        rank("", 0, ONE)
    }

    fn take<T>(queue: &Queue<T>) -> Option<T> {
        queue.pop().map(|taken| taken.item)
    }

    /// All items, in the order in which they are taken.
    fn order<T: Copy>(queue: &Queue<T>) -> Vec<T> {
        queue.close();
        std::iter::from_fn(|| take(queue)).collect()
    }

    #[test]
    fn items_of_one_client_come_out_in_order_and_the_bound_holds() {
        let queue = queue(2, 100);
        queue.push(1, 1, plain()).unwrap();
        queue.push(2, 1, plain()).unwrap();
        assert_eq!(queue.push(3, 1, plain()), Err(PushError::Full));
        assert_eq!(take(&queue), Some(1));
        queue.push(3, 1, plain()).unwrap();
        assert_eq!((take(&queue), take(&queue)), (Some(2), Some(3)));
        assert!(!queue.is_idle());
        for _ in 0..3 {
            queue.finished(ONE);
        }
        assert!(queue.is_idle());
    }

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let queue = queue(10, 100);
        queue.push(1, 60, plain()).unwrap();
        assert_eq!(queue.push(2, 41, plain()), Err(PushError::TooManyBytes));
        queue.push(2, 40, rank("other", 0, ONE)).unwrap();
        assert_eq!(queue.push(3, 1, plain()), Err(PushError::TooManyBytes));
        assert_eq!(take(&queue), Some(1));
        queue.push(3, 60, plain()).unwrap();
    }

    #[test]
    fn a_closed_queue_serves_what_waits_and_takes_nothing_new() {
        let queue = queue(2, 100);
        queue.push(1, 1, plain()).unwrap();
        queue.close();
        assert_eq!(queue.push(2, 1, plain()), Err(PushError::Closed));
        assert_eq!(order(&queue), [1]);
    }

    #[test]
    fn a_client_with_many_items_does_not_hold_up_one_with_few() {
        let queue = queue(1_000, 1_000_000);
        for number in 0..200 {
            queue.push(("many", number), 1, rank("many", 0, ONE)).unwrap();
        }
        for number in 0..2 {
            queue.push(("few", number), 1, rank("few", 0, ONE)).unwrap();
        }
        let order = order(&queue);
        let first = [("many", 0), ("few", 0), ("many", 1), ("few", 1), ("many", 2), ("many", 3)];
        assert_eq!(order[..6], first);
        assert_eq!(order.len(), 202);
    }

    #[test]
    fn a_client_that_floods_leaves_room_for_others() {
        let queue = queue(80, 1_000);
        let pushed = (0..100).filter(|_| queue.push(0, 1, rank("a", 0, ONE)).is_ok()).count();
        assert_eq!(pushed, 70);
        assert_eq!(queue.push(0, 1, rank("a", 0, ONE)), Err(PushError::ClientFull));
        assert_eq!(queue.push(0, 1, rank("b", 0, ONE)), Ok(()));
        assert_eq!(queue.push(0, 880, rank("b", 0, ONE)), Err(PushError::ClientFull));
        // The queue does not refuse an item for its size alone.
        let queue = self::queue(80, 1_000);
        assert_eq!(queue.push(0, 950, rank("b", 0, ONE)), Ok(()));
    }

    #[test]
    fn urgent_items_go_first_and_starve_nobody() {
        let queue = queue(1_000, 1_000);
        for number in 0..8 {
            queue.push((-5, number), 1, rank("urgent", -5, ONE)).unwrap();
        }
        queue.push((0, 0), 1, rank("usual", 0, ONE)).unwrap();
        queue.push((7, 0), 1, rank("late", 7, ONE)).unwrap();
        let order: Vec<_> = order(&queue).into_iter().map(|(priority, _)| priority).collect();
        // The fourth and the eighth are of a round over all priorities, which begins with the first.
        assert_eq!(order, [-5, -5, -5, -5, -5, -5, -5, 0, -5, 7]);
    }

    #[test]
    fn an_item_waits_for_its_room_and_nobody_passes_it() {
        let machine = Demand { cpu_cores: 4, memory_bytes: 100 };
        let queue = Arc::new(Queue::new(Limits { items: 10, bytes: 100, machine }));
        let demand = |cpu_cores, memory_bytes| Demand { cpu_cores, memory_bytes };
        queue.push("small", 1, rank("", 0, demand(1, 0))).unwrap();
        queue.push("large", 1, rank("", 0, demand(4, 10))).unwrap();
        queue.push("other", 1, rank("", 0, demand(1, 0))).unwrap();
        let small = queue.pop().unwrap();
        let taker = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.pop().unwrap()
        });
        // It can't have been taken: there is no room.
        std::thread::yield_now();
        assert_eq!(queue.state.lock().waiting.items, 2);
        queue.finished(small.demand);
        let large = taker.join().unwrap();
        assert_eq!((large.item, large.demand), ("large", demand(4, 10)));
        queue.finished(large.demand);
        assert_eq!(take(&queue), Some("other"));
    }

    #[test]
    fn an_item_that_is_larger_than_the_machine_runs_alone() {
        let machine = Demand { cpu_cores: 2, memory_bytes: 100 };
        let queue = Queue::new(Limits { items: 10, bytes: 100, machine });
        let huge = Demand { cpu_cores: 64, memory_bytes: 1 << 40 };
        queue.push(1, 1, rank("", 0, huge)).unwrap();
        let taken = queue.pop().unwrap();
        assert_eq!(taken.demand, machine);
        queue.finished(taken.demand);
        assert!(queue.is_idle());
    }
}
