//! Waiting items in order: by priority, and clients in turns within one. Items that may leave are found by their age as
//! well, without a look at the others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Demand;

/// One of so many items is taken without regard to its priority.
const TURNS: u64 = 4;

/// An item that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) item: T,
    pub(super) bytes: u64,
    pub(super) demand: Demand,
}

/// The number of an item, in the order in which they came.
pub(super) type Number = u64;

/// An item that may leave, and where it stands.
#[derive(Debug)]
struct Departure {
    since: Instant,
    priority: i32,
    client: Arc<str>,
}

/// Items of all priorities.
#[derive(Debug)]
pub(super) struct Lines<T> {
    levels: BTreeMap<i32, Level<T>>,
    /// The items that may leave, the oldest first.
    departures: BTreeMap<Number, Departure>,
    /// Items that came so far.
    appended: Number,
    /// Items that were taken in turn so far.
    taken: u64,
    /// The priority that was served last without regard to urgency.
    last_round: i32,
}

/// The items of one priority.
#[derive(Debug)]
struct Level<T> {
    /// Each client that has items, the next one first.
    turns: VecDeque<Arc<str>>,
    lines: HashMap<Arc<str>, VecDeque<(Number, Waiting<T>)>>,
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), lines: HashMap::new() }
    }
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self {
            levels: BTreeMap::new(),
            departures: BTreeMap::new(),
            appended: 0,
            taken: 0,
            last_round: i32::MAX,
        }
    }
}

impl<T> Lines<T> {
    /// Appends an item to the line of its client.
    pub(super) fn append(&mut self, priority: i32, client: Arc<str>, waiting: Waiting<T>) {
        let level = self.levels.entry(priority).or_default();
        let line = level.lines.entry(Arc::clone(&client)).or_default();
        if line.is_empty() {
            level.turns.push_back(client);
        }
        line.push_back((self.appended, waiting));
        self.appended += 1;
    }

    /// Appends an item that may leave before its turn.
    pub(super) fn append_leaving(&mut self, priority: i32, client: Arc<str>, waiting: Waiting<T>) {
        let departure = Departure { since: Instant::now(), priority, client: Arc::clone(&client) };
        self.departures.insert(self.appended, departure);
        self.append(priority, client, waiting);
    }

    /// The item whose turn it is.
    pub(super) fn next(&self) -> Option<&Waiting<T>> {
        let level = self.levels.get(&self.next_priority()?)?;
        level.lines.get(level.turns.front()?)?.front().map(|(_, waiting)| waiting)
    }

    /// Takes the item whose turn it is, and its client.
    pub(super) fn take(&mut self) -> Option<(Arc<str>, Waiting<T>)> {
        let priority = self.next_priority()?;
        if self.is_round() {
            self.last_round = priority;
        }
        self.taken += 1;
        let level = self.levels.get_mut(&priority)?;
        let client = level.turns.pop_front()?;
        let line = level.lines.get_mut(&client)?;
        let (number, waiting) = line.pop_front()?;
        if line.is_empty() {
            level.lines.remove(&client);
        } else {
            level.turns.push_back(Arc::clone(&client));
        }
        if level.turns.is_empty() {
            self.levels.remove(&priority);
        }
        if !self.departures.is_empty() {
            self.departures.remove(&number);
        }
        Some((client, waiting))
    }

    /// The item that is due first of those that may leave, and when it is due: each after `wait`.
    pub(super) fn first_due(&self, wait: Duration) -> Option<(Number, Instant)> {
        let (number, departure) = self.departures.first_key_value()?;
        // A time that no clock reaches never comes.
        Some((*number, departure.since.checked_add(wait)?))
    }

    /// Takes an item that may leave, and its client. It costs that client no turn.
    pub(super) fn take_leaving(&mut self, number: Number) -> Option<(Arc<str>, Waiting<T>)> {
        let Departure { priority, client, since: _ } = self.departures.remove(&number)?;
        let level = self.levels.get_mut(&priority)?;
        let line = level.lines.get_mut(&client)?;
        let index = line.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, waiting) = line.remove(index)?;
        if line.is_empty() {
            level.lines.remove(&client);
            level.turns.retain(|other| *other != client);
        }
        if level.turns.is_empty() {
            self.levels.remove(&priority);
        }
        Some((client, waiting))
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
}
