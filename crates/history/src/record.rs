//! One execution or lookup, as it is kept.

use std::time::SystemTime;

use bytes::Bytes;
use events::{Finished, InputTotals, Limits, LookedUp, Miss, Origin, Stages, Usage};
use model::{Digest, DigestFunction, HashBytes, InstanceName};

/// The subject of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An answer to a request to execute an action, from the cache or not.
    Execution,
    /// An answer to a request for a cached result.
    Lookup,
}

impl Kind {
    /// The name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Execution => "execution",
            Self::Lookup => "lookup",
        }
    }
}

/// One execution or lookup.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The number of the record; 0 if it is not in the database yet. Later ones are larger.
    pub id: i64,
    /// Execution or lookup.
    pub kind: Kind,
    /// When the request came, in microseconds since 1970.
    pub at_us: u64,
    /// The operation's name; empty for a lookup.
    pub operation: String,
    /// The instance name.
    pub instance: String,
    /// The action.
    pub action: Digest,
    /// Its Command, where the Action was read.
    pub command: Option<Digest>,
    /// Its input root, where the Action was read.
    pub input_root: Option<Digest>,
    /// The size of its input tree, where the tree was read.
    pub inputs: Option<InputTotals>,
    /// Names that the client gave the request.
    pub origin: Origin,
    /// The worker's name.
    pub worker: String,
    /// The number of requests that the record stands for: hits of one action within seconds share one.
    pub times: u64,
    /// Whether the result was in the action cache.
    pub cached: bool,
    /// The reason why it was not.
    pub miss: Option<Miss>,
    /// The command's exit code.
    pub exit_code: Option<i32>,
    /// The kind of the failure, in a fixed small set of words.
    pub failure: Option<String>,
    /// The message of the failure.
    pub message: Option<String>,
    /// The duration of each stage.
    pub stages: Stages,
    /// The resource usage, if something ran.
    pub usage: Option<Usage>,
    /// The bounds of the action beside the server's own.
    pub limits: Limits,
    /// The number of outputs.
    pub outputs: u64,
    /// The size of the output files, in bytes.
    pub output_bytes: u64,
    /// The encoded `ActionResult`, if it is small and the action ran.
    pub result: Option<Bytes>,
}

impl Record {
    /// The record of an answered operation; `None` if its digest is malformed, which no event of ours has.
    pub fn of_finished(finished: &Finished) -> Option<Self> {
        let function = finished.digest_function;
        let digest = |text: &Option<String>| text.as_ref().and_then(|it| parse(function, it));
        Some(Self {
            id: 0,
            kind: Kind::Execution,
            at_us: unix_us(finished.queued_at),
            operation: finished.operation.to_string(),
            instance: finished.instance.clone(),
            action: parse(function, &finished.action)?,
            command: digest(&finished.command),
            input_root: digest(&finished.input_root),
            inputs: finished.inputs,
            origin: (*finished.origin).clone(),
            worker: finished.worker.clone(),
            times: 1,
            cached: finished.cached,
            miss: finished.miss,
            exit_code: finished.exit_code,
            failure: finished.error.as_ref().map(|failure| failure.kind.to_owned()),
            message: finished.error.as_ref().map(|failure| failure.message.to_string()),
            stages: finished.stages,
            usage: finished.usage,
            limits: finished.limits,
            outputs: finished.outputs,
            output_bytes: finished.output_bytes,
            result: finished.result.clone(),
        })
    }

    /// The record of a lookup.
    pub fn of_lookup(lookup: &LookedUp) -> Self {
        let LookedUp { instance, action, caller, at, miss } = lookup;
        Self {
            miss: *miss,
            cached: miss.is_none(),
            ..Self::of_hits(instance, *action, caller.origin(), *at, 1)
        }
    }

    /// The record of lookups that found the same result.
    pub(crate) fn of_hits(
        instance: &InstanceName,
        action: Digest,
        origin: Origin,
        at: SystemTime,
        times: u64,
    ) -> Self {
        Self {
            id: 0,
            kind: Kind::Lookup,
            at_us: unix_us(at),
            operation: String::new(),
            instance: instance.to_string(),
            action,
            command: None,
            input_root: None,
            inputs: None,
            origin,
            worker: String::new(),
            times,
            cached: true,
            miss: None,
            exit_code: None,
            failure: None,
            message: None,
            stages: Stages::default(),
            usage: None,
            limits: Limits::default(),
            outputs: 0,
            output_bytes: 0,
            result: None,
        }
    }

    /// The outcome in one word: `cached`, `success`, `failure` (of the command), `hit`, `miss`, or the kind
    /// of the failure.
    pub fn outcome(&self) -> &str {
        match (self.kind, &self.failure, self.exit_code) {
            (Kind::Lookup, ..) => {
                if self.cached {
                    "hit"
                } else {
                    "miss"
                }
            }
            (_, Some(failure), _) => failure,
            _ if self.cached => "cached",
            (_, None, Some(0)) => "success",
            _ => "failure",
        }
    }

    /// Whether there is no good result, for another reason than that the cache has none.
    pub fn has_failed(&self) -> bool {
        let is_bad = self.failure.is_some() || self.exit_code.is_none_or(|code| code != 0);
        self.kind == Kind::Execution && is_bad
    }

    /// The time from the request to the answer, as far as the stages tell, in microseconds.
    pub fn total_us(&self) -> Option<u64> {
        let Stages { queued_us, total_us, .. } = self.stages;
        total_us.map(|total| total.saturating_add(queued_us.unwrap_or(0)))
    }
}

fn parse(function: &str, text: &str) -> Option<Digest> {
    let (hash, size) = text.split_once('/')?;
    Digest::parse_hex(DigestFunction::from_name(function)?, hash, size.parse().ok()?).ok()
}

fn unix_us(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}

/// The form of a digest in the database: the number of its function (REAPI), the size as 8 bytes, little
/// endian, and the hash.
pub(crate) fn encode(digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + digest.hash().len());
    bytes.push(digest.function().to_proto() as u8);
    bytes.extend_from_slice(&digest.size_bytes().to_le_bytes());
    bytes.extend_from_slice(digest.hash());
    bytes
}

/// A digest in the form of [`encode`].
pub(crate) fn decode(bytes: &[u8]) -> Option<Digest> {
    let (number, rest) = bytes.split_first()?;
    let (size, hash) = rest.split_first_chunk()?;
    let function = DigestFunction::from_proto(i32::from(*number)).ok().flatten()?;
    let hash = (hash.len() == function.hash_bytes()).then(|| HashBytes::of(hash))?;
    Some(Digest::new(function, hash, u64::from_le_bytes(*size)))
}

/// The part of an action's digest that its index has: the first 8 bytes of the hash. An index of whole
/// digests would be five times as large.
pub(crate) fn index_key(digest: &Digest) -> i64 {
    i64::from_le_bytes(digest.hash().first())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use events::Failure;

    use super::*;

    /// An operation that is over.
    pub(crate) fn finished(action: u32) -> Finished {
        let digest = |text: String| Digest::of(DigestFunction::Sha256, text.as_bytes()).to_string();
        Finished {
            operation: format!("operations/1-{action}").into(),
            instance: "main".into(),
            digest_function: "sha256",
            action: digest(format!("action {action}")),
            command: Some(digest(format!("command {action}"))),
            input_root: Some(digest(format!("root {action}"))),
            inputs: Some(InputTotals { files: 1, bytes: u64::from(action) }),
            origin: Arc::new(Origin {
                principal: "ci".into(),
                tool: "bazel 9".into(),
                invocation: "build".into(),
                mnemonic: "CppCompile".into(),
                target: "//a:b".into(),
                configuration: "fast".into(),
                trace: None,
            }),
            queued_at: SystemTime::UNIX_EPOCH + Duration::from_micros(1000 + u64::from(action)),
            cached: false,
            miss: Some(Miss::Absent),
            limits: Limits { timeout_us: Some(5), pids_max: Some(7), ..Limits::default() },
            exit_code: Some(0),
            error: None,
            stages: Stages {
                queued_us: Some(1),
                run_us: Some(u64::from(action)),
                total_us: Some(u64::from(action) + 10),
                ..Stages::default()
            },
            usage: Some(Usage { user_us: 3, max_resident_bytes: 4, ..Usage::default() }),
            outputs: 2,
            output_bytes: 30,
            worker: "here".into(),
            result: Some(Bytes::from_static(b"result")),
        }
    }

    #[test]
    fn digests_survive() {
        for function in DigestFunction::ALL {
            let digest = Digest::of(function, b"abc");
            assert_eq!(decode(&encode(&digest)), Some(digest));
        }
        assert_eq!(decode(b"short"), None);
        assert_eq!(decode(&[200; 41]), None);
        let encoded = encode(&Digest::of(DigestFunction::Sha256, b"abc"));
        assert_eq!(decode(&encoded[..40]), None);
    }

    #[test]
    fn outcomes() {
        let check = |change: fn(&mut Finished), expected: &str, failed: bool| {
            let mut it = finished(1);
            change(&mut it);
            let record = Record::of_finished(&it).unwrap();
            assert_eq!((record.outcome(), record.has_failed()), (expected, failed));
        };
        check(|_| (), "success", false);
        check(|it| it.exit_code = Some(1), "failure", true);
        check(|it| it.cached = true, "cached", false);
        let failure = |it: &mut Finished| {
            it.error = Some(Failure { kind: "timed_out", step: None, message: "late".into() });
        };
        check(failure, "timed_out", true);
        let mut malformed = finished(1);
        malformed.action = "nonsense".into();
        assert_eq!(Record::of_finished(&malformed), None);
    }
}
