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
mod tests {
    use super::*;

    const ONE: Demand = Demand { cpu_cores: 1, memory_bytes: 0 };

    fn queue<T>(items: usize, bytes: u64) -> Queue<T> {
        let machine = Demand { cpu_cores: 1_000, memory_bytes: 1_000 };
        Queue::new(Limits { items, bytes, machine })
    }

    fn rank(client: &str, priority: i32, demand: Demand) -> Rank {
        Rank { priority, client: client.into(), demand, may_leave: true }
    }

    fn that_stays(client: &str, priority: i32) -> Rank {
        Rank { may_leave: false, ..rank(client, priority, ONE) }
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
    fn the_bound_can_change_and_what_waits_stays() {
        let queue = queue(1, 100);
        queue.push(1, 1, plain()).unwrap();
        assert_eq!(queue.push(2, 1, plain()), Err(PushError::Full));
        queue.set_items_max(3);
        queue.push(2, 1, plain()).unwrap();
        queue.set_items_max(1);
        assert_eq!(queue.push(3, 1, plain()), Err(PushError::Full));
        assert_eq!((take(&queue), take(&queue)), (Some(1), Some(2)));
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
    fn what_waits_too_long_is_taken_away_and_takes_nothing_of_the_machine() {
        let machine = Demand { cpu_cores: 1, memory_bytes: 0 };
        let queue = Queue::new(Limits { items: 10, bytes: 100, machine });
        for item in ["local", "away", "late"] {
            queue.push(item, 1, plain()).unwrap();
        }
        let local = queue.pop().unwrap();
        let away = queue.pop_overdue(Duration::ZERO, || true).unwrap();
        assert_eq!((local.item, away.item, away.demand), ("local", "away", Demand::NOTHING));
        // The one machine is busy, and what is away is no part of that.
        queue.finished(local.demand);
        assert_eq!(take(&queue), Some("late"));
        queue.finished(ONE);
        assert!(!queue.is_idle());
        queue.put_back(away.item, 1, plain()).unwrap();
        queue.finished(away.demand);
        assert_eq!(take(&queue), Some("away"));
        queue.finished(ONE);
        assert!(queue.is_idle());
        queue.close();
        assert_eq!(queue.put_back("away", 1, plain()), Err("away"));
    }

    #[test]
    fn the_most_overdue_is_taken_whatever_its_priority() {
        let queue = queue(10, 100);
        queue.push("late", 1, rank("", 7, ONE)).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        queue.push("urgent", 1, rank("", -5, ONE)).unwrap();
        let taken = || queue.pop_overdue(Duration::ZERO, || true).unwrap().item;
        assert_eq!([taken(), taken()], ["late", "urgent"]);
    }

    #[test]
    fn foreign_items_are_for_takers_of_overdue_ones_alone() {
        let queue = Arc::new(queue(2, 100));
        queue.push("foreign", 1, plain()).unwrap();
        let foreign = queue.pop().unwrap();
        queue.push_foreign(foreign.item, 1, plain()).unwrap();
        queue.finished(foreign.demand);
        assert!(!queue.is_idle());
        // It still counts.
        queue.push("other", 1, plain()).unwrap();
        assert_eq!(queue.push("third", 1, plain()), Err(PushError::Full));
        assert_eq!(take(&queue), Some("other"));
        queue.finished(ONE);
        // Taken although nothing is welcome that others can work on.
        let taken = queue.pop_overdue(Duration::ZERO, || false).unwrap();
        assert_eq!(taken.item, "foreign");
        queue.finished(taken.demand);
        queue.close();
        assert!(queue.pop_overdue(Duration::ZERO, || true).is_none() && queue.is_idle());
        assert_eq!(queue.push_foreign("late", 1, plain()), Err("late"));
    }

    #[test]
    fn what_may_not_leave_stays_and_hides_nothing_behind_it() {
        for (client, priority) in [("one", 0), ("one", 1), ("other", 0)] {
            let queue = queue(10, 100);
            queue.push("stays", 1, that_stays("one", 0)).unwrap();
            queue.push("leaves", 1, rank(client, priority, ONE)).unwrap();
            queue.push("stays too", 1, that_stays(client, priority)).unwrap();
            let taken = queue.pop_overdue(Duration::ZERO, || true).unwrap();
            assert_eq!(taken.item, "leaves");
            assert_eq!(order(&queue), ["stays", "stays too"], "{client} {priority}");
        }
    }

    #[test]
    fn what_is_taken_in_turn_can_not_leave_any_more() {
        let queue = queue(10, 100);
        for number in 0..4 {
            queue.push(number, 1, plain()).unwrap();
        }
        let leaving = || queue.pop_overdue(Duration::ZERO, || true).unwrap().item;
        assert_eq!((take(&queue), leaving(), take(&queue), leaving()), (Some(0), 1, Some(2), 3));
        queue.close();
        assert!(queue.pop_overdue(Duration::ZERO, || true).is_none());
    }

    #[test]
    fn foreign_items_are_bounded_and_fair_as_others_are() {
        let queue = queue(8, 100);
        for number in 0..6 {
            queue.push(("many", number), 1, rank("many", 0, ONE)).unwrap();
            let taken = queue.pop().unwrap();
            queue.push_foreign(taken.item, 1, rank("many", 0, ONE)).unwrap();
            queue.finished(taken.demand);
        }
        queue.push(("many", 6), 1, rank("many", 0, ONE)).unwrap();
        assert_eq!(queue.push(("many", 7), 1, rank("many", 0, ONE)), Err(PushError::ClientFull));
        queue.push_foreign(("few", 0), 1, rank("few", 0, ONE)).unwrap();
        let taken = || queue.pop_overdue(Duration::ZERO, || false).unwrap().item;
        assert_eq!([taken(), taken(), taken()], [("many", 0), ("few", 0), ("many", 1)]);
    }

    /// Takers that wait for an hour, and what ends when the queue is closed and empty.
    #[test]
    fn a_closed_queue_ends_takers_of_overdue_items_once_others_have_emptied_it() {
        for may_leave in [true, false] {
            let queue = Arc::new(queue(10, 100));
            for item in ["one", "two"] {
                queue.push(item, 1, Rank { may_leave, ..plain() }).unwrap();
            }
            let takers = [(); 3].map(|()| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    queue.pop_overdue(Duration::from_secs(3600), || true).is_none()
                })
            });
            queue.close();
            assert_eq!([take(&queue), take(&queue)], [Some("one"), Some("two")]);
            assert!(takers.into_iter().all(|taker| taker.join().unwrap()));
        }
    }

    #[test]
    fn what_is_taken_away_makes_room_for_others() {
        let machine = Demand { cpu_cores: 2, memory_bytes: 0 };
        let queue = Arc::new(Queue::new(Limits { items: 10, bytes: 100, machine }));
        let large = Demand { cpu_cores: 2, memory_bytes: 0 };
        queue.push("first", 1, plain()).unwrap();
        let first = queue.pop().unwrap();
        queue.push("large", 1, rank("", 0, large)).unwrap();
        let taker = || {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || take(&queue))
        };
        let (waits, ends) = (taker(), taker());
        let away = queue.pop_overdue(Duration::ZERO, || true).unwrap();
        assert_eq!((first.item, away.item), ("first", "large"));
        queue.push("small", 1, plain()).unwrap();
        queue.close();
        let mut taken = [waits.join().unwrap(), ends.join().unwrap()];
        taken.sort_unstable();
        assert_eq!(taken, [None, Some("small")]);
    }

    #[test]
    fn takers_of_overdue_items_are_woken() {
        let queue = Arc::new(queue(10, 100));
        let taker = || {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                let taken = queue.pop_overdue(Duration::from_millis(1), || true)?;
                queue.finished(taken.demand);
                Some(taken.item)
            })
        };
        let takers = [taker(), taker(), taker()];
        queue.push(1, 1, plain()).unwrap();
        queue.push(2, 1, plain()).unwrap();
        queue.push_foreign(3, 1, plain()).unwrap();
        let mut taken = takers.map(|taker| taker.join().unwrap().unwrap());
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3]);
        let last = taker();
        queue.close();
        assert_eq!(last.join().unwrap(), None);
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
