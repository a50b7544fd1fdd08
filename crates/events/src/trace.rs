//! The place of a request in a trace of its client (the W3C's "Trace Context", level 1).

use std::fmt;

/// A span of the client that a request belongs to, as the header `traceparent` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The id of the trace; not all zeros.
    pub trace_id: [u8; 16],
    /// The id of the client's span; not all zeros.
    pub parent_id: [u8; 8],
    /// Whether the client records the trace.
    pub is_sampled: bool,
}

/// The bit of the flags for a trace that is recorded.
const SAMPLED: u8 = 1;

/// The length of version 00, which later versions begin with.
const LENGTH: usize = 55;

impl TraceContext {
    /// Parses a `traceparent`, as in `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. One that is malformed
    /// is as good as none.
    pub fn parse(text: &str) -> Option<Self> {
        let known = text.get(..LENGTH)?;
        let mut parts = known.split('-');
        let version = bytes::<1>(parts.next()?)?;
        let trace_id = bytes::<16>(parts.next()?)?;
        let parent_id = bytes::<8>(parts.next()?)?;
        let flags = bytes::<1>(parts.next()?)?;
        let is_whole = match version {
            [0] => text.len() == LENGTH,
            [0xff] => false,
            _ => text.len() == LENGTH || text.as_bytes()[LENGTH] == b'-',
        };
        let is_valid = is_whole
            && parts.next().is_none()
            && trace_id.iter().any(|byte| *byte != 0)
            && parent_id.iter().any(|byte| *byte != 0);
        is_valid.then_some(Self { trace_id, parent_id, is_sampled: flags[0] & SAMPLED != 0 })
    }
}

/// Hexadecimal digits in lower case as bytes.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != 2 * N || !is_hex {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

/// As a `traceparent` of version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.parent_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.is_sampled))
    }
}

/// As a string.
impl serde::Serialize for TraceContext {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[track_caller]
    fn check(text: &str, is_sampled: Option<bool>) {
        let found = TraceContext::parse(text);
        assert_eq!(found.map(|it| it.is_sampled), is_sampled, "{text}");
        if let Some(context) = found {
            assert!(
                context.to_string().starts_with(&format!("00-{TRACE}-{PARENT}-0")),
                "{context}"
            );
        }
    }

    #[test]
    fn a_context_is_read_and_printed() {
        check(&format!("00-{TRACE}-{PARENT}-01"), Some(true));
        check(&format!("00-{TRACE}-{PARENT}-00"), Some(false));
        // Other flags are not ours to know.
        check(&format!("00-{TRACE}-{PARENT}-fe"), Some(false));
        check(&format!("00-{TRACE}-{PARENT}-ff"), Some(true));
        // Later versions may add parts.
        check(&format!("cc-{TRACE}-{PARENT}-01"), Some(true));
        check(&format!("cc-{TRACE}-{PARENT}-01-more"), Some(true));
    }

    #[test]
    fn what_is_malformed_is_as_good_as_none() {
        check("", None);
        check("00", None);
        check(&format!("00-{TRACE}-{PARENT}"), None);
        check(&format!("00-{TRACE}-{PARENT}-1"), None);
        check(&format!("00-{TRACE}-{PARENT}-01-more"), None);
        check(&format!("cc-{TRACE}-{PARENT}-01.more"), None);
        check(&format!("ff-{TRACE}-{PARENT}-01"), None);
        check(&format!("00-{}-{PARENT}-01", TRACE.to_uppercase()), None);
        check(&format!("00-{}-{PARENT}-01", "0".repeat(32)), None);
        check(&format!("00-{TRACE}-{}-01", "0".repeat(16)), None);
        check(&format!("00-{TRACE}{PARENT}--01"), None);
        check(&format!("00-{TRACE}-+0f067aa0ba902b7-01"), None);
        check(&format!("00-{TRACE}-{PARENT}-é"), None);
        check(&"é".repeat(100), None);
        check(&"-".repeat(LENGTH), None);
    }
}
