//! From rules to a classic BPF program (linux/filter.h, seccomp(2)).
//!
//! The line of all call numbers is cut into intervals with one rule each, and a
//! balanced tree of "greater or equal" tests finds the interval: seven or eight
//! tests for a call, where a list would take sixty.

use sys::call::Instruction;

use super::policy::{POLICY, Rule, Test};
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

/// Numbers from here on are of the x32 ABI, which shares x86_64's audit number.
const X32: u32 = 0x4000_0000;

static ALLOW: Rule = Rule::Allow;
static NO_SUCH_CALL: Rule = Rule::Refuse(38);

type Code = Vec<Instruction>;

/// The filter for programs of `native` and of what is compatible with it; any
/// other architecture's are killed.
pub(super) fn filter(native: Architecture) -> Code {
    let mut code = vec![load(AT_ARCHITECTURE)];
    for architecture in [Some(native), native.compatible()].into_iter().flatten() {
        let branch = calls(architecture);
        // An architecture's branch is too long for a conditional jump.
        code.push(test(IF_EQUAL, architecture.audit_number(), 1, 0));
        code.push(Instruction {
            code: JUMP,
            when_true: 0,
            when_false: 0,
            operand: branch.len() as u32,
        });
        code.extend(branch);
    }
    code.push(answer(RET_KILL_PROCESS));
    code
}

fn calls(architecture: Architecture) -> Code {
    let mut code = vec![load(AT_NUMBER)];
    code.extend(tree(&intervals(architecture)));
    code
}

/// The first number of each interval and its rule, from 0 on.
fn intervals(architecture: Architecture) -> Vec<(u32, &'static Rule)> {
    let mut special: Vec<(u32, &Rule)> = POLICY
        .iter()
        .filter_map(|(name, rule)| Some((architecture.number(name)?, *rule)))
        .collect();
    special.sort_by_key(|(number, _)| *number);

    let mut intervals = vec![(0, &ALLOW)];
    for (number, rule) in special {
        // What follows the previous call is allowed, unless this is the next one.
        if intervals.last().is_some_and(|(start, _)| *start == number) {
            intervals.pop();
        }
        intervals.push((number, rule));
        intervals.push((number + 1, &ALLOW));
    }
    if architecture == Architecture::X86_64 {
        intervals.push((X32, &NO_SUCH_CALL));
    }
    intervals.dedup_by(|next, previous| std::ptr::eq(next.1, previous.1));
    intervals
}

fn tree(intervals: &[(u32, &'static Rule)]) -> Code {
    let (left, right) = intervals.split_at(intervals.len() / 2);
    match (left, right) {
        (_, []) => Vec::new(),
        ([], [(_, rule), ..]) => rule_code(rule),
        (_, [(start, _), ..]) => branch(IF_NOT_BELOW, *start, tree(right), tree(left)),
    }
}

fn rule_code(rule: &Rule) -> Code {
    match rule {
        Rule::Allow => vec![answer(RET_ALLOW)],
        Rule::Refuse(errno) => vec![answer(RET_ERRNO | u32::from(*errno))],
        Rule::When { argument, test, then, otherwise } => {
            let mut code = vec![load(AT_ARGUMENTS + 8 * u32::from(*argument))];
            code.extend(test_code(test, then, otherwise));
            code
        }
    }
}

fn test_code(test: &Test, then: &Rule, otherwise: &Rule) -> Code {
    match test {
        Test::AnyBit(bits) => branch(IF_ANY_BIT, *bits, rule_code(then), rule_code(otherwise)),
        Test::OneOf(values) => {
            values.iter().rev().fold(rule_code(otherwise), |otherwise, value| {
                branch(IF_EQUAL, *value, rule_code(then), otherwise)
            })
        }
    }
}

/// A test, what follows if it fails, and then what follows if it holds. Both must
/// end in answers.
fn branch(code: u16, operand: u32, when_true: Code, when_false: Code) -> Code {
    let mut all = match u8::try_from(when_false.len()) {
        Ok(distance) => vec![test(code, operand, distance, 0)],
        // Too far for the test itself: it jumps to a jump.
        Err(_) => vec![
            test(code, operand, 0, 1),
            Instruction {
                code: JUMP,
                when_true: 0,
                when_false: 0,
                operand: when_false.len() as u32,
            },
        ],
    };
    all.extend(when_false);
    all.extend(when_true);
    all
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, when_true: 0, when_false: 0, operand: offset }
}

fn test(code: u16, operand: u32, when_true: u8, when_false: u8) -> Instruction {
    Instruction { code, when_true, when_false, operand }
}

fn answer(value: u32) -> Instruction {
    Instruction { code: RETURN, when_true: 0, when_false: 0, operand: value }
}
