//! The names that a client gives its requests: the `RequestMetadata` header (REAPI,
//! "build.bazel.remote.execution.v2.requestmetadata-bin").

use access::Permit;
use bytes::Bytes;
use events::Origin;
use model::Printable;
use model::proto::RequestMetadata;
use prost::Message as _;
use tonic::Extensions;
use tonic::metadata::MetadataMap;

/// The header with an encoded `RequestMetadata`.
const HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// The origin of a request with those headers and extensions.
pub(crate) fn of(headers: &MetadataMap, extensions: &Extensions) -> Origin {
    let permit = extensions.get::<Permit>();
    let principal = permit.map(|permit| Printable::name(permit.principal()));
    Origin { principal: principal.unwrap_or_default(), ..named_in(headers) }
}

/// The encoded `RequestMetadata` in a request's headers; empty if there is none.
pub(crate) fn encoded(headers: &MetadataMap) -> Bytes {
    let bytes = headers.get_bin(HEADER).and_then(|value| value.to_bytes().ok());
    bytes.unwrap_or_default()
}

/// The names in a request's headers. They only inform people, so a header that cannot be read is as
/// good as none.
fn named_in(headers: &MetadataMap) -> Origin {
    let bytes = headers.get_bin(HEADER).and_then(|value| value.to_bytes().ok());
    let metadata = bytes.and_then(|bytes| RequestMetadata::decode(bytes).ok());
    let Some(metadata) = metadata else { return Origin::default() };
    let tool = metadata.tool_details.unwrap_or_default();
    let tool = [tool.tool_name, tool.tool_version].join(" ");
    Origin {
        principal: Printable::default(),
        tool: Printable::name(tool.trim()),
        invocation: Printable::name(&metadata.tool_invocation_id),
        mnemonic: Printable::name(&metadata.action_mnemonic),
        target: Printable::name(&metadata.target_id),
        configuration: Printable::name(&metadata.configuration_id),
    }
}

#[cfg(test)]
mod tests {
    use model::proto::ToolDetails;
    use tonic::metadata::MetadataValue;

    use super::*;

    fn origin(bytes: &[u8]) -> Origin {
        let mut headers = MetadataMap::new();
        headers.insert_bin(HEADER, MetadataValue::from_bytes(bytes));
        named_in(&headers)
    }

    #[test]
    fn names_are_read_and_bounded() {
        let metadata = RequestMetadata {
            tool_details: Some(ToolDetails {
                tool_name: "bazel".into(),
                tool_version: "7.7.1".into(),
            }),
            tool_invocation_id: "i".into(),
            action_mnemonic: "CppCompile".into(),
            target_id: format!("//a\n{}", "é".repeat(1000)),
            configuration_id: "c".into(),
            ..RequestMetadata::default()
        };
        let expected = Origin {
            principal: Printable::default(),
            tool: "bazel 7.7.1".into(),
            invocation: "i".into(),
            mnemonic: "CppCompile".into(),
            target: Printable::name(format!("//a\n{}", "é".repeat(1000))),
            configuration: "c".into(),
        };
        let found = origin(&metadata.encode_to_vec());
        assert_eq!(found, expected);
        assert!(found.target.as_str().starts_with(r"//a\né"), "{}", found.target);
        assert!(found.target.as_str().chars().count() < 200);
    }

    #[test]
    fn a_header_that_is_malformed_or_missing_is_as_good_as_none() {
        assert_eq!(origin(b"\xff\xff\xff"), Origin::default());
        assert_eq!(of(&MetadataMap::new(), &Extensions::new()), Origin::default());
    }
}
