//! The names that a client gives its requests (`RequestMetadata` of REAPI).

use bytes::Bytes;
use chain::Printable;
use model::proto::RequestMetadata;
use prost::Message as _;
use serde::Serialize;

use crate::TraceContext;

/// The largest encoded `RequestMetadata` that is kept; Bazel's take 300 to 600 bytes. A listener may hold
/// thousands of them, so a larger one counts as none.
const METADATA_BYTES_MAX: usize = 4 << 10;

/// The origin of a request. All names but the principal's are from its `RequestMetadata` (REAPI) and empty
/// where the client sent none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Origin {
    /// The principal, by the operator's name; empty for anonymous callers.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub principal: Printable,
    /// The client program and its version.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub tool: Printable,
    /// One run of the client, such as one `bazel build`.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub invocation: Printable,
    /// The kind of action, such as `CppCompile`.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub mnemonic: Printable,
    /// The target that the action belongs to.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub target: Printable,
    /// The configuration that the target is built in.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub configuration: Printable,
    /// The place in a trace of the client. It is a header of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// The sender of a request, with the names as it sent them. Parsing them takes some microseconds, which a
/// lookup of a cached result leaves to the listeners that need them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    principal: Printable,
    metadata: Bytes,
}

impl Caller {
    /// The sender with that principal (empty for anonymous callers) and that encoded `RequestMetadata`. Metadata
    /// of more than 4 KiB are left out.
    pub fn new(principal: Printable, metadata: Bytes) -> Self {
        let metadata = if metadata.len() > METADATA_BYTES_MAX { Bytes::new() } else { metadata };
        Self { principal, metadata }
    }

    /// Parses the names. They only inform people, so metadata that are malformed are as good as none.
    pub fn origin(&self) -> Origin {
        let principal = self.principal.clone();
        let Ok(metadata) = RequestMetadata::decode(&*self.metadata) else {
            return Origin { principal, ..Origin::default() };
        };
        let tool = metadata.tool_details.unwrap_or_default();
        let tool = [tool.tool_name, tool.tool_version].join(" ");
        Origin {
            principal,
            tool: Printable::name(tool.trim()),
            invocation: Printable::name(&metadata.tool_invocation_id),
            mnemonic: Printable::name(&metadata.action_mnemonic),
            target: Printable::name(&metadata.target_id),
            configuration: Printable::name(&metadata.configuration_id),
            trace: None,
        }
    }

    /// The names that all requests of a build and a mnemonic share, not parsed. Equal ones have equal origins but for
    /// target and configuration.
    pub fn encoded_build(&self) -> EncodedBuild {
        // Metadata that are malformed are as good as none here, too.
        let names = EncodedNames::decode(self.metadata.clone()).unwrap_or_default();
        EncodedBuild { principal: self.principal.clone(), names }
    }
}

/// The principal, the client program, the invocation and the mnemonic of a request, as the client encoded them. It is
/// a key for hash tables, made without a copy of the names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EncodedBuild {
    principal: Printable,
    names: EncodedNames,
}

/// The fields of `RequestMetadata` that a build and a mnemonic have; a string and a message are encoded as bytes are.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
struct EncodedNames {
    #[prost(bytes = "bytes", tag = "1")]
    tool_details: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    tool_invocation_id: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    action_mnemonic: Bytes,
}

#[cfg(test)]
mod tests {
    use model::proto::ToolDetails;

    use super::*;

    fn metadata(target: &str) -> RequestMetadata {
        RequestMetadata {
            tool_details: Some(ToolDetails {
                tool_name: "bazel".into(),
                tool_version: "7.7.1".into(),
            }),
            tool_invocation_id: "i".into(),
            action_mnemonic: "CppCompile".into(),
            target_id: target.to_owned(),
            configuration_id: "c".into(),
            ..RequestMetadata::default()
        }
    }

    fn caller(metadata: &[u8]) -> Caller {
        Caller::new("ci".into(), Bytes::copy_from_slice(metadata))
    }

    #[test]
    fn names_are_read_and_bounded() {
        let target = format!("//a\n{}", "é".repeat(1000));
        let found = caller(&metadata(&target).encode_to_vec()).origin();
        let expected = Origin {
            principal: "ci".into(),
            tool: "bazel 7.7.1".into(),
            invocation: "i".into(),
            mnemonic: "CppCompile".into(),
            target: Printable::name(&target),
            configuration: "c".into(),
            trace: None,
        };
        assert_eq!(found, expected);
        assert!(found.target.as_str().starts_with(r"//a\né"), "{}", found.target);
        assert!(found.target.as_str().chars().count() < 200);
    }

    #[test]
    fn requests_of_one_build_and_mnemonic_have_equal_keys() {
        let key = |change: fn(&mut RequestMetadata)| {
            let mut metadata = metadata("//a");
            change(&mut metadata);
            caller(&metadata.encode_to_vec()).encoded_build()
        };
        let same = key(|_| {});
        let others = |it: &mut RequestMetadata| {
            it.target_id = "//b".into();
            it.configuration_id = "d".into();
            it.action_id = "e".into();
        };
        assert_eq!(key(others), same);
        assert_ne!(key(|it| it.tool_invocation_id = "j".into()), same);
        assert_ne!(key(|it| it.action_mnemonic = "Javac".into()), same);
        assert_ne!(key(|it| it.tool_details = None), same);
        let bytes = metadata("//a").encode_to_vec();
        let other_principal = Caller::new("me".into(), bytes.into());
        assert_ne!(other_principal.encoded_build(), same);
        assert_eq!(caller(b"\xff\xff\xff").encoded_build(), caller(b"").encoded_build());
    }

    #[test]
    fn metadata_that_are_malformed_or_missing_or_huge_are_as_good_as_none() {
        let nameless = Origin { principal: "ci".into(), ..Origin::default() };
        let huge = metadata(&"x".repeat(METADATA_BYTES_MAX)).encode_to_vec();
        for bytes in [&b"\xff\xff\xff"[..], b"", &huge] {
            assert_eq!(caller(bytes).origin(), nameless);
        }
        assert!(caller(&huge).metadata.is_empty(), "it is not kept");
    }
}
