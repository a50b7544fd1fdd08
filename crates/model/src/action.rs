//! An action: a command, its inputs, and how it is to be run.
//!
//! It is read in two steps, because it is stored in two blobs: [`ActionMessage::parse`] tells which
//! command and input root are needed, [`ActionMessage::with_command`] makes the whole.

use std::time::Duration;

use ::proto::shape::decoded_bytes;
use prost::Message;

use crate::command::{CommandError, CommandSpec};
use crate::digest::Digest;
use crate::digest_error::DigestError;
use crate::platform::WorkerPlatform;
use crate::properties::Limits;
use crate::proto;

/// The largest `Action` message; it holds two digests and a list of platform properties.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The most memory for a decoded `Action`: a thousand platform properties, of which real actions have
/// a dozen. It is held for as long as the action waits.
const MAX_DECODED_BYTES: u64 = 256 << 10;
/// The longest timeout in seconds: what protobuf's `Duration` may hold, 10,000 years.
const MAX_TIMEOUT_SECONDS: u64 = 315_576_000_000;

/// A validated REAPI `Action`, its command not yet read.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionMessage {
    /// The digest of the action itself.
    pub action: Digest,
    /// The digest of its `Command`.
    pub command: Digest,
    /// The digest of its input root's `Directory`.
    pub input_root: Digest,
    /// The time that the command may run; `None` means as long as the server allows.
    pub timeout: Option<Duration>,
    /// Whether the result must not be cached, nor the action joined with an equal one.
    pub do_not_cache: bool,
    /// The platform, which goes before the one of the command.
    pub platform: Option<proto::Platform>,
}

/// An action that can be run as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionSpec {
    /// The digest of the action itself, under which its result is cached.
    pub action: Digest,
    /// The command.
    pub command: CommandSpec,
    /// The digest of the input root's `Directory`.
    pub input_root: Digest,
    /// The time that the command may run; `None` means as long as the server allows.
    pub timeout: Option<Duration>,
    /// Whether the result must not be cached, nor the action joined with an equal one.
    pub do_not_cache: bool,
}

/// An error of an `Action` that can't be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The message is larger than 1 MiB.
    #[error("action {action} takes more than {MAX_MESSAGE_BYTES} bytes")]
    TooLarge {
        /// The digest of the action.
        action: Digest,
    },
    /// The message takes more than 256 KiB of memory once it is decoded.
    #[error("action {action} takes more than {MAX_DECODED_BYTES} bytes of memory")]
    TooManyFields {
        /// The digest of the action.
        action: Digest,
    },
    /// The bytes are not an `Action` message.
    #[error("action {action}: not an Action message")]
    Decode {
        /// The digest of the action.
        action: Digest,
        /// The decoder's error.
        source: prost::DecodeError,
    },
    /// The digest of the command or of the input root is missing, or none that can be.
    #[error("action {action}: {field}")]
    Digest {
        /// The digest of the action.
        action: Digest,
        /// The name of the field.
        field: &'static str,
        /// The problem with it.
        source: DigestError,
    },
    /// The timeout is negative, or longer than any.
    #[error("action {action}: {seconds} s and {nanos} ns is not a valid timeout")]
    Timeout {
        /// The digest of the action.
        action: Digest,
        /// The timeout's whole seconds.
        seconds: i64,
        /// The timeout's nanoseconds.
        nanos: i32,
    },
    /// The command can't be run.
    #[error("command {command}")]
    Command {
        /// The digest of the command.
        command: Digest,
        /// The problem with it.
        source: CommandError,
    },
}

impl ActionError {
    /// Whether the action asks for another machine than this worker, and may be right for another one.
    pub fn asks_for_another_machine(&self) -> bool {
        use crate::property_error::PropertyError::{OtherMachine, Unknown};
        let Self::Command { source: CommandError::Property(error), .. } = self else {
            return false;
        };
        matches!(error, OtherMachine { .. } | Unknown { .. })
    }
}

impl ActionMessage {
    /// Parses and validates the `Action` message that `action` names; its digests are of the same
    /// function.
    pub fn parse(action: Digest, message: &[u8]) -> Result<Self, ActionError> {
        Self::check_size(action, message.len() as u64)?;
        if decoded_bytes::<proto::Action>(message, MAX_DECODED_BYTES) > MAX_DECODED_BYTES {
            return Err(ActionError::TooManyFields { action });
        }
        let decoded = proto::Action::decode(message)
            .map_err(|source| ActionError::Decode { action, source })?;
        let digest = |field, digest: Option<proto::Digest>| {
            Digest::from_proto_field(digest.as_ref(), action.function())
                .map_err(|source| ActionError::Digest { action, field, source })
        };
        Ok(Self {
            action,
            command: digest("command_digest", decoded.command_digest)?,
            input_root: digest("input_root_digest", decoded.input_root_digest)?,
            timeout: timeout(action, decoded.timeout)?,
            do_not_cache: decoded.do_not_cache,
            platform: decoded.platform,
        })
    }

    /// Refuses an action of that many bytes if no `Action` message may be so large; to be asked
    /// before the message is read.
    pub fn check_size(action: Digest, size_bytes: u64) -> Result<(), ActionError> {
        if size_bytes > MAX_MESSAGE_BYTES as u64 {
            return Err(ActionError::TooLarge { action });
        }
        Ok(())
    }

    /// The memory that the message takes, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let properties = self.platform.iter().flat_map(|platform| &platform.properties);
        let text = |property: &proto::platform::Property| {
            size_of_val(property) + property.name.capacity() + property.value.capacity()
        };
        (size_of::<Self>() + properties.map(text).sum::<usize>()) as u64
    }

    /// The limits that the action's own platform declares. Those of a command's platform, which clients of
    /// API 2.1 and before send, are not known yet; a property that is malformed is refused later.
    pub fn declared_limits(&self) -> Limits {
        Limits::declared(self.platform.as_ref())
    }

    /// Refuses a command of that many bytes if no `Command` message may be so large; to be asked
    /// before [`ActionMessage::command`] is read.
    pub fn check_command_size(&self) -> Result<(), ActionError> {
        CommandSpec::check_size(self.command.size_bytes())
            .map_err(|source| ActionError::Command { command: self.command, source })
    }

    /// Completes the action with the `Command` message that [`ActionMessage::command`] names, if
    /// `worker` is the platform that it asks for.
    pub fn with_command(
        self,
        message: &[u8],
        worker: &WorkerPlatform,
    ) -> Result<ActionSpec, ActionError> {
        let command = CommandSpec::parse(message, self.platform.as_ref(), worker)
            .map_err(|source| ActionError::Command { command: self.command, source })?;
        Ok(ActionSpec {
            action: self.action,
            command,
            input_root: self.input_root,
            timeout: self.timeout,
            do_not_cache: self.do_not_cache,
        })
    }
}

/// Reads a timeout. Zero stands for none: nobody means "kill it at once", and clients that set the
/// field without a value exist.
fn timeout(
    action: Digest,
    timeout: Option<proto::Duration>,
) -> Result<Option<Duration>, ActionError> {
    let Some(proto::Duration { seconds, nanos }) = timeout else {
        return Ok(None);
    };
    let whole = u64::try_from(seconds).ok();
    let part = u32::try_from(nanos).ok();
    match (whole, part) {
        (Some(0), Some(0)) => Ok(None),
        (Some(whole @ 0..=MAX_TIMEOUT_SECONDS), Some(part @ 0..1_000_000_000)) => {
            Ok(Some(Duration::new(whole, part)))
        }
        _ => Err(ActionError::Timeout { action, seconds, nanos }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest_function::DigestFunction;

    fn digest(function: DigestFunction, content: &str) -> Digest {
        Digest::of(function, content.as_bytes())
    }

    fn message(function: DigestFunction) -> proto::Action {
        proto::Action {
            command_digest: Some(digest(function, "command").to_proto()),
            input_root_digest: Some(digest(function, "root").to_proto()),
            ..Default::default()
        }
    }

    fn parse(action: &proto::Action) -> Result<ActionMessage, ActionError> {
        let digest = digest(DigestFunction::Sha256, "action");
        ActionMessage::parse(digest, &action.encode_to_vec())
    }

    #[test]
    fn digests_are_of_the_actions_own_function() {
        for function in DigestFunction::ALL {
            let action = digest(function, "action");
            let bytes = message(function).encode_to_vec();
            let parsed = ActionMessage::parse(action, &bytes).unwrap();
            assert_eq!(parsed.action, action);
            assert_eq!(parsed.command, digest(function, "command"));
            assert_eq!(parsed.input_root, digest(function, "root"));
        }
    }

    #[test]
    fn digests_are_needed() {
        let field = |action: &proto::Action| match parse(action) {
            Err(ActionError::Digest { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let mut action = message(DigestFunction::Sha256);
        action.input_root_digest = None;
        assert_eq!(field(&action), "input_root_digest");
        action.command_digest = Some(proto::Digest::default());
        assert_eq!(field(&action), "command_digest");
    }

    #[test]
    fn timeouts() {
        let check = |seconds, nanos, expected: Option<Option<Duration>>| {
            let action = proto::Action {
                timeout: Some(proto::Duration { seconds, nanos }),
                ..message(DigestFunction::Sha256)
            };
            let timeout = parse(&action).ok().map(|action| action.timeout);
            assert_eq!(timeout, expected, "{seconds} s {nanos} ns");
        };
        check(5, 500_000_000, Some(Some(Duration::from_millis(5500))));
        check(0, 1, Some(Some(Duration::from_nanos(1))));
        check(0, 0, Some(None));
        check(-1, 0, None);
        check(0, -1, None);
        check(0, 1_000_000_000, None);
        check(i64::MAX, 0, None);
        check(315_576_000_000, 0, Some(Some(Duration::from_secs(315_576_000_000))));
        let none = parse(&message(DigestFunction::Sha256)).unwrap().timeout;
        assert_eq!(none, None);
    }

    #[test]
    fn the_whole_action() {
        let action = proto::Action {
            do_not_cache: true,
            salt: b"salt".as_slice().into(),
            platform: Some(proto::Platform {
                properties: vec![proto::platform::Property {
                    name: "mutates_inputs".to_owned(),
                    value: "true".to_owned(),
                }],
            }),
            ..message(DigestFunction::Sha256)
        };
        let command = proto::Command { arguments: vec!["true".to_owned()], ..Default::default() };
        let with = |command: &[u8]| {
            parse(&action).unwrap().with_command(command, &WorkerPlatform::default())
        };
        let spec = with(&command.encode_to_vec()).unwrap();
        assert!(spec.do_not_cache && spec.command.properties.mutates_inputs);

        let empty = with(b"");
        assert!(matches!(empty, Err(ActionError::Command { .. })));
    }

    #[test]
    fn an_action_that_grows_when_it_is_decoded_is_refused() {
        let with_properties = |count| proto::Action {
            platform: Some(proto::Platform { properties: vec![Default::default(); count] }),
            ..message(DigestFunction::Sha256)
        };
        let parsed = parse(&with_properties(1000)).unwrap();
        assert!((10_000..MAX_DECODED_BYTES).contains(&parsed.memory_bytes()));
        let refused = parse(&with_properties(100_000));
        assert!(matches!(refused, Err(ActionError::TooManyFields { .. })), "{refused:?}");
    }

    #[test]
    fn sizes_are_checked_before_reading() {
        let large = |size_bytes| Digest::new(DigestFunction::Sha256, [7; 32], size_bytes);
        let action = large(MAX_MESSAGE_BYTES as u64 + 1);
        let refused = ActionMessage::check_size(action, action.size_bytes());
        assert_eq!(refused, Err(ActionError::TooLarge { action }));
        let mut message = parse(&message(DigestFunction::Sha256)).unwrap();
        assert_eq!(message.check_command_size(), Ok(()));
        message.command = large(1 << 30);
        assert!(matches!(message.check_command_size(), Err(ActionError::Command { .. })));
    }

    #[test]
    fn what_is_no_action() {
        let digest = digest(DigestFunction::Sha256, "action");
        assert!(matches!(ActionMessage::parse(digest, b"\xff"), Err(ActionError::Decode { .. })));
        assert!(matches!(
            ActionMessage::parse(digest, &vec![0; MAX_MESSAGE_BYTES + 1]),
            Err(ActionError::TooLarge { .. })
        ));
    }
}
