//! What daemon and helper say to each other: a conversation and its packets.
//!
//! ```text
//! daemon                     helper
//! Setup ───────────────────►          once
//!       ◄─────────────────── Ready    or Failed, after which the helper exits
//! Prepare ─────────────────►          clean up after the last action, clone the
//!                                     next PID 1; never answered
//! Run ─────────────────────►
//! Kill ────────────────────►          any number, also late ones
//!       ◄─────────────────── Finished or Failed; everything inside is dead
//! Prepare …
//! ```
//!
//! The daemon's end of the conversation is the end of the helper and of what runs
//! in it. The helper trusts the daemon, but not its lengths; the daemon trusts
//! nothing it gets beyond the packet's layout.
//!
//! # Layout
//! A packet is a header of 12 bytes, all little endian:
//!
//! | at | type | meaning |
//! |---|---|---|
//! | 0 | u16 | version, 1 |
//! | 2 | u16 | kind |
//! | 4 | u32 | flags; bit 0: the body is in the first descriptor, a sealed memfd |
//! | 8 | u32 | length of the body |
//!
//! and the body, unless it travels in the memfd. Descriptors come as SCM_RIGHTS.
//! Bodies (for the notation see `wire`), with the descriptors in their order:
//!
//! | kind | name | body | descriptors |
//! |---|---|---|---|
//! | 1 | Setup | tmp_bytes, tmp_inodes, shm_bytes, shm_inodes, open_files: u64; mounts: list of path bytes; symlinks: list of (path bytes, target bytes); files: list of (path bytes, content bytes) | one detached mount each |
//! | 2 | Prepare | – | none, or the cgroup |
//! | 3 | Run | list of steps | stdout, stderr, input root |
//! | 4 | Kill | – | – |
//! | 16 | Ready | – | – |
//! | 17 | Finished | killed: u8 (1: before the action ended; the status means nothing); wait status: u32; started_ns, ended_ns: u64; usage: 9 × u64 | – |
//! | 18 | Failed | step: u16; errno: u32; detail: bytes | – |

use sys::init::{Report, Usage};

use crate::plan::Sizes;
use crate::plan::step::{Step, StepName};
use crate::protocol::wire::{Malformed, Reader, Writer};

/// From the daemon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Setup(Setup),
    Prepare,
    Run(Vec<Step>),
    Kill,
}

/// What a sandbox's root is made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) sizes: Sizes,
    /// Soft limit of descriptors that an action can open.
    pub(crate) open_files: u64,
    /// Where the passed mounts belong, in order; relative to the root.
    pub(crate) mounts: Vec<Vec<u8>>,
    /// Path and target.
    pub(crate) symlinks: Vec<(Vec<u8>, Vec<u8>)>,
    /// Path and content.
    pub(crate) files: Vec<(Vec<u8>, Vec<u8>)>,
}

/// From the helper.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// Done with the set-up, or with preparing an action.
    Ready,
    Finished(Finished),
    Failed(Failed),
}

/// An action that ended or was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    /// As wait4(2) gives it; `None` if it was killed before.
    pub(crate) wait_status: Option<i32>,
    /// Nanoseconds since the epoch; 0 if it never started.
    pub(crate) started_ns: u64,
    /// Nanoseconds since the epoch; 0 if it was killed.
    pub(crate) ended_ns: u64,
    pub(crate) usage: Usage,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) step: StepName,
    pub(crate) errno: i32,
    /// What it was about; may be empty.
    pub(crate) detail: String,
}

impl From<&Report> for Finished {
    fn from(report: &Report) -> Self {
        Self {
            wait_status: report.wait_status,
            started_ns: report.started_ns.max(0) as u64,
            ended_ns: report.ended_ns.max(0) as u64,
            usage: report.usage,
        }
    }
}

impl Request {
    /// Kind and body.
    pub(crate) fn encode(&self) -> (u16, Vec<u8>) {
        let mut body = Writer::default();
        let kind = match self {
            Self::Setup(setup) => {
                setup.encode(&mut body);
                1
            }
            Self::Prepare => 2,
            Self::Run(steps) => {
                body.steps(steps);
                3
            }
            Self::Kill => 4,
        };
        (kind, body.into_bytes())
    }

    pub(crate) fn decode(kind: u16, body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let request = match kind {
            1 => Self::Setup(Setup::decode(&mut reader)?),
            2 => Self::Prepare,
            3 => Self::Run(reader.steps()?),
            4 => Self::Kill,
            _ => return Err(Malformed("an unknown request")),
        };
        reader.end()?;
        Ok(request)
    }
}

impl Setup {
    fn encode(&self, body: &mut Writer) {
        let Sizes { tmp_bytes, tmp_inodes, shm_bytes, shm_inodes } = self.sizes;
        for number in [tmp_bytes, tmp_inodes, shm_bytes, shm_inodes, self.open_files] {
            body.u64(number);
        }
        body.count(self.mounts.len());
        self.mounts.iter().for_each(|path| body.bytes(path));
        for pairs in [&self.symlinks, &self.files] {
            body.count(pairs.len());
            for (path, content) in pairs {
                body.bytes(path);
                body.bytes(content);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let sizes = Sizes {
            tmp_bytes: reader.u64()?,
            tmp_inodes: reader.u64()?,
            shm_bytes: reader.u64()?,
            shm_inodes: reader.u64()?,
        };
        let open_files = reader.u64()?;
        let mounts = reader.count(size_of::<u32>())?;
        let mounts =
            (0..mounts).map(|_| reader.bytes().map(<[u8]>::to_vec)).collect::<Result<_, _>>()?;
        Ok(Self { sizes, open_files, mounts, symlinks: pairs(reader)?, files: pairs(reader)? })
    }
}

/// A path and what is there.
type Pair = (Vec<u8>, Vec<u8>);

fn pairs(reader: &mut Reader<'_>) -> Result<Vec<Pair>, Malformed> {
    let count = reader.count(2 * size_of::<u32>())?;
    (0..count).map(|_| Ok((reader.bytes()?.to_vec(), reader.bytes()?.to_vec()))).collect()
}

impl Response {
    /// Kind and body.
    pub(crate) fn encode(&self) -> (u16, Vec<u8>) {
        let mut body = Writer::default();
        let kind = match self {
            Self::Ready => 16,
            Self::Finished(finished) => {
                finished.encode(&mut body);
                17
            }
            Self::Failed(failed) => {
                body.u16(failed.step.number());
                body.u32(failed.errno as u32);
                body.bytes(failed.detail.as_bytes());
                18
            }
        };
        (kind, body.into_bytes())
    }

    pub(crate) fn decode(kind: u16, body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let response = match kind {
            16 => Self::Ready,
            17 => Self::Finished(Finished::decode(&mut reader)?),
            18 => Self::Failed(Failed {
                step: StepName::from_number(reader.u16()?).ok_or(Malformed("an unknown step"))?,
                errno: reader.u32()? as i32,
                detail: String::from_utf8_lossy(reader.bytes()?).into_owned(),
            }),
            _ => return Err(Malformed("an unknown response")),
        };
        reader.end()?;
        Ok(response)
    }
}

impl Finished {
    fn encode(&self, body: &mut Writer) {
        body.u8(u8::from(self.wait_status.is_none()));
        body.u32(self.wait_status.unwrap_or(0) as u32);
        let usage = &self.usage;
        for number in [
            self.started_ns,
            self.ended_ns,
            usage.user_us,
            usage.system_us,
            usage.max_resident_bytes,
            usage.minor_faults,
            usage.major_faults,
            usage.blocks_in,
            usage.blocks_out,
            usage.voluntary_switches,
            usage.involuntary_switches,
        ] {
            body.u64(number);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let killed = reader.u8()? != 0;
        let status = reader.u32()? as i32;
        Ok(Self {
            wait_status: (!killed).then_some(status),
            started_ns: reader.u64()?,
            ended_ns: reader.u64()?,
            usage: Usage {
                user_us: reader.u64()?,
                system_us: reader.u64()?,
                max_resident_bytes: reader.u64()?,
                minor_faults: reader.u64()?,
                major_faults: reader.u64()?,
                blocks_in: reader.u64()?,
                blocks_out: reader.u64()?,
                voluntary_switches: reader.u64()?,
                involuntary_switches: reader.u64()?,
            },
        })
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
