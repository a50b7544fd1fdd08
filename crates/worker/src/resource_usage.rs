//! The resource usage of an action, as messages in `ExecutedActionMetadata.auxiliary_metadata`: our own, and one
//! that tools for Buildbarn read.

use std::time::Duration as StdDuration;

use model::proto::google::protobuf::{Any, Duration};
use prost::Message;
use proto::actiond::v1::ResourceUsage;
use sandbox::{ExitStatus, Usage};

/// `buildbarn.resourceusage.POSIXResourceUsage`, as far as Linux knows its fields.
#[derive(Clone, PartialEq, Message)]
struct PosixResourceUsage {
    #[prost(message, optional, tag = "1")]
    user_time: Option<Duration>,
    #[prost(message, optional, tag = "2")]
    system_time: Option<Duration>,
    #[prost(int64, tag = "3")]
    maximum_resident_set_size: i64,
    #[prost(int64, tag = "7")]
    page_reclaims: i64,
    #[prost(int64, tag = "8")]
    page_faults: i64,
    /// In blocks of 512 bytes, as getrusage(2) has them.
    #[prost(int64, tag = "10")]
    block_input_operations: i64,
    #[prost(int64, tag = "11")]
    block_output_operations: i64,
    #[prost(int64, tag = "15")]
    voluntary_context_switches: i64,
    #[prost(int64, tag = "16")]
    involuntary_context_switches: i64,
    /// Without `SIG`; empty if the command was not killed.
    #[prost(string, tag = "17")]
    termination_signal: String,
}

/// Both messages.
pub(crate) fn messages(usage: &Usage, status: ExitStatus) -> Vec<Any> {
    let ours = ResourceUsage {
        wall_time: Some(duration(usage.wall)),
        user_time: Some(duration(usage.user)),
        system_time: Some(duration(usage.system)),
        max_resident_bytes: usage.max_resident_bytes,
        minor_faults: usage.minor_faults,
        major_faults: usage.major_faults,
        read_bytes: usage.read_bytes,
        written_bytes: usage.written_bytes,
        voluntary_switches: usage.voluntary_switches,
        involuntary_switches: usage.involuntary_switches,
    };
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let posix = PosixResourceUsage {
        user_time: ours.user_time,
        system_time: ours.system_time,
        maximum_resident_set_size: signed(usage.max_resident_bytes),
        page_reclaims: signed(usage.minor_faults),
        page_faults: signed(usage.major_faults),
        block_input_operations: signed(usage.read_bytes / BLOCK_BYTES),
        block_output_operations: signed(usage.written_bytes / BLOCK_BYTES),
        voluntary_context_switches: signed(usage.voluntary_switches),
        involuntary_context_switches: signed(usage.involuntary_switches),
        termination_signal: match status {
            ExitStatus::Code(_) => String::new(),
            ExitStatus::Signal(number) => signal(number),
        },
    };
    vec![
        any("actiond.v1.ResourceUsage", ours.encode_to_vec()),
        any("buildbarn.resourceusage.POSIXResourceUsage", posix.encode_to_vec()),
    ]
}

const BLOCK_BYTES: u64 = 512;

fn any(name: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value }
}

/// A duration as a message.
pub(crate) fn duration(duration: StdDuration) -> Duration {
    Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

/// The name of a signal without `SIG`; real-time signals have a number.
fn signal(number: i32) -> String {
    /// Of 1 to 31, in the numbering of x86-64 and arm64.
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let name = index.and_then(|index| NAMES.get(index));
    name.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_told_in_both_shapes() {
        let usage = Usage {
            wall: StdDuration::from_millis(1500),
            user: StdDuration::from_secs(1),
            max_resident_bytes: 1 << 20,
            read_bytes: 1024,
            voluntary_switches: 7,
            ..Usage::default()
        };
        let messages = messages(&usage, ExitStatus::Signal(11));
        let names: Vec<_> = messages.iter().map(|any| any.type_url.as_str()).collect();
        assert_eq!(
            names,
            [
                "type.googleapis.com/actiond.v1.ResourceUsage",
                "type.googleapis.com/buildbarn.resourceusage.POSIXResourceUsage"
            ]
        );
        let ours = ResourceUsage::decode(&messages[0].value[..]).unwrap();
        assert_eq!(ours.wall_time, Some(Duration { seconds: 1, nanos: 500_000_000 }));
        assert_eq!((ours.max_resident_bytes, ours.read_bytes), (1 << 20, 1024));
        let posix = PosixResourceUsage::decode(&messages[1].value[..]).unwrap();
        assert_eq!(posix.user_time, Some(Duration { seconds: 1, nanos: 0 }));
        assert_eq!((posix.block_input_operations, posix.voluntary_context_switches), (2, 7));
        assert_eq!(posix.termination_signal, "SEGV");
    }

    #[test]
    fn signals_have_names() {
        for (number, name) in [(1, "HUP"), (9, "KILL"), (15, "TERM"), (31, "SYS"), (34, "34")] {
            assert_eq!(signal(number), name);
        }
    }
}
