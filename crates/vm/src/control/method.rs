//! The methods of the control protocol, with their bodies as types.

use std::time::Duration;

const MIB: u64 = 1 << 20;

/// The longest message of an application error, in bytes.
const MAX_ERROR_BYTES: u64 = 4096;

/// A method: something that the host can ask of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The counters of actiondfs and of the guest, as text.
    ActiondfsStats,
    /// Stop taking work, sync, unmount, power off.
    Shutdown,
    /// Set the guest's clock, which stood still while the host slept.
    SetTime,
    /// Give memory back to the host.
    MemoryPressure,
}

impl Method {
    /// All there are.
    pub const ALL: [Self; 4] =
        [Self::ActiondfsStats, Self::Shutdown, Self::SetTime, Self::MemoryPressure];

    /// As the wire has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ActiondfsStats => "/actiond.internal.Guest/ActiondfsStats",
            Self::Shutdown => "/actiond.internal.Guest/Shutdown",
            Self::SetTime => "/actiond.internal.Guest/SetTime",
            Self::MemoryPressure => "/actiond.internal.Guest/MemoryPressure",
        }
    }

    /// The method of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// The longest body of a request, in bytes.
    pub fn max_request_bytes(self) -> u64 {
        match self {
            Self::ActiondfsStats | Self::Shutdown => 0,
            Self::SetTime => SetTime::BYTES as u64,
            Self::MemoryPressure => MemoryRelease::BYTES as u64,
        }
    }

    /// The longest body of a response, in bytes, be it the result or an error.
    pub fn max_response_bytes(self) -> u64 {
        match self {
            Self::ActiondfsStats => MIB,
            Self::Shutdown | Self::SetTime | Self::MemoryPressure => MAX_ERROR_BYTES,
        }
    }
}

/// A body that is not of the length that its method has.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a body of {found} bytes where {expected} belong")]
pub struct BodyError {
    found: usize,
    expected: usize,
}

/// The body as an array.
fn exactly<const N: usize>(body: &[u8]) -> Result<[u8; N], BodyError> {
    body.try_into().map_err(|_| BodyError { found: body.len(), expected: N })
}

/// Request of [`Method::SetTime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetTime {
    /// The host's time, since the Unix epoch.
    pub since_epoch: Duration,
}

impl SetTime {
    const BYTES: usize = 12;

    /// `u64` seconds and `u32` nanoseconds, little endian.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let mut body = [0; Self::BYTES];
        body[..8].copy_from_slice(&self.since_epoch.as_secs().to_le_bytes());
        body[8..].copy_from_slice(&self.since_epoch.subsec_nanos().to_le_bytes());
        body
    }

    /// Reads a body.
    ///
    /// # Errors
    /// A wrong length. Nanoseconds beyond a second are cut to the last of it.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, nanoseconds @ ..] = exactly::<{ Self::BYTES }>(body)?;
        let seconds = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let nanoseconds = u32::from_le_bytes(nanoseconds).min(999_999_999);
        Ok(Self { since_epoch: Duration::new(seconds, nanoseconds) })
    }
}

/// Response of [`Method::SetTime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSet {
    /// By how many nanoseconds the guest's clock was moved; negative: it was ahead.
    pub moved_ns: i64,
}

impl TimeSet {
    /// `i64`, little endian.
    pub fn encode(self) -> [u8; 8] {
        self.moved_ns.to_le_bytes()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// A wrong length.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        Ok(Self { moved_ns: i64::from_le_bytes(exactly(body)?) })
    }
}

/// Request of [`Method::MemoryPressure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRelease {
    /// The memory that the host asks for, in bytes. The guest gives caches, never what
    /// actions use.
    pub wanted_bytes: u64,
}

impl MemoryRelease {
    const BYTES: usize = 8;

    /// `u64`, little endian.
    pub fn encode(self) -> [u8; Self::BYTES] {
        self.wanted_bytes.to_le_bytes()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// A wrong length.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        Ok(Self { wanted_bytes: u64::from_le_bytes(exactly(body)?) })
    }
}

/// Response of [`Method::MemoryPressure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleasedMemory {
    /// The guest's free memory in bytes, which the balloon can take.
    pub free_bytes: u64,
    /// All of the guest's memory, in bytes.
    pub total_bytes: u64,
}

impl ReleasedMemory {
    /// Two `u64`, little endian.
    pub fn encode(self) -> [u8; 16] {
        let mut body = [0; 16];
        body[..8].copy_from_slice(&self.free_bytes.to_le_bytes());
        body[8..].copy_from_slice(&self.total_bytes.to_le_bytes());
        body
    }

    /// Reads a body.
    ///
    /// # Errors
    /// A wrong length.
    pub fn decode(body: &[u8]) -> Result<Self, BodyError> {
        let [f0, f1, f2, f3, f4, f5, f6, f7, total @ ..] = exactly::<16>(body)?;
        Ok(Self {
            free_bytes: u64::from_le_bytes([f0, f1, f2, f3, f4, f5, f6, f7]),
            total_bytes: u64::from_le_bytes(total),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_methods() {
        for method in Method::ALL {
            assert_eq!(Method::from_name(method.name()), Some(method));
        }
        assert_eq!(Method::from_name("/actiond.internal.Guest/Reboot"), None);
        assert_eq!(Method::from_name(""), None);
    }

    #[test]
    fn bodies_are_read_back() {
        let time = SetTime { since_epoch: Duration::new(1 << 33, 999_999_999) };
        assert_eq!(SetTime::decode(&time.encode()), Ok(time));
        let moved = TimeSet { moved_ns: -5 };
        assert_eq!(TimeSet::decode(&moved.encode()), Ok(moved));
        let wanted = MemoryRelease { wanted_bytes: 1 << 40 };
        assert_eq!(MemoryRelease::decode(&wanted.encode()), Ok(wanted));
        let released = ReleasedMemory { free_bytes: 3, total_bytes: 1 << 29 };
        assert_eq!(ReleasedMemory::decode(&released.encode()), Ok(released));
    }

    #[test]
    fn wrong_lengths_are_errors() {
        assert_eq!(SetTime::decode(&[0; 11]), Err(BodyError { found: 11, expected: 12 }));
        assert!(TimeSet::decode(&[0; 9]).is_err());
        assert!(MemoryRelease::decode(b"").is_err());
        assert!(ReleasedMemory::decode(&[0; 8]).is_err());
    }

    #[test]
    fn impossible_nanoseconds_do_not_panic() {
        let time = SetTime::decode(&[0xff; 12]).unwrap();
        assert_eq!(time.since_epoch.subsec_nanos(), 999_999_999);
    }
}
