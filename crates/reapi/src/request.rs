//! The fields that all requests share: digests, digest functions, and the instance name.
//!
//! Each function parses one field, and a field that is malformed is INVALID_ARGUMENT.

use bytes::Bytes;
use model::{
    Digest, DigestError, DigestFunction, DigestFunctions, InstanceName, InstanceNameError,
    NoSuchInstance, proto,
};
use prost::Message as _;
use store::Cas;
use tonic::{Code, Status};

use crate::offer::Offer;
use crate::status;

/// An error of a request, found before anything is looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    /// The digest of a field is invalid.
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
    /// The instance name is invalid.
    #[error(transparent)]
    InstanceName(#[from] InstanceNameError),
    /// The server does not have that instance. Not NOT_FOUND, which clients of the cache take for a miss.
    #[error(transparent)]
    NoSuchInstance(#[from] NoSuchInstance),
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        status::of(Code::InvalidArgument, &error)
    }
}

/// Reads the `digest_function` field of a request that names `digests` in their encoded form. A
/// client may leave it unset; then the length of the hashes tells.
pub(crate) fn function<'a>(
    offered: &DigestFunctions,
    value: i32,
    digests: impl IntoIterator<Item = &'a Bytes>,
) -> Result<DigestFunction, RequestError> {
    let hash_chars = |encoded: &Bytes| match canonical_parts(encoded) {
        Some((hash, _)) => hash.len(),
        None => proto::Digest::decode(encoded.clone()).map_or(0, |digest| digest.hash.len()),
    };
    function_by_length(offered, value, digests.into_iter().map(hash_chars))
}

/// As [`function`], for a request with one digest of a generated message.
pub(crate) fn function_of(
    offered: &DigestFunctions,
    value: i32,
    digest: Option<&proto::Digest>,
) -> Result<DigestFunction, RequestError> {
    function_by_length(offered, value, digest.map(|digest| digest.hash.len()))
}

fn function_by_length(
    offered: &DigestFunctions,
    value: i32,
    hash_chars: impl IntoIterator<Item = usize>,
) -> Result<DigestFunction, RequestError> {
    let function = offered.read(value, hash_chars);
    function.map_err(|source| RequestError::Digest { field: "digest_function", source })
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
    offered: &DigestFunctions,
    cas: &Cas,
) -> Result<Digest, RequestError> {
    let digest_as = |function| digest("action_digest", message, function);
    let assumed = digest_as(function_of(offered, function_value, message)?)?;
    if function_value == proto::digest_function::Value::Unknown as i32
        && assumed.function() == DigestFunction::Sha256
        && offered.contains(DigestFunction::Blake3)
        && !cas.contains(&assumed)
    {
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

/// Splits `0x0a <length> <hash> [0x10 <size>]`. `None` for any other form.
fn canonical_parts(encoded: &[u8]) -> Option<(&[u8], u64)> {
    let (hash, rest) = match encoded {
        [0x0a, length @ ..0x80, rest @ ..] => rest.split_at_checked(usize::from(*length))?,
        // The length of SHA-512's hashes, as a varint.
        [0x0a, 0x80, 0x01, rest @ ..] => rest.split_at_checked(128)?,
        _ => return None,
    };
    let Some(mut size) = rest.strip_prefix(&[0x10]) else {
        return rest.is_empty().then_some((hash, 0));
    };
    let size_bytes = prost::encoding::decode_varint(&mut size).ok()?;
    // A size beyond i64 is a negative one on the wire: the long way words it.
    (size.is_empty() && i64::try_from(size_bytes).is_ok()).then_some((hash, size_bytes))
}

/// Reads a request's `instance_name` field.
pub(crate) fn instance_name(offer: &Offer, name: &str) -> Result<InstanceName, RequestError> {
    let instance = InstanceName::parse(name)?;
    offer.instances.check(name)?;
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    #[test]
    fn digests_of_every_function_are_read_and_told_apart_by_their_length() {
        let offered = DigestFunctions::of(DigestFunction::ALL);
        for function in DigestFunction::ALL {
            let digest = Digest::of(function, &[7; 300]);
            let encoded = Bytes::from(digest.to_proto().encode_to_vec());
            assert_eq!(canonical_parts(&encoded), Some((&digest.hex_bytes()[..], 300)));
            assert_eq!(encoded_digest("digest", &encoded, function), Ok(digest));
            let bad = Bytes::from_static(b"bad");
            let found = super::function(&offered, 0, [&bad, &encoded]);
            let expected =
                if function == DigestFunction::Blake3 { DigestFunction::Sha256 } else { function };
            assert_eq!(found, Ok(expected));
        }
    }

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
        let status = Status::from(instance_name(&Offer::default(), "blobs").unwrap_err());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message().matches("blobs").count(), 1);
        let offer = Offer { instances: "main".parse().unwrap(), ..Offer::default() };
        assert_eq!(instance_name(&offer, "main").unwrap().as_str(), "main");
        let status = Status::from(instance_name(&offer, "other").unwrap_err());
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message().matches("other").count(), 1);
    }
}
