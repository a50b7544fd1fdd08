//! A trace of some days of work that is made, so that it is of any size that one wants: a repository of actions in
//! layers, developers who edit some files of their area and build it, a build of everything for each merge, and every
//! night builds in configurations that nobody else uses.

use super::{DAY, HOUR, Input, Lookup, MINUTE, Object, SECOND, START, hash};
use crate::recency::Tick;

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
            let source = |file| Input { object: source(file), is_output: false };
            let output = |object: &Object| Input { object: *object, is_output: true };
            let mut inputs: Vec<_> = rule.sources.iter().map(source).collect();
            inputs.extend(rule.needs.iter().flat_map(|need| &made[*need]).map(output));
            let ids: Vec<_> = inputs.iter().map(|input| input.object.id).collect();
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
pub(super) fn trace() -> Vec<Lookup> {
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
