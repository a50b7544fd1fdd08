//! Errors of reading digests from messages and resource names.

/// An error of reading a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The server does not support the digest function.
    #[error("digest function {0} is not supported; use SHA256 or BLAKE3")]
    UnsupportedFunction(i32),
    /// The hash has another length than the function's.
    #[error("a hash has 64 hexadecimal characters, not {0}")]
    HashLength(usize),
    /// The hash has a character outside `0-9a-f`; REAPI wants lower case.
    #[error("a hash consists of lower-case hexadecimal characters only")]
    HashCharacter,
    /// The size is negative, or beyond what `int64` holds.
    #[error("the size {0} is not a size")]
    Size(i128),
    /// A message that must carry a digest has none.
    #[error("the digest is missing")]
    Missing,
}
