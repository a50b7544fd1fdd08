//! Numbers, bytes and steps as bytes: the bodies of the packets between daemon
//! and helper. `message` has the layout of each.
//!
//! All numbers are little endian. `bytes` is a u32 length and so many bytes.
//! `strings` is a `bytes` of terminated strings. A step is its name's number
//! (u16) and its fields in the order in which they are declared; a list is a u32
//! count and its elements.

use sys::call::Resource;
use sys::strings::Strings;

use crate::plan::step::{Step, StepName};

/// A body that does not have the layout it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Appends to a body.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    /// Bodies are bounded far below 4 GiB (`packet::MAX_BODY_BYTES`), so a longer
    /// piece makes a packet that is never sent.
    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn strings(&mut self, strings: &Strings) {
        self.bytes(strings.as_terminated());
    }

    pub(crate) fn steps(&mut self, steps: &[Step]) {
        self.count(steps.len());
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        self.u16(step.name().number());
        match step {
            Step::MountTmp { bytes, inodes } | Step::MountShm { bytes, inodes } => {
                self.u64(*bytes);
                self.u64(*inodes);
            }
            Step::Limit { resource, value } => {
                self.u8(*resource as u8);
                self.u64(*value);
            }
            Step::RunOn { mask } => {
                self.count(mask.len());
                mask.iter().for_each(|word| self.u64(*word));
            }
            Step::EnterDirectory { path } => self.strings(path),
            Step::Execute { candidates, arguments, environment } => {
                self.strings(candidates);
                self.strings(arguments);
                self.strings(environment);
            }
            _ => {}
        }
    }
}

/// Takes a body apart from its beginning.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// Ends the reading: nothing may be left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end")) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("too short"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of elements that take at least `element_bytes` each, so that no
    /// count can ask for more memory than the body has.
    pub(crate) fn count(&mut self, element_bytes: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        let fits = count.checked_mul(element_bytes).is_some_and(|bytes| bytes <= self.0.len());
        if fits { Ok(count) } else { Err(Malformed("a count that the packet cannot hold")) }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(crate) fn strings(&mut self) -> Result<Strings, Malformed> {
        Strings::from_terminated(self.bytes()?.to_vec()).ok_or(Malformed("an unterminated string"))
    }

    pub(crate) fn steps(&mut self) -> Result<Vec<Step>, Malformed> {
        let count = self.count(size_of::<u16>())?;
        (0..count).map(|_| self.step()).collect()
    }

    fn step(&mut self) -> Result<Step, Malformed> {
        let name = StepName::from_number(self.u16()?).ok_or(Malformed("an unknown step"))?;
        Ok(match name {
            StepName::NewCgroupNamespace => Step::NewCgroupNamespace,
            StepName::MountProc => Step::MountProc,
            StepName::MountTmp => Step::MountTmp { bytes: self.u64()?, inodes: self.u64()? },
            StepName::MountShm => Step::MountShm { bytes: self.u64()?, inodes: self.u64()? },
            StepName::NewSession => Step::NewSession,
            StepName::DropGroups => Step::DropGroups,
            StepName::SetGroup => Step::SetGroup,
            StepName::SetUser => Step::SetUser,
            StepName::DropCapabilities => Step::DropCapabilities,
            StepName::NoNewPrivileges => Step::NoNewPrivileges,
            StepName::Filter => Step::Filter,
            StepName::AttachInputRoot => Step::AttachInputRoot,
            StepName::ConfineInit => Step::ConfineInit,
            StepName::Limit => Step::Limit { resource: self.resource()?, value: self.u64()? },
            StepName::RunOn => {
                let words = self.count(size_of::<u64>())?;
                Step::RunOn { mask: (0..words).map(|_| self.u64()).collect::<Result<_, _>>()? }
            }
            StepName::Streams => Step::Streams,
            StepName::EnterDirectory => Step::EnterDirectory { path: self.strings()? },
            StepName::Execute => Step::Execute {
                candidates: self.strings()?,
                arguments: self.strings()?,
                environment: self.strings()?,
            },
            _ => return Err(Malformed("a step that is none of a plan")),
        })
    }

    fn resource(&mut self) -> Result<Resource, Malformed> {
        match self.u8()? {
            0 => Ok(Resource::AddressSpace),
            1 => Ok(Resource::Processes),
            2 => Ok(Resource::OpenFiles),
            _ => Err(Malformed("an unknown resource")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_body_are_refused() {
        let check = |body: &[u8]| Reader::new(body).bytes().unwrap_err();
        check(&[1, 0, 0, 0]);
        check(&[255, 255, 255, 255, 0]);
        check(&[0, 0, 0]);
        assert_eq!(
            Reader::new(&[9, 0, 0, 0, 1]).count(1).unwrap_err(),
            Malformed("a count that the packet cannot hold")
        );
    }

    #[test]
    fn a_step_of_the_daemon_is_none_of_a_plan() {
        let body = [1, 0, 0, 0, 34, 0];
        assert_eq!(
            Reader::new(&body).steps().unwrap_err(),
            Malformed("a step that is none of a plan")
        );
        let body = [1, 0, 0, 0, 255, 255];
        assert_eq!(Reader::new(&body).steps().unwrap_err(), Malformed("an unknown step"));
    }
}
