//! Hit rates of the order of eviction beside those of other orders, on a trace of some days of work.
//!
//! One trace is recorded from Bazel, which is small; the other is made, of any size that one wants.
//! `docs/storage-format.md` has the tables that the tests print:
//!
//! ```sh
//! cargo test -p store hit_rates -- --nocapture
//! ```

mod caches;
mod made;
mod recorded;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use caches::{Cache, Lru, Ours, S3Fifo};

use crate::recency::Tick;

const SECOND: Tick = 10;
const MINUTE: Tick = 60 * SECOND;
const HOUR: Tick = 60 * MINUTE;
const DAY: Tick = 24 * HOUR;
const LEASE: Tick = 3 * HOUR;
/// When the trace begins. Any time does.
const START: Tick = 10 * DAY;

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A blob or a cached result, and the disk space that it takes.
#[derive(Debug, Clone, Copy)]
struct Object {
    id: u64,
    cost: u64,
}

impl Object {
    fn new(id: u64, size: u64) -> Self {
        Self { id, cost: size.next_multiple_of(4096) + 512 }
    }
}

/// A client asks for the result of an action, and runs the action on a miss.
struct Lookup {
    at: Tick,
    /// The cached result, then the outputs.
    makes: Vec<Object>,
    inputs: Vec<Input>,
}

/// A file that an action reads.
#[derive(Debug, Clone, Copy)]
struct Input {
    object: Object,
    /// Whether another action made it, so that no client can upload it again.
    is_output: bool,
}

/// The outcome of a trace.
#[derive(Debug, Default)]
struct Outcome {
    lookups: u64,
    hits: u64,
    /// Outputs of earlier actions that were gone when they were inputs, so that their action ran again.
    lost_inputs: u64,
}

impl Outcome {
    fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.lookups as f64
    }
}

/// Plays a trace. As the server does, a hit touches the result and all that it names, and an
/// action that runs touches its inputs.
fn play(trace: &[Lookup], cache: &mut dyn Cache) -> Outcome {
    let mut outcome = Outcome::default();
    let mut stored = HashSet::new();
    for lookup in trace {
        outcome.lookups += 1;
        let makes = &lookup.makes;
        if makes.iter().filter(|object| cache.touch(object.id, lookup.at)).count() == makes.len() {
            outcome.hits += 1;
            continue;
        }
        for Input { object, is_output } in &lookup.inputs {
            if !cache.touch(object.id, lookup.at) {
                // An input that was never stored is a file that the client has and another action makes later.
                outcome.lost_inputs += u64::from(*is_output && stored.contains(&object.id));
                stored.insert(object.id);
                cache.insert(*object, lookup.at);
            }
        }
        for object in makes {
            stored.insert(object.id);
            if !cache.touch(object.id, lookup.at) {
                cache.insert(*object, lookup.at);
            }
        }
    }
    outcome
}

/// Plays a trace against all orders, with limits of that many percent of all that is stored. Prints what comes of it,
/// and returns the outcome without a limit.
fn compare(trace: &[Lookup], shares: &[u64]) -> Outcome {
    let mut unbounded = Lru::new(u64::MAX);
    let best = play(trace, &mut unbounded);
    let all = unbounded.used();
    println!(
        "{} lookups, {} MiB: unbounded {:.1} %",
        best.lookups,
        all >> 20,
        100.0 * best.hit_rate()
    );
    for share in shares {
        let limit = all / 100 * share;
        let ours = play(trace, &mut Ours::new(limit));
        let lru = play(trace, &mut Lru::new(limit));
        let s3_fifo = play(trace, &mut S3Fifo::new(limit));
        let show = |outcome: &Outcome| {
            format!("{:.1} % ({} lost inputs)", 100.0 * outcome.hit_rate(), outcome.lost_inputs)
        };
        println!(
            "limit {share} %: ours {}, LRU {}, S3-FIFO {}",
            show(&ours),
            show(&lru),
            show(&s3_fifo)
        );
        assert!(best.hits >= ours.hits, "nothing beats a store that keeps everything");
        // Where LRU finds less than a tenth, one percent of the lookups is the measure.
        let slack = if lru.hits * 10 < lru.lookups { lru.lookups } else { 0 };
        let is_close = ours.hits * 100 + slack >= lru.hits * 97;
        assert!(is_close, "{share} %: the order is worse than LRU");
    }
    best
}

#[test]
fn hit_rates_of_a_made_trace() {
    compare(&made::trace(), &[5, 10, 20]);
}

#[test]
fn hit_rates_of_a_recorded_trace() {
    let trace = recorded::trace();
    // The first limit is less than one build of everything needs.
    let best = compare(&trace.lookups, &[10, 20, 30, 50]);
    // The server had no limit when it was recorded.
    assert!(best.lookups > 1000, "the trace is not there");
    assert_eq!(best.hits, trace.hits, "the trace is not what Bazel saw");
}
