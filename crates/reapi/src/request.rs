//! The fields that all requests share: digests, digest functions, and the instance name.
//!
//! Each function parses one field, and a field that is malformed is INVALID_ARGUMENT.

use model::{Digest, DigestError, DigestFunction, InstanceName, InstanceNameError, proto};
use prost::Message as _;
use store::Cas;
use tonic::{Code, Status};

use crate::status;

/// An error of a request, found before anything is looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// A field's digest is none.
    #[error("{field}")]
    Digest {
        /// The field.
        field: &'static str,
        /// The problem with it.
        source: DigestError,
    },
    /// A digest's encoding is not a `Digest` message.
    #[error("{field}: not a Digest message")]
    NotADigest {
        /// The field.
        field: &'static str,
    },
    /// The instance name is none.
    #[error(transparent)]
    InstanceName(#[from] InstanceNameError),
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        status::of(Code::InvalidArgument, &error)
    }
}

/// Reads a request's `digest_function` field.
pub(crate) fn function(value: i32) -> Result<DigestFunction, RequestError> {
    DigestFunction::from_proto(value)
        .map_err(|source| RequestError::Digest { field: "digest_function", source })
}

/// Reads a digest field of a generated message.
pub(crate) fn digest(
    field: &'static str,
    digest: Option<&proto::Digest>,
    function: DigestFunction,
) -> Result<Digest, RequestError> {
    Digest::from_proto_field(digest, function)
        .map_err(|source| RequestError::Digest { field, source })
}

/// Reads the digest of an Action.
///
/// Some clients use BLAKE3 without saying so in their requests, and its hashes
/// look like those of SHA-256. So where the function is not said, it is that by
/// which the Action is in the store.
pub(crate) fn action(
    message: Option<&proto::Digest>,
    function_value: i32,
    cas: &Cas,
) -> Result<Digest, RequestError> {
    let digest_as = |function| digest("action_digest", message, function);
    let assumed = digest_as(function(function_value)?)?;
    if function_value == proto::digest_function::Value::Unknown as i32 && !cas.contains(&assumed) {
        let other = digest_as(DigestFunction::Blake3)?;
        if cas.contains(&other) {
            return Ok(other);
        }
    }
    Ok(assumed)
}

/// Reads an encoded `Digest` message in place.
///
/// Canonical encodings, which all clients send, are read without allocating;
/// whatever else is valid protobuf goes the long way.
pub(crate) fn encoded_digest(
    field: &'static str,
    encoded: &[u8],
    function: DigestFunction,
) -> Result<Digest, RequestError> {
    if let Some((hash, size_bytes)) = canonical_parts(encoded) {
        return Digest::parse_hex_bytes(function, hash, size_bytes)
            .map_err(|source| RequestError::Digest { field, source });
    }
    let message = proto::Digest::decode(encoded).map_err(|_| RequestError::NotADigest { field })?;
    digest(field, Some(&message), function)
}

/// Splits `0x0a 64 <hash> [0x10 <size>]`. `None` for any other form.
fn canonical_parts(encoded: &[u8]) -> Option<(&[u8], u64)> {
    let (hash, rest) = encoded.strip_prefix(&[0x0a, 64])?.split_at_checked(64)?;
    let Some(mut size) = rest.strip_prefix(&[0x10]) else {
        return rest.is_empty().then_some((hash, 0));
    };
    let size_bytes = prost::encoding::decode_varint(&mut size).ok()?;
    // A size beyond i64 is a negative one on the wire: the long way words it.
    (size.is_empty() && i64::try_from(size_bytes).is_ok()).then_some((hash, size_bytes))
}

/// Reads a request's `instance_name` field.
pub(crate) fn instance_name(name: &str) -> Result<InstanceName, RequestError> {
    Ok(InstanceName::parse(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn check(encoded: &[u8], expected: Result<Digest, RequestError>) {
        assert_eq!(encoded_digest("digest", encoded, FUNCTION), expected);
    }

    #[test]
    fn encoded_digests_are_read_like_decoded_ones() {
        for content in [&b""[..], b"x", &[7; 300], &[7; 70_000]] {
            let digest = Digest::of(FUNCTION, content);
            check(&digest.to_proto().encode_to_vec(), Ok(digest));
        }
        let digest = Digest::of(FUNCTION, b"reversed");
        let canonical = digest.to_proto().encode_to_vec();
        let reversed = [&canonical[66..], &canonical[..66]].concat();
        check(&reversed, Ok(digest));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let invalid = |source| Err(RequestError::Digest { field: "digest", source });
        let message = |hash: &str, size_bytes| {
            proto::Digest { hash: hash.to_owned(), size_bytes }.encode_to_vec()
        };
        let hash = "0".repeat(64);
        check(b"", invalid(DigestError::HashLength(0)));
        check(&message(&hash[1..], 1), invalid(DigestError::HashLength(63)));
        check(&message(&"G".repeat(64), 1), invalid(DigestError::HashCharacter));
        check(&message(&hash, -1), invalid(DigestError::Size(-1)));
        check(&[0x0a, 64, 1], Err(RequestError::NotADigest { field: "digest" }));
        check(&[0xff; 66], Err(RequestError::NotADigest { field: "digest" }));
    }

    #[test]
    fn a_refusal_names_the_field_and_its_cause_once() {
        let refused = digest("root_digest", None, FUNCTION).unwrap_err();
        let status = Status::from(refused);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "root_digest: the digest is missing");
        let status = Status::from(instance_name("blobs").unwrap_err());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message().matches("blobs").count(), 1);
    }
}
