//! From rules to a classic BPF program (linux/filter.h, seccomp(2)).
//!
//! The line of all call numbers is cut into intervals with one rule each, and a
//! balanced tree of "greater or equal" tests finds the interval: seven or eight
//! tests for a call, where a list would take sixty.

use sys::call::Instruction;

use super::policy::{ABSENT, ALLOW, LAST_REVIEWED, POLICY, Rule, SET_UP, Test};
use super::table::Architecture;

/// Load a 32-bit word of `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
/// Go on after so many instructions.
pub(super) const JUMP: u16 = 0x05;
/// Compare with the operand: equal, greater or equal, any bit in common.
pub(super) const IF_EQUAL: u16 = 0x15;
pub(super) const IF_NOT_BELOW: u16 = 0x35;
pub(super) const IF_ANY_BIT: u16 = 0x45;
/// Answer with the operand.
pub(super) const RETURN: u16 = 0x06;

/// Answers of seccomp(2).
pub(super) const RET_ALLOW: u32 = 0x7fff_0000;
pub(super) const RET_ERRNO: u32 = 0x0005_0000;
pub(super) const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// Offsets in `struct seccomp_data`; both machines are little endian, so the lower
/// half of an argument comes first.
pub(super) const AT_NUMBER: u32 = 0;
pub(super) const AT_ARCHITECTURE: u32 = 4;
pub(super) const AT_ARGUMENTS: u32 = 16;

/// One of the two filters of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The helper's, which all its descendants inherit.
    Inherited,
    /// The action's own, for what the helper and PID 1 still do.
    Own,
}

/// A filter for programs of `native` and of what is compatible with it; any
/// other architecture's are killed.
pub(super) fn filter(part: Part, native: Architecture) -> Vec<Instruction> {
    let mut program = Backwards::default();
    let mut otherwise = program.push(answer(RET_KILL_PROCESS));
    for architecture in [native.compatible(), Some(native)].into_iter().flatten() {
        let calls = program.tree(&intervals(part, architecture));
        program.begin(load(AT_NUMBER), calls);
        let calls = program.last();
        otherwise = program.test(IF_EQUAL, architecture.audit_number(), calls, otherwise);
    }
    program.begin(load(AT_ARCHITECTURE), otherwise);
    program.finish()
}

/// The first number of each interval and its rule, from 0 on.
fn intervals(part: Part, architecture: Architecture) -> Vec<(u32, &'static Rule)> {
    let rules = match part {
        Part::Inherited => POLICY,
        Part::Own => SET_UP,
    };
    let numbered = |(name, rule): &(&str, &'static Rule)| Some((architecture.number(name)?, *rule));
    let mut special: Vec<(u32, &Rule)> = rules.iter().filter_map(numbered).collect();
    special.sort_by_key(|(number, _)| *number);

    let mut intervals = vec![(0, &ALLOW)];
    for (number, rule) in special {
        // Calls after the previous one are allowed, unless this is the next one.
        intervals.pop_if(|(start, _)| *start == number);
        intervals.push((number, rule));
        intervals.push((number + 1, &ALLOW));
    }
    if part == Part::Inherited {
        intervals.retain(|(start, _)| *start <= LAST_REVIEWED);
        intervals.push((LAST_REVIEWED + 1, &ABSENT));
    }
    intervals.dedup_by(|next, previous| std::ptr::eq(next.1, previous.1));
    intervals
}

/// A program that is written from its end to its beginning, so that everything
/// that is jumped to is there already and can be shared: each answer, and each
/// question about arguments, stands in it once for all calls and architectures.
/// (An installation costs so much per instruction.)
#[derive(Default)]
struct Backwards {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    rules: Vec<(*const Rule, Label)>,
}

/// An instruction's distance from the end of the program.
type Label = usize;

/// A test can skip 255 instructions; both its targets may need a jump in between.
const REACH: usize = 250;

impl Backwards {
    fn push(&mut self, instruction: Instruction) -> Label {
        self.reversed.push(instruction);
        self.last()
    }

    fn last(&self) -> Label {
        self.reversed.len().saturating_sub(1)
    }

    /// Instructions between the one that is pushed next and `label`.
    fn distance(&self, label: Label) -> usize {
        self.last() - label
    }

    /// `label`, or a jump to it where it is too far for a test.
    fn near(&mut self, label: Label) -> Label {
        match self.distance(label) {
            ..=REACH => label,
            distance => self.push(jump(distance)),
        }
    }

    fn test(&mut self, code: u16, operand: u32, when_true: Label, when_false: Label) -> Label {
        let (when_true, when_false) = (self.near(when_true), self.near(when_false));
        let [when_true, when_false] =
            [when_true, when_false].map(|label| self.distance(label) as u8);
        self.push(Instruction { code, when_true, when_false, operand })
    }

    /// An instruction after which the program goes on at `next`.
    fn begin(&mut self, instruction: Instruction, next: Label) {
        if self.distance(next) > 0 {
            self.push(jump(self.distance(next)));
        }
        self.push(instruction);
    }

    fn tree(&mut self, intervals: &[(u32, &'static Rule)]) -> Label {
        let (left, right) = intervals.split_at(intervals.len() / 2);
        match (left, right) {
            ([], [(_, rule), ..]) => self.rule(rule),
            (_, [(start, _), ..]) => {
                let (right, left) = (self.tree(right), self.tree(left));
                self.test(IF_NOT_BELOW, *start, right, left)
            }
            (_, []) => self.rule(&ALLOW),
        }
    }

    fn rule(&mut self, rule: &'static Rule) -> Label {
        let known = self.rules.iter().find(|(known, _)| std::ptr::eq(*known, rule));
        if let Some((_, label)) = known {
            return *label;
        }
        let label = match rule {
            Rule::Allow => self.push(answer(RET_ALLOW)),
            Rule::Refuse(errno) => self.push(answer(RET_ERRNO | u32::from(*errno))),
            Rule::When { argument, test, then, otherwise } => {
                let (then, otherwise) = (self.rule(then), self.rule(otherwise));
                let first = self.question(*argument, test, then, otherwise);
                self.begin(load(AT_ARGUMENTS + 8 * u32::from(*argument)), first);
                self.last()
            }
        };
        self.rules.push((rule, label));
        label
    }

    /// The condition on the argument's lower half, once it is loaded.
    fn question(&mut self, argument: u8, test: &Test, then: Label, otherwise: Label) -> Label {
        match test {
            Test::Null => {
                let upper = self.test(IF_EQUAL, 0, then, otherwise);
                self.begin(load(AT_ARGUMENTS + 8 * u32::from(argument) + 4), upper);
                let upper = self.last();
                self.test(IF_EQUAL, 0, upper, otherwise)
            }
            Test::AnyBit(bits) => self.test(IF_ANY_BIT, *bits, then, otherwise),
            Test::OneOf(values) => values
                .iter()
                .rev()
                .fold(otherwise, |otherwise, value| self.test(IF_EQUAL, *value, then, otherwise)),
        }
    }

    fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, when_true: 0, when_false: 0, operand: offset }
}

fn jump(distance: usize) -> Instruction {
    Instruction { code: JUMP, when_true: 0, when_false: 0, operand: distance as u32 }
}

fn answer(value: u32) -> Instruction {
    Instruction { code: RETURN, when_true: 0, when_false: 0, operand: value }
}
