//! Errors of reading digests from messages and resource names.

/// An error of reading a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The server does not support the digest function.
    #[error("digest function {0} is not supported; use SHA256 or BLAKE3")]
    UnsupportedFunction(i32),
    /// The server supports the digest function, but its operator does not offer it.
    #[error("digest function {function} is not offered by this server, which has {offered}")]
    NotOffered {
        /// The name of the function.
        function: &'static str,
        /// The names of those that are offered.
        offered: String,
    },
    /// The hash has another length than the function's, or than that of any function.
    #[error("a hash of {0} characters does not belong to the digest function{hint}", hint = hint(*.0))]
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

/// The length of the hashes of justbuild's native protocol: a git object id behind two digits that
/// tell files from trees.
const GIT_HASH_CHARS: usize = 42;

/// A hint for clients that send hashes of that length.
fn hint(hash_chars: usize) -> &'static str {
    match hash_chars {
        GIT_HASH_CHARS => {
            "; it is a git object id of justbuild's native protocol, which this server does not \
             speak: start the client with `--compatible`"
        }
        _ => "",
    }
}
