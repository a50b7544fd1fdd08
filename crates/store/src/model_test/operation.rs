//! The operations and faults of the model test, as data.

use model::{Digest, DigestFunction};
use rustix::io::Errno;

use super::roots::Numbers;
use crate::disk::faults::Fault;

pub(super) const FUNCTION: DigestFunction = DigestFunction::Sha256;
/// Blobs are few, so that they come and go and come again.
pub(super) const CONTENTS: u64 = 24;

/// One of the contents, by its number.
pub(super) type Content = u64;

pub(super) fn content(number: Content) -> Vec<u8> {
    let size = [3, 100, 5_000, 80_000][number as usize % 4];
    vec![number as u8; size - number as usize % 3]
}

pub(super) fn digest(number: Content) -> Digest {
    Digest::of(FUNCTION, &content(number))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Put(Content),
    WriteInPieces(Content, usize),
    GiveUp(Content),
    Delete(Content),
    /// Keeps a blob until that number of other pins were made.
    Pin(Content),
    Evict {
        to_bytes: u64,
    },
    PutResult(Content, Content),
    DeleteResult(Content),
    Check(Content),
    FindMissing,
    /// Waits until everything is on the disk.
    Sync,
    Restart {
        in_background: bool,
        same_boot: bool,
    },
    /// SIGKILL.
    Kill {
        in_background: bool,
    },
    /// Data that is not on the disk is lost, torn or kept, by that seed.
    CutPower {
        in_background: bool,
        seed: u64,
    },
}

impl Operation {
    pub(super) fn random(numbers: &mut Numbers) -> Self {
        let number = numbers.below(CONTENTS);
        let in_background = numbers.below(2) == 0;
        match numbers.below(100) {
            0..30 => Self::Put(number),
            30..38 => {
                let size = content(number).len() as u64;
                Self::WriteInPieces(number, 1 + numbers.below(size * 2) as usize)
            }
            38..42 => Self::GiveUp(number),
            42..52 => Self::Delete(number),
            52..57 => Self::Pin(number),
            57..61 => Self::Evict { to_bytes: numbers.below(1 << 20) },
            61..72 => Self::PutResult(number, numbers.below(CONTENTS)),
            72..75 => Self::DeleteResult(number),
            75..85 => Self::Check(number),
            85..88 => Self::FindMissing,
            88..92 => Self::Sync,
            92..95 => Self::Restart { in_background, same_boot: numbers.below(2) == 0 },
            95..97 => Self::Kill { in_background },
            _ => Self::CutPower { in_background, seed: 1 + numbers.below(1 << 32) },
        }
    }
}

/// An operation, and the fault that it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) operation: Operation,
    pub(super) fault: Option<AtCall>,
}

/// A fault at the call after so many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AtCall {
    pub(super) calls: u64,
    pub(super) fault: Fault,
    /// Of a server that dies: the machine dies too. Data that is not on the disk is lost, torn or kept, by that seed,
    /// which is not 0.
    pub(super) cut: Option<u64>,
    /// The losses of a failed sync, by that seed.
    pub(super) loss: u64,
}

/// The errors of a disk that is full, of one that fails, and of one that the kernel made read-only.
const ERRNOS: [Errno; 4] = [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS];

impl Step {
    pub(super) fn random(numbers: &mut Numbers) -> Self {
        let operation = Operation::random(numbers);
        let fault = (numbers.below(4) == 0).then(|| AtCall::random(numbers));
        Self { operation, fault }
    }
}

impl AtCall {
    fn random(numbers: &mut Numbers) -> Self {
        // Most operations make few calls, a start and an end make some dozens.
        let most = 1 << (1 + numbers.below(6));
        let calls = numbers.below(most);
        let dies = numbers.below(2) == 0;
        let errno = ERRNOS[numbers.below(ERRNOS.len() as u64) as usize];
        let cut = 1 + numbers.below(1 << 32);
        Self {
            calls,
            fault: if dies { Fault::Dies } else { Fault::Fails(errno) },
            cut: (dies && numbers.below(2) == 0).then_some(cut),
            loss: 1 + numbers.below(1 << 32),
        }
    }
}
