//! Simulated time, and the events that wait for theirs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Nanoseconds since the start of the simulation.
pub(crate) type Time = u64;

/// The length of a duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> Time {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Events in the order of their times; those of one time in the order in which they were added, so that every run is
/// the same.
pub(crate) struct Events<E> {
    heap: BinaryHeap<Reverse<(Time, u64, E)>>,
    added: u64,
}

impl<E: Ord> Events<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), added: 0 }
    }

    pub(crate) fn add(&mut self, at: Time, event: E) {
        self.added += 1;
        self.heap.push(Reverse((at, self.added, event)));
    }

    /// The next event and its time.
    pub(crate) fn next(&mut self) -> Option<(Time, E)> {
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}

/// A stretch of time that is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: Time,
    pub(crate) to: Time,
}

impl Window {
    pub(crate) fn length(self) -> Time {
        self.to - self.from
    }

    pub(crate) fn has(self, at: Time) -> bool {
        (self.from..self.to).contains(&at)
    }

    /// The part of a stretch that is inside of the window.
    pub(crate) fn overlap(self, from: Time, to: Time) -> Time {
        to.min(self.to).saturating_sub(from.max(self.from))
    }
}

/// A part of the cluster that does one thing after the other: a processor or a link.
#[derive(Debug)]
pub(crate) struct Line {
    free_at: Time,
    busy: Time,
    window: Window,
}

impl Line {
    pub(crate) fn new(window: Window) -> Self {
        Self { free_at: 0, busy: 0, window }
    }

    /// Does something that takes `cost`, once all before it is done. Returns the time of its end.
    pub(crate) fn serve(&mut self, now: Time, cost: Time) -> Time {
        let from = now.max(self.free_at);
        self.free_at = from + cost;
        self.busy += self.window.overlap(from, self.free_at);
        self.free_at
    }

    /// The part of the window in which it was at work, from 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        self.busy as f64 / self.window.length() as f64
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to 1, without 1.
    pub(crate) fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or(0)
    }

    /// A time with an exponential distribution: most are shorter than the mean, a few much longer.
    pub(crate) fn exponential(&mut self, mean: Time) -> Time {
        (-(1.0 - self.part()).ln() * mean as f64) as Time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_does_one_thing_after_the_other() {
        let mut line = Line::new(Window { from: 10, to: 20 });
        assert_eq!([line.serve(0, 12), line.serve(5, 3), line.serve(30, 1)], [12, 15, 31]);
        assert_eq!(line.busy, 5, "from 10 to 15");
    }

    #[test]
    fn events_come_in_the_order_of_their_times() {
        let mut events = Events::new();
        for (at, name) in [(5, "late"), (1, "b"), (1, "a")] {
            events.add(at, name);
        }
        let order: Vec<_> = std::iter::from_fn(|| events.next()).collect();
        assert_eq!(order, [(1, "b"), (1, "a"), (5, "late")]);
    }

    #[test]
    fn chance_has_the_mean_that_it_should() {
        let mut chance = Chance::new(1);
        let sum: Time = (0..10_000).map(|_| chance.exponential(1_000)).sum();
        assert!((970..1_030).contains(&(sum / 10_000)), "{sum}");
        assert!((0..1_000).all(|_| chance.below(3) < 3));
    }
}
