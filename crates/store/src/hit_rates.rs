//! Hit rates of the order of eviction beside those of other orders, on a trace of some days of work.
//!
//! The trace is made, not recorded, so that it is the same everywhere: a repository of actions in layers,
//! developers who edit some files of their area and build it, a build of everything for each merge, and
//! every night builds in configurations that nobody else uses. `docs/storage-format.md` has the
//! table that the test prints:
//!
//! ```sh
//! cargo test -p store hit_rates -- --nocapture
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::recency::{Tick, Usage};

const SECOND: Tick = 10;
const MINUTE: Tick = 60 * SECOND;
const HOUR: Tick = 60 * MINUTE;
const DAY: Tick = 24 * HOUR;
const LEASE: Tick = 3 * HOUR;
/// When the trace begins. Any time does.
const START: Tick = 10 * DAY;

const DAYS: Tick = 3;
const DEVELOPERS: usize = 8;
const LAYERS: usize = 6;
const ACTIONS_PER_LAYER: usize = 40;
const ACTIONS: usize = LAYERS * ACTIONS_PER_LAYER;
/// Every action has a source file of its own, and reads some of others.
const SOURCES: usize = ACTIONS;
/// Configurations beside the one that everybody builds.
const NIGHTLY: u64 = 3;

/// A generator of numbers, the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

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
    inputs: Vec<Object>,
}

/// An action of the repository: the sources and the actions of the layer below that it reads.
struct Rule {
    sources: Vec<usize>,
    needs: Vec<usize>,
    output_sizes: Vec<u64>,
}

fn repository(numbers: &mut Numbers) -> Vec<Rule> {
    let rule = |number: usize| {
        let (layer, place) = (number / ACTIONS_PER_LAYER, number % ACTIONS_PER_LAYER);
        let mut sources = vec![number];
        sources.extend((0..2).map(|_| numbers.below(SOURCES / 8)));
        let mut near = || (place + numbers.below(5)) % ACTIONS_PER_LAYER;
        let needs = match layer {
            0 => Vec::new(),
            _ => (0..3).map(|_| (layer - 1) * ACTIONS_PER_LAYER + near()).collect(),
        };
        // Object files in most layers, programs in the last one.
        let scale = if layer + 1 == LAYERS { 3 << 20 } else { 40 << 10 };
        let output_sizes = (0..=numbers.below(2)).map(|_| 1 + numbers.below(2 * scale) as u64);
        Rule { sources, needs, output_sizes: output_sizes.collect() }
    };
    (0..ACTIONS).map(rule).collect()
}

/// Somebody's state of the source files, as a number for each.
type Sources = Vec<u64>;

struct Work {
    rules: Vec<Rule>,
    numbers: Numbers,
    trace: Vec<Lookup>,
}

impl Work {
    /// Builds these actions of the last layer and what they need.
    fn build(&mut self, mut at: Tick, sources: &Sources, configuration: u64, top: &[usize]) {
        let mut is_needed = vec![false; ACTIONS];
        top.iter().for_each(|action| is_needed[*action] = true);
        for action in (0..ACTIONS).rev().filter(|action| action / ACTIONS_PER_LAYER > 0) {
            if is_needed[action] {
                self.rules[action].needs.iter().for_each(|need| is_needed[*need] = true);
            }
        }
        let mut made: Vec<Vec<Object>> = vec![Vec::new(); ACTIONS];
        for action in (0..ACTIONS).filter(|action| is_needed[*action]) {
            let rule = &self.rules[action];
            let source = |file: &usize| {
                let id = hash(("source", file, sources[*file]));
                Object::new(id, 1 + id % (20 << 10))
            };
            let mut inputs: Vec<_> = rule.sources.iter().map(source).collect();
            inputs.extend(rule.needs.iter().flat_map(|need| &made[*need]));
            let ids: Vec<_> = inputs.iter().map(|input| input.id).collect();
            let key = hash((action, configuration, ids));
            let outputs = rule.output_sizes.iter().zip(0..);
            let outputs = outputs.map(|(size, n)| Object::new(hash((key, n)), *size));
            made[action] = outputs.collect();
            let makes = [Object::new(key, 1000)].into_iter().chain(made[action].iter().copied());
            at += SECOND / 5;
            self.trace.push(Lookup { at, makes: makes.collect(), inputs });
        }
    }

    fn edit(&mut self, sources: &mut Sources, area: usize) {
        for _ in 0..=self.numbers.below(2) {
            let width = ACTIONS_PER_LAYER / DEVELOPERS;
            let file = self.numbers.below(LAYERS) * ACTIONS_PER_LAYER
                + (area * width + self.numbers.below(width)) % ACTIONS_PER_LAYER;
            sources[file] = self.numbers.below(usize::MAX) as u64;
        }
    }
}

/// The lookups of some days, in the order of time.
fn trace() -> Vec<Lookup> {
    let mut numbers = Numbers(0x5eed);
    let rules = repository(&mut numbers);
    let mut work = Work { rules, numbers, trace: Vec::new() };
    let everything: Vec<_> = (ACTIONS - ACTIONS_PER_LAYER..ACTIONS).collect();
    let mut main: Sources = vec![0; SOURCES];
    let mut theirs = vec![main.clone(); DEVELOPERS];
    for day in 0..DAYS {
        let morning = START + day * DAY;
        // Ten hours of work, then the night.
        for quarter in 0..40 {
            let at = morning + quarter * 15 * MINUTE;
            for (developer, sources) in theirs.iter_mut().enumerate() {
                if work.numbers.below(3) > 0 {
                    continue;
                }
                work.edit(sources, developer);
                let width = ACTIONS_PER_LAYER / DEVELOPERS;
                let first = ACTIONS - ACTIONS_PER_LAYER + developer * width;
                let area: Vec<_> = (first..first + width).collect();
                let delay = work.numbers.below(10) as Tick * MINUTE;
                work.build(at + delay, sources, 0, &area);
            }
            if quarter % 4 == 3 {
                // A merge: main has the edits of one developer, and the developer has main.
                let developer = work.numbers.below(DEVELOPERS);
                let area = developer * (ACTIONS_PER_LAYER / DEVELOPERS);
                for (file, version) in theirs[developer].iter().enumerate() {
                    let place = file % ACTIONS_PER_LAYER;
                    if (area..area + ACTIONS_PER_LAYER / DEVELOPERS).contains(&place) {
                        main[file] = *version;
                    }
                }
                work.build(at + 12 * MINUTE, &main, 0, &everything);
                theirs[developer] = main.clone();
            }
        }
        for configuration in 1..=NIGHTLY {
            // With the date in it, as many such builds have.
            let configuration = hash((configuration, day));
            work.build(morning + 17 * HOUR, &main, configuration, &everything);
        }
        theirs.iter_mut().for_each(|sources| *sources = main.clone());
    }
    work.trace.sort_by_key(|lookup| lookup.at);
    work.trace
}

/// A cache with an order of eviction.
trait Cache {
    /// Notes a use; false if the object is not there.
    fn touch(&mut self, id: u64, now: Tick) -> bool;
    /// Adds an object that is not there, and evicts others for it.
    fn insert(&mut self, object: Object, now: Tick);
}

/// The order of this store.
struct Ours {
    limit: u64,
    used: u64,
    objects: HashMap<u64, (Usage, u64)>,
}

impl Cache for Ours {
    fn touch(&mut self, id: u64, now: Tick) -> bool {
        self.objects.get_mut(&id).map(|(usage, _)| usage.touch(now)).is_some()
    }

    fn insert(&mut self, object: Object, now: Tick) {
        self.objects.insert(object.id, (Usage::first(now), object.cost));
        self.used += object.cost;
        if self.used <= self.limit - self.limit / 64 {
            return;
        }
        // One pass, as the evictor makes it.
        let rank = |(id, (usage, cost)): (&u64, &(Usage, u64))| {
            (usage.rank(now, LEASE), hash(id), *id, *cost)
        };
        let mut ranked: Vec<_> = self.objects.iter().map(rank).collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        for (_, _, id, cost) in ranked {
            if self.used <= self.limit - self.limit / 32 {
                break;
            }
            self.objects.remove(&id);
            self.used -= cost;
        }
    }
}

/// Least recently used; without a limit, a store that never evicts.
#[derive(Default)]
struct Lru {
    limit: u64,
    used: u64,
    uses: u64,
    objects: HashMap<u64, (u64, u64)>,
    order: BTreeMap<u64, u64>,
}

impl Cache for Lru {
    fn touch(&mut self, id: u64, _: Tick) -> bool {
        let Some((last, _)) = self.objects.get_mut(&id) else { return false };
        self.uses += 1;
        self.order.remove(last);
        self.order.insert(self.uses, id);
        *last = self.uses;
        true
    }

    fn insert(&mut self, object: Object, _: Tick) {
        self.uses += 1;
        self.objects.insert(object.id, (self.uses, object.cost));
        self.order.insert(self.uses, object.id);
        self.used += object.cost;
        while self.used > self.limit {
            let (_, id) = self.order.pop_first().expect("what is used is in the order");
            let (_, cost) = self.objects.remove(&id).expect("and there");
            self.used -= cost;
        }
    }
}

/// S3-FIFO as its paper has it: a small queue of a tenth, a main queue, and a ghost queue.
#[derive(Default)]
struct S3Fifo {
    limit: u64,
    small_used: u64,
    main_used: u64,
    /// The uses since the last look, at most 3, and the cost.
    objects: HashMap<u64, (u8, u64)>,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghost: VecDeque<u64>,
    ghosts: HashMap<u64, ()>,
}

impl S3Fifo {
    fn evict_from_small(&mut self) {
        let Some(id) = self.small.pop_front() else { return };
        let (uses, cost) = self.objects[&id];
        self.small_used -= cost;
        if uses > 1 {
            self.main.push_back(id);
            self.main_used += cost;
            self.objects.insert(id, (0, cost));
            return;
        }
        self.objects.remove(&id);
        self.ghost.push_back(id);
        self.ghosts.insert(id, ());
        if self.ghost.len() > self.objects.len()
            && let Some(oldest) = self.ghost.pop_front()
        {
            self.ghosts.remove(&oldest);
        }
    }

    fn evict_from_main(&mut self) {
        let Some(id) = self.main.pop_front() else { return };
        let (uses, cost) = self.objects[&id];
        if uses > 0 {
            self.objects.insert(id, (uses - 1, cost));
            self.main.push_back(id);
        } else {
            self.objects.remove(&id);
            self.main_used -= cost;
        }
    }
}

impl Cache for S3Fifo {
    fn touch(&mut self, id: u64, _: Tick) -> bool {
        self.objects.get_mut(&id).map(|(uses, _)| *uses = (*uses + 1).min(3)).is_some()
    }

    fn insert(&mut self, object: Object, _: Tick) {
        self.objects.insert(object.id, (0, object.cost));
        if self.ghosts.remove(&object.id).is_some() {
            self.main.push_back(object.id);
            self.main_used += object.cost;
        } else {
            self.small.push_back(object.id);
            self.small_used += object.cost;
        }
        while self.small_used + self.main_used > self.limit {
            if self.small_used > self.limit / 10 || self.main.is_empty() {
                self.evict_from_small();
            } else {
                self.evict_from_main();
            }
        }
    }
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
    for lookup in trace {
        outcome.lookups += 1;
        let makes = &lookup.makes;
        if makes.iter().filter(|object| cache.touch(object.id, lookup.at)).count() == makes.len() {
            outcome.hits += 1;
            continue;
        }
        for (object, is_output) in lookup.inputs.iter().zip((0..).map(|number| number > 2)) {
            if !cache.touch(object.id, lookup.at) {
                outcome.lost_inputs += u64::from(is_output);
                cache.insert(*object, lookup.at);
            }
        }
        for object in makes {
            if !cache.touch(object.id, lookup.at) {
                cache.insert(*object, lookup.at);
            }
        }
    }
    outcome
}

#[test]
fn hit_rates_of_the_order_of_eviction() {
    let trace = trace();
    let mut unbounded = Lru { limit: u64::MAX, ..Lru::default() };
    let best = play(&trace, &mut unbounded);
    let all = unbounded.used;
    println!(
        "{} lookups, {} MiB: unbounded {:.1} %",
        best.lookups,
        all >> 20,
        100.0 * best.hit_rate()
    );
    for share in [5, 10, 20] {
        let limit = all / 100 * share;
        let ours = play(&trace, &mut Ours { limit, used: 0, objects: HashMap::new() });
        let lru = play(&trace, &mut Lru { limit, ..Lru::default() });
        let s3_fifo = play(&trace, &mut S3Fifo { limit, ..S3Fifo::default() });
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
        assert!(ours.hits * 100 >= lru.hits * 97, "the order is worse than LRU");
    }
}
