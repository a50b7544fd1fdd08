//! A machine for the few instructions that filters are made of, for tests.

use sys::call::Instruction;

use super::assemble::{
    AT_ARCHITECTURE, AT_ARGUMENTS, AT_NUMBER, IF_ANY_BIT, IF_EQUAL, IF_NOT_BELOW, JUMP, LOAD,
    RETURN,
};

/// A call as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallData {
    pub(super) architecture: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

/// The filter's answer, and the number of instructions that it took. Panics where the
/// kernel would have refused the program.
pub(super) fn interpret(code: &[Instruction], data: &CallData) -> (u32, usize) {
    let mut at = 0;
    let mut accumulator = 0;
    for steps in 1..=code.len() {
        let instruction = code[at];
        at += 1;
        let mut jump = |holds: bool| {
            at += usize::from(if holds { instruction.when_true } else { instruction.when_false });
        };
        match instruction.code {
            LOAD => accumulator = word(data, instruction.operand),
            IF_EQUAL => jump(accumulator == instruction.operand),
            IF_NOT_BELOW => jump(accumulator >= instruction.operand),
            IF_ANY_BIT => jump(accumulator & instruction.operand != 0),
            JUMP => at += instruction.operand as usize,
            RETURN => return (instruction.operand, steps),
            code => panic!("unknown instruction {code:#x}"),
        }
    }
    panic!("no answer")
}

fn word(data: &CallData, offset: u32) -> u32 {
    match offset {
        AT_NUMBER => data.number,
        AT_ARCHITECTURE => data.architecture,
        _ => {
            let offset = offset - AT_ARGUMENTS;
            assert_eq!(offset % 4, 0, "the kernel refuses other offsets");
            (data.arguments[offset as usize / 8] >> (offset % 8 * 8)) as u32
        }
    }
}
