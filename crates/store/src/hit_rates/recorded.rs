//! The trace that `cargo xtask e2e bazel --suite day` recorded. `xtask/src/e2e/bazel/day/trace.rs` has its form.

use super::{Input, Lookup, Object, SECOND, START, hash};
use crate::recency::Tick;

const TEXT: &str = include_str!("recorded.trace");
/// The size of a cached result, which Bazel does not tell: a few names and digests.
const RESULT_BYTES: u64 = 600;

/// A recorded trace.
pub(super) struct Recorded {
    pub(super) lookups: Vec<Lookup>,
    /// The hits that Bazel saw.
    pub(super) hits: u64,
}

/// An action of a trace, as numbers of blobs.
struct Action {
    outputs: Vec<usize>,
    inputs: Vec<usize>,
}

pub(super) fn trace() -> Recorded {
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let numbers = |text: &str| match text {
        "-" => Vec::new(),
        text => text.split(',').map(number).collect(),
    };
    let (mut sizes, mut actions) = (Vec::new(), Vec::<Action>::new());
    let mut recorded = Recorded { lookups: Vec::new(), hits: 0 };
    // A blob may be an output of one action long before another one reads it.
    let mut is_output = Vec::new();
    for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        match words.next() {
            Some("blob") => {
                sizes.push(number(words.next().expect("a size")) as u64);
                is_output.push(false);
            }
            Some("action") => {
                let mut list = || numbers(words.next().expect("a list"));
                let action = Action { outputs: list(), inputs: list() };
                action.outputs.iter().for_each(|blob| is_output[*blob] = true);
                actions.push(action);
            }
            Some("build") => {
                let seconds = number(words.next().expect("a time")) as Tick;
                for (word, place) in words.zip(0..) {
                    recorded.hits += u64::from(word.starts_with('+'));
                    let index = number(word.trim_start_matches('+'));
                    let action = &actions[index];
                    let blob = |blob: &usize| Object::new(hash(("blob", blob)), sizes[*blob]);
                    let input = |it: &usize| Input { object: blob(it), is_output: is_output[*it] };
                    let result = Object::new(hash(("action", index)), RESULT_BYTES);
                    recorded.lookups.push(Lookup {
                        // Some tens of actions end in a second.
                        at: START + seconds * SECOND + place / 2,
                        makes: [result]
                            .into_iter()
                            .chain(action.outputs.iter().map(blob))
                            .collect(),
                        inputs: action.inputs.iter().map(input).collect(),
                    });
                }
            }
            _ => panic!("a line of another kind: {line}"),
        }
    }
    recorded.lookups.sort_by_key(|lookup| lookup.at);
    recorded
}
