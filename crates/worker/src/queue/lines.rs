//! Waiting items in order: by priority, and clients in turns within one.

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
    pub(super) since: Instant,
}

/// The place of the first item of a client's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    priority: i32,
    /// The client's index among those of the priority.
    turn: usize,
}

/// Items of all priorities.
#[derive(Debug)]
pub(super) struct Lines<T> {
    levels: BTreeMap<i32, Level<T>>,
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
    lines: HashMap<Arc<str>, VecDeque<Waiting<T>>>,
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), lines: HashMap::new() }
    }
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self { levels: BTreeMap::new(), taken: 0, last_round: i32::MAX }
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
        line.push_back(waiting);
    }

    /// The item whose turn it is.
    pub(super) fn next(&self) -> Option<&Waiting<T>> {
        self.levels.get(&self.next_priority()?)?.first_of(0)
    }

    /// Takes the item whose turn it is, and its client.
    pub(super) fn take(&mut self) -> Option<(Arc<str>, Waiting<T>)> {
        let priority = self.next_priority()?;
        if self.is_round() {
            self.last_round = priority;
        }
        let taken = self.take_at(Place { priority, turn: 0 });
        self.taken += 1;
        taken
    }

    /// The place of the item that is due first, and when it is due: each after `wait`. Looks at the first item of each
    /// client, if it `may_go`.
    pub(super) fn first_due(
        &self,
        wait: Duration,
        may_go: impl Fn(&T) -> bool,
    ) -> Option<(Place, Instant)> {
        let firsts = self.levels.iter().flat_map(|(priority, level)| {
            let places = (0..level.turns.len()).map(|turn| Place { priority: *priority, turn });
            places.filter_map(|place| Some((place, level.first_of(place.turn)?)))
        });
        let (place, first) = firsts
            .filter(|(_, waiting)| may_go(&waiting.item))
            .min_by_key(|(_, waiting)| waiting.since)?;
        // A time that no clock reaches never comes.
        Some((place, first.since.checked_add(wait)?))
    }

    /// Takes an item out of turn, and its client.
    pub(super) fn take_at(&mut self, place: Place) -> Option<(Arc<str>, Waiting<T>)> {
        let level = self.levels.get_mut(&place.priority)?;
        let client = level.turns.remove(place.turn)?;
        let line = level.lines.get_mut(&client)?;
        let waiting = line.pop_front()?;
        if line.is_empty() {
            level.lines.remove(&client);
        } else {
            level.turns.push_back(Arc::clone(&client));
        }
        if level.turns.is_empty() {
            self.levels.remove(&place.priority);
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

impl<T> Level<T> {
    fn first_of(&self, turn: usize) -> Option<&Waiting<T>> {
        self.lines.get(self.turns.get(turn)?)?.front()
    }
}
