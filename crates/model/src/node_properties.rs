//! Node properties (REAPI `NodeProperties`): the time of modification and the mode of an input or output.
//!
//! Clients that build whole root file systems (BuildStream) send them. Nearly all others send none, so a
//! directory keeps those that there are beside its entries, and an entry costs nothing for them.

use crate::proto;
use crate::wire::{Reader, Span, Value, WireError};

/// A time of modification, in seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mtime {
    /// The whole seconds; negative before 1970.
    pub seconds: i64,
    /// The nanoseconds behind them, less than a second.
    pub nanos: u32,
}

/// The node properties that this server knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct NodeProperties {
    /// `mtime`: the time of the last modification.
    pub mtime: Option<Mtime>,
    /// `unix_mode`: the permission bits, with the set-user-ID, set-group-ID and sticky bits.
    pub unix_mode: Option<u16>,
}

impl NodeProperties {
    /// The names by which clients ask for them, sorted.
    pub const NAMES: [&'static str; 2] = ["mtime", "unix_mode"];

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.mtime.is_none() && self.unix_mode.is_none()
    }

    /// The message; `None` if there are none.
    pub fn to_proto(self) -> Option<proto::NodeProperties> {
        (!self.is_empty()).then(|| proto::NodeProperties {
            mtime: self.mtime.map(|Mtime { seconds, nanos }| proto::google::protobuf::Timestamp {
                seconds,
                nanos: i32::try_from(nanos).unwrap_or(0),
            }),
            unix_mode: self.unix_mode.map(u32::from),
            properties: Vec::new(),
        })
    }
}

/// The name of the property of a directory that closes or opens it, with all below it, for the action's
/// writes: `true` or `false`. Directories without it are as the one above; the root is open.
pub const SUBTREE_READ_ONLY: &str = "SubtreeReadOnly";

/// A fault of a `NodeProperties` message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Wire(WireError),
    /// A property of that number has the wrong type, is there twice, or has an impossible value.
    Field(u32),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// A `NodeProperties` message as it was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) known: NodeProperties,
    /// [`SUBTREE_READ_ONLY`], and where its name is.
    pub(crate) subtree_read_only: Option<(bool, Span)>,
    /// The name of a property that only other servers know.
    pub(crate) unknown: Option<Span>,
}

/// Reads the `NodeProperties` at `span` of `message`.
pub(crate) fn read(message: &[u8], span: Span) -> Result<Read, Fault> {
    let mut read = Read::default();
    let mut reader = Reader::within(message, span);
    while let Some((field, value)) = reader.next_field()? {
        let repeated = match (field, value) {
            (1, Value::Bytes(span)) => {
                let Property { name, value } = property(message, span)?;
                if name.of(message) == SUBTREE_READ_ONLY.as_bytes() {
                    let value = truth(value.of(message)).ok_or(Fault::Field(field))?;
                    read.subtree_read_only.replace((value, name)).is_some()
                } else {
                    read.unknown = Some(name);
                    false
                }
            }
            (2, Value::Bytes(span)) => read.known.mtime.replace(mtime(message, span)?).is_some(),
            (3, Value::Bytes(span)) => {
                read.known.unix_mode.replace(unix_mode(message, span)?).is_some()
            }
            (1..=3, _) => return Err(Fault::Field(field)),
            _ => false,
        };
        if repeated {
            return Err(Fault::Field(field));
        }
    }
    Ok(read)
}

/// A property that has a name.
struct Property {
    name: Span,
    value: Span,
}

fn property(message: &[u8], span: Span) -> Result<Property, Fault> {
    let nothing = Span { start: span.start, len: 0 };
    let mut property = Property { name: nothing, value: nothing };
    let mut reader = Reader::within(message, span);
    while let Some((field, value)) = reader.next_field()? {
        match (field, value) {
            (1, Value::Bytes(span)) => property.name = span,
            (2, Value::Bytes(span)) => property.value = span,
            _ => {}
        }
    }
    Ok(property)
}

fn truth(value: &[u8]) -> Option<bool> {
    match value {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

fn mtime(message: &[u8], span: Span) -> Result<Mtime, Fault> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::within(message, span);
    while let Some((field, value)) = reader.next_field()? {
        match (field, value) {
            (1, Value::Varint(value)) => seconds = value as i64,
            (2, Value::Varint(value)) => nanos = value,
            (1 | 2, _) => return Err(Fault::Field(2)),
            _ => {}
        }
    }
    // The range of a protobuf Timestamp: the years 1 to 9999.
    let is_possible = (-62_135_596_800..=253_402_300_799).contains(&seconds);
    match u32::try_from(nanos) {
        Ok(nanos @ 0..1_000_000_000) if is_possible => Ok(Mtime { seconds, nanos }),
        _ => Err(Fault::Field(2)),
    }
}

fn unix_mode(message: &[u8], span: Span) -> Result<u16, Fault> {
    let mut mode = 0;
    let mut reader = Reader::within(message, span);
    while let Some((field, value)) = reader.next_field()? {
        match (field, value) {
            (1, Value::Varint(value)) => mode = value,
            (1, _) => return Err(Fault::Field(3)),
            _ => {}
        }
    }
    // Some clients send the type of the file with it, as stat(2) gives it.
    match u32::try_from(mode) {
        Ok(mode) if mode <= 0o177_777 => Ok((mode & 0o7777) as u16),
        _ => Err(Fault::Field(3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    fn parse(message: &[u8]) -> Result<Read, Fault> {
        read(message, Span { start: 0, len: message.len() as u32 })
    }

    fn with_mtime(seconds: i64, nanos: i32) -> Vec<u8> {
        let mtime = Some(proto::google::protobuf::Timestamp { seconds, nanos });
        proto::NodeProperties { mtime, ..Default::default() }.encode_to_vec()
    }

    fn with_mode(unix_mode: u32) -> Vec<u8> {
        proto::NodeProperties { unix_mode: Some(unix_mode), ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        for mtime in [None, Some(Mtime { seconds: -5, nanos: 999_999_999 })] {
            for unix_mode in [None, Some(0), Some(0o4755)] {
                let known = NodeProperties { mtime, unix_mode };
                let message = known.to_proto().map(|message| message.encode_to_vec());
                assert_eq!(message.is_none(), known.is_empty());
                let read = parse(&message.unwrap_or_default());
                assert_eq!(read, Ok(Read { known, ..Read::default() }));
            }
        }
    }

    #[test]
    fn impossible_values_are_refused() {
        for message in [
            with_mtime(0, -1),
            with_mtime(0, 1_000_000_000),
            with_mtime(i64::MAX, 0),
            with_mtime(i64::MIN, 0),
        ] {
            assert_eq!(parse(&message), Err(Fault::Field(2)));
        }
        assert_eq!(parse(&with_mode(u32::MAX)), Err(Fault::Field(3)));
        assert_eq!(parse(&with_mode(0o100_644)).unwrap().known.unix_mode, Some(0o644));
        assert_eq!(parse(&[0x10, 1]), Err(Fault::Field(2)));
        assert_eq!(parse(&[0x12, 0, 0x12, 0]), Err(Fault::Field(2)));
        assert_eq!(parse(&[0x12, 9]), Err(Fault::Wire(WireError::Length)));
    }

    #[test]
    fn a_subtree_is_open_or_closed() {
        let with = |values: &[&str]| {
            let property = |value: &&str| proto::NodeProperty {
                name: SUBTREE_READ_ONLY.to_owned(),
                value: (*value).to_owned(),
            };
            let properties = values.iter().map(property).collect();
            let message = proto::NodeProperties { properties, ..Default::default() };
            parse(&message.encode_to_vec())
                .map(|read| read.subtree_read_only.map(|(value, _)| value))
        };
        assert_eq!(with(&["true"]), Ok(Some(true)));
        assert_eq!(with(&["false"]), Ok(Some(false)));
        for bad in [&["yes"][..], &[""], &["true", "true"], &["true", "false"]] {
            assert_eq!(with(bad), Err(Fault::Field(1)), "{bad:?}");
        }
    }

    #[test]
    fn properties_of_other_servers_are_named() {
        let property = proto::NodeProperty { name: "selinux".into(), value: "x".into() };
        let message = proto::NodeProperties { properties: vec![property], ..Default::default() };
        let message = message.encode_to_vec();
        let unknown = parse(&message).unwrap().unknown.unwrap();
        assert_eq!(unknown.of(&message), b"selinux");
    }
}
