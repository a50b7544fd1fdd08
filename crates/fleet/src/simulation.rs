//! The cluster at work.
//!
//! ```text
//!  ┌──────► ASKING ─────────► FETCHING ─────────► RUNNING ─────────► COPYING ──────┐
//!  │       scheduler      storage, links        the slot alone     storage, links  │
//!  │                                                                               │
//!  └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Each slot goes round, as there is always another action. Workers have warm stores: what all actions need is there, and
//! [`Cluster::cold_start`] is about the time before. A scheduler that is restarted forgets what runs, as Buildbarn's does.

use std::time::Duration;

use crate::clock::{Chance, Events, Line, Time, Window, nanos};
use crate::cluster::{Cluster, transfer};

/// The pauses of a worker between calls that fail: those of `crates/cluster/src/slot.rs`.
const PAUSE_FIRST: Time = 100_000_000;
const PAUSE_MAX: Time = 5_000_000_000;

/// The part of the former number of running actions at which a cluster counts as back.
const BACK: f64 = 0.9;

/// The end of the wait for that.
const GIVE_UP: Time = 3_600_000_000_000;

/// The times of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    /// The time for which the cluster works before it is measured.
    pub(crate) warm_up: Duration,
    /// The time for which it is measured.
    pub(crate) measured: Duration,
    /// The time for which all schedulers are away after that; zero for no restart.
    pub(crate) outage: Duration,
    pub(crate) seed: u64,
}

/// The figures of one run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// Actions whose results the scheduler has, per second.
    pub(crate) actions_a_second: f64,
    /// The part of the time in which a slot runs a command, from 0 to 1.
    pub(crate) running: f64,
    /// How busy the schedulers are, from 0 to 1.
    pub(crate) scheduler: f64,
    /// How busy the processors of the storage are, from 0 to 1.
    pub(crate) storage: f64,
    /// How busy the links of the storage are, from 0 to 1.
    pub(crate) storage_link: f64,
    /// Bytes a second into and out of the storage.
    pub(crate) storage_bytes_a_second: f64,
    /// The time for which a slot waits for the scheduler and the storage between two commands, at the median. The worker's
    /// own work and the way of the calls are not part of it.
    pub(crate) waits: Duration,
    /// The same for the slowest of a hundred.
    pub(crate) waits_p99: Duration,
    pub(crate) restart: Option<Restart>,
}

/// The cost of a restart of all schedulers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Restart {
    /// Slot time of runs that were thrown away, in seconds.
    pub(crate) lost_seconds: f64,
    /// The time from the return of the schedulers until nine tenths as many actions run as before.
    pub(crate) back_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The slot calls its scheduler, which has its result, if any.
    Asks(usize),
    /// The order is there.
    Ordered(usize),
    /// The inputs are there.
    Runs(usize),
    /// The slot tells its scheduler that the run of that number is still under way.
    ChecksIn(usize, u32),
    /// The command of the run of that number has ended.
    Ended(usize, u32),
}

#[derive(Debug, Clone, Default)]
struct Slot {
    /// The number of its run; events of another one are of the past.
    run: u32,
    /// The number of restarts of the scheduler that gave the action.
    generation: usize,
    is_running: bool,
    started: Time,
    ended: Time,
    /// A result that the scheduler does not have yet.
    has_result: bool,
    failures: u32,
}

struct Simulation<'a> {
    cluster: &'a Cluster,
    window: Window,
    outage: Option<Window>,
    chance: Chance,
    events: Events<Event>,
    slots: Vec<Slot>,
    schedulers: Vec<Line>,
    processors: Vec<Line>,
    links: Vec<Line>,
    worker_links: Vec<Line>,
    actions: u64,
    running: Time,
    /// Times between two runs, in nanoseconds.
    waits: Vec<Time>,
    /// The slots that run, by the generation of the scheduler that gave their actions.
    running_now: [usize; 2],
    running_before: usize,
    lost: Time,
    back_at: Option<Time>,
}

/// Lets the cluster work.
pub(crate) fn simulate(cluster: &Cluster, course: Course) -> Outcome {
    let from = nanos(course.warm_up);
    let window = Window { from, to: from + nanos(course.measured) };
    let outage = Window { from: window.to, to: window.to + nanos(course.outage) };
    let lines = |count: usize| (0..count).map(|_| Line::new(window)).collect::<Vec<_>>();
    let mut simulation = Simulation {
        cluster,
        window,
        outage: (outage.length() > 0).then_some(outage),
        chance: Chance::new(course.seed),
        events: Events::new(),
        slots: vec![Slot::default(); cluster.workers * cluster.slots],
        schedulers: lines(cluster.schedulers),
        processors: lines(cluster.shards),
        links: lines(cluster.shards),
        worker_links: lines(cluster.workers),
        actions: 0,
        running: 0,
        waits: Vec::new(),
        running_now: [0, 0],
        running_before: 0,
        lost: 0,
        back_at: None,
    };
    simulation.run();
    simulation.outcome()
}

impl Simulation<'_> {
    fn run(&mut self) {
        // Workers do not start all at the same moment.
        let spread = nanos(self.cluster.action.run).min(self.window.from).max(1);
        for slot in 0..self.slots.len() {
            let at = (self.chance.part() * spread as f64) as Time;
            self.events.add(at, Event::Asks(slot));
        }
        while let Some((now, event)) = self.events.next() {
            let is_over = self.outage.map_or(now >= self.window.to, |outage| {
                self.back_at.is_some() || now >= outage.to + GIVE_UP
            });
            if is_over {
                break;
            }
            match event {
                Event::Asks(slot) => self.asks(now, slot),
                Event::Ordered(slot) => self.fetches(now, slot),
                Event::Runs(slot) => self.runs(now, slot),
                Event::ChecksIn(slot, run) => self.checks_in(now, slot, run),
                Event::Ended(slot, run) => self.ended(now, slot, run),
            }
        }
    }

    fn scheduler_of(&mut self, slot: usize) -> &mut Line {
        let worker = slot / self.cluster.slots;
        &mut self.schedulers[worker % self.cluster.schedulers]
    }

    /// The number of restarts so far.
    fn generation(&self, now: Time) -> usize {
        usize::from(self.outage.is_some_and(|outage| now >= outage.from))
    }

    fn is_away(&self, now: Time) -> bool {
        self.outage.is_some_and(|outage| outage.has(now))
    }

    /// The pause before the slot calls again.
    fn pause(&mut self, slot: usize) -> Time {
        let slot = &mut self.slots[slot];
        slot.failures += 1;
        let longest = (PAUSE_FIRST << slot.failures.min(10)).min(PAUSE_MAX);
        longest / 2 + (self.chance.part() * longest as f64 / 2.0) as Time
    }

    fn asks(&mut self, now: Time, slot: usize) {
        if self.is_away(now) {
            let again = now + self.pause(slot);
            return self.events.add(again, Event::Asks(slot));
        }
        let generation = self.generation(now);
        let state = &mut self.slots[slot];
        state.failures = 0;
        let has_result = std::mem::take(&mut state.has_result);
        if has_result && state.generation == generation {
            self.actions += u64::from(self.window.has(now));
        } else if has_result {
            self.lost += state.ended - state.started;
        }
        self.slots[slot].generation = generation;
        let cost = self.cluster.scheduler_time(self.cluster.action.scheduler);
        let at = self.scheduler_of(slot).serve(now, cost);
        self.events.add(at, Event::Ordered(slot));
    }

    /// Moves bytes between a machine of the storage and, but for those of clients, the worker of the slot.
    fn moves(&mut self, now: Time, slot: usize, bytes: u64, of_clients: u64) -> Time {
        let cluster = self.cluster;
        let shard = self.chance.below(cluster.shards);
        // An action has calls before and after its run.
        let cost = cluster.shard_time(cluster.action.storage / 2, bytes + of_clients);
        let processed = self.processors[shard].serve(now, cost);
        let sent = self.links[shard].serve(now, transfer(bytes + of_clients, cluster.shard_link));
        let link = &mut self.worker_links[slot / cluster.slots];
        let received = link.serve(now, transfer(bytes, cluster.worker_link));
        processed.max(sent).max(received)
    }

    fn fetches(&mut self, now: Time, slot: usize) {
        let action = &self.cluster.action;
        let at = self.moves(now, slot, action.input_bytes, action.client_bytes / 2);
        self.events.add(at, Event::Runs(slot));
    }

    fn runs(&mut self, now: Time, slot: usize) {
        let mean = nanos(self.cluster.action.run);
        let ends = now + self.chance.exponential(mean).max(1);
        let state = &mut self.slots[slot];
        if state.ended > 0 && self.window.has(now) {
            self.waits.push(now - state.ended);
        }
        state.run += 1;
        (state.started, state.is_running) = (now, true);
        let (run, generation) = (state.run, state.generation);
        self.events.add(ends, Event::Ended(slot, run));
        let next = now + nanos(self.cluster.action.check_in_every);
        if next < ends {
            self.events.add(next, Event::ChecksIn(slot, run));
        }
        self.running_now[generation] += 1;
        self.look(now);
    }

    /// Looks how many actions run.
    fn look(&mut self, now: Time) {
        let [before, current] = self.running_now;
        if now < self.window.to {
            self.running_before = before;
        } else if self.outage.is_some_and(|outage| now >= outage.to)
            && current as f64 >= self.running_before as f64 * BACK
        {
            self.back_at.get_or_insert(now);
        }
    }

    fn checks_in(&mut self, now: Time, slot: usize, run: u32) {
        let state = &self.slots[slot];
        if state.run != run || !state.is_running {
            return;
        }
        if self.is_away(now) {
            let again = now + self.pause(slot);
            return self.events.add(again, Event::ChecksIn(slot, run));
        }
        let is_wanted = state.generation == self.generation(now);
        let cost = self.cluster.scheduler_time(self.cluster.action.check_in);
        let answered = self.scheduler_of(slot).serve(now, cost);
        if is_wanted {
            let next = answered + nanos(self.cluster.action.check_in_every);
            return self.events.add(next, Event::ChecksIn(slot, run));
        }
        self.stops(now, slot);
        self.lost += now - self.slots[slot].started;
        self.events.add(answered, Event::Asks(slot));
    }

    fn stops(&mut self, now: Time, slot: usize) {
        let state = &mut self.slots[slot];
        self.running += self.window.overlap(state.started, now);
        (state.is_running, state.ended) = (false, now);
        // A check-in of this run that is still to come is of the past.
        state.run += 1;
        let generation = state.generation;
        self.running_now[generation] -= 1;
    }

    fn ended(&mut self, now: Time, slot: usize, run: u32) {
        let state = &self.slots[slot];
        if state.run != run || !state.is_running {
            return;
        }
        self.stops(now, slot);
        self.slots[slot].has_result = true;
        let action = &self.cluster.action;
        let at = self.moves(now, slot, action.output_bytes, action.client_bytes / 2);
        self.events.add(at, Event::Asks(slot));
    }

    fn outcome(mut self) -> Outcome {
        let seconds = self.window.length() as f64 / 1e9;
        // Those that run on.
        for state in self.slots.iter().filter(|state| state.is_running) {
            self.running += self.window.overlap(state.started, self.window.to);
        }
        let slot_time = self.slots.len() as f64 * self.window.length() as f64;
        let action = &self.cluster.action;
        let bytes = action.input_bytes + action.output_bytes + action.client_bytes;
        let actions_a_second = self.actions as f64 / seconds;
        self.waits.sort_unstable();
        let outage = self.outage;
        Outcome {
            actions_a_second,
            running: self.running as f64 / slot_time,
            scheduler: mean_share(&self.schedulers),
            storage: mean_share(&self.processors),
            storage_link: mean_share(&self.links),
            storage_bytes_a_second: actions_a_second * bytes as f64,
            waits: quantile(&self.waits, 0.5),
            waits_p99: quantile(&self.waits, 0.99),
            restart: outage.map(|outage| Restart {
                lost_seconds: self.lost as f64 / 1e9,
                back_after: Duration::from_nanos(
                    self.back_at.unwrap_or(outage.to + GIVE_UP) - outage.to,
                ),
            }),
        }
    }
}

fn mean_share(lines: &[Line]) -> f64 {
    lines.iter().map(Line::share).sum::<f64>() / lines.len().max(1) as f64
}

fn quantile(sorted: &[Time], part: f64) -> Duration {
    let index = (sorted.len() as f64 * part) as usize;
    Duration::from_nanos(sorted.get(index).or(sorted.last()).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::tests::cluster;
    use crate::cluster::Action;

    const COURSE: Course = Course {
        warm_up: Duration::from_secs(60),
        measured: Duration::from_secs(120),
        outage: Duration::ZERO,
        seed: 1,
    };

    /// An action of a second that asks the scheduler for 1 ms of its one core, and nothing of the storage.
    fn only_scheduled(workers: usize) -> Cluster {
        let cluster = cluster(workers);
        let action = Action {
            run: Duration::from_secs(1),
            scheduler: Duration::from_millis(1),
            check_in: Duration::ZERO,
            storage: Duration::ZERO,
            storage_mib: Duration::ZERO,
            input_bytes: 0,
            output_bytes: 0,
            client_bytes: 0,
            ..cluster.action
        };
        Cluster { scheduler_cores: 1.0, schedulers: 1, slots: 10, action, ..cluster }
    }

    fn close_to(found: f64, expected: f64) -> bool {
        (found - expected).abs() < expected * 0.05
    }

    #[test]
    fn a_small_fleet_runs_as_many_actions_as_it_has_slots() {
        let outcome = simulate(&only_scheduled(10), COURSE);
        assert!(close_to(outcome.actions_a_second, 100.0), "{outcome:?}");
        assert!(close_to(outcome.scheduler, 0.1), "{outcome:?}");
        assert!(outcome.running > 0.99 && outcome.waits < Duration::from_millis(2), "{outcome:?}");
    }

    #[test]
    fn a_large_fleet_runs_as_many_as_its_scheduler_can_give() {
        let one = simulate(&only_scheduled(1_000), COURSE);
        assert!(close_to(one.actions_a_second, 1_000.0) && one.scheduler > 0.99, "{one:?}");
        // 10,000 slots share 1,000 actions a second, so that each waits 9 of 10 s.
        assert!(close_to(one.running, 0.1) && close_to(one.waits.as_secs_f64(), 9.0), "{one:?}");
        let four = simulate(&Cluster { schedulers: 4, ..only_scheduled(1_000) }, COURSE);
        assert!(close_to(four.actions_a_second, 4_000.0), "{four:?}");
    }

    #[test]
    fn every_byte_goes_over_the_links_of_the_storage() {
        let mut cluster = only_scheduled(10);
        cluster.shards = 2;
        cluster.shard_link = 100_000_000;
        cluster.action.input_bytes = 600_000;
        cluster.action.client_bytes = 200_000;
        cluster.action.output_bytes = 200_000;
        let outcome = simulate(&cluster, COURSE);
        let rate = outcome.actions_a_second;
        assert!(close_to(outcome.storage_link, rate * 1e6 / 200e6), "{outcome:?}");
        assert!(close_to(outcome.storage_bytes_a_second, rate * 1e6), "{outcome:?}");
        // Ten times the bytes are more than the links can move.
        cluster.action.input_bytes *= 20;
        let outcome = simulate(&cluster, COURSE);
        assert!(outcome.storage_link > 0.95 && outcome.running < 0.5, "{outcome:?}");
    }

    #[test]
    fn a_run_is_the_same_every_time() {
        let cluster = cluster(10);
        assert_eq!(simulate(&cluster, COURSE), simulate(&cluster, COURSE));
        assert_ne!(
            simulate(&cluster, COURSE).actions_a_second,
            simulate(&cluster, Course { seed: 2, ..COURSE }).actions_a_second
        );
    }

    #[test]
    fn a_restart_of_the_scheduler_loses_what_runs_and_no_more() {
        let mut cluster = only_scheduled(10);
        cluster.action.run = Duration::from_secs(20);
        let course = Course { outage: Duration::from_secs(10), ..COURSE };
        let restart = simulate(&cluster, course).restart.unwrap();
        // A run has lasted 20 s at the mean when the scheduler goes, and lasts until the worker has called again.
        assert!((1_500.0..4_500.0).contains(&restart.lost_seconds), "{restart:?}");
        assert!(restart.back_after < Duration::from_secs(16), "{restart:?}");
        assert!(simulate(&cluster, COURSE).restart.is_none());
    }
}
