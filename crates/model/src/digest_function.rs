//! The hash functions that blobs can be addressed by, and their names in files and messages.

use std::fmt;

use crate::digest_error::DigestError;
use crate::proto;

/// A hash function that blobs are addressed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestFunction {
    /// SHA-256, what every client speaks.
    Sha256,
    /// BLAKE3 with 32 bytes of output.
    Blake3,
}

impl DigestFunction {
    /// Every function, in the order in which they are offered to clients.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Blake3];

    /// The lower-case name, as in resource names and in the store's directories.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        }
    }

    /// The function of that lower-case name, if it is supported.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }

    /// Reads the `digest_function` field of a request.
    ///
    /// Clients of API 2.2 and before leave it unset, and the server infers the function from the
    /// length of the hash; of the functions with 64 characters those clients can only mean SHA-256.
    pub fn from_proto(value: i32) -> Result<Self, DigestError> {
        use proto::digest_function::Value;
        match Value::try_from(value) {
            Ok(Value::Unknown | Value::Sha256) => Ok(Self::Sha256),
            Ok(Value::Blake3) => Ok(Self::Blake3),
            _ => Err(DigestError::UnsupportedFunction(value)),
        }
    }

    /// The value of REAPI's `DigestFunction.Value` enumeration.
    pub fn to_proto(self) -> i32 {
        use proto::digest_function::Value;
        match self {
            Self::Sha256 => Value::Sha256.into(),
            Self::Blake3 => Value::Blake3.into(),
        }
    }
}

impl fmt::Display for DigestFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for function in DigestFunction::ALL {
            assert_eq!(DigestFunction::from_proto(function.to_proto()), Ok(function));
            assert_eq!(DigestFunction::from_name(function.name()), Some(function));
        }
    }

    #[test]
    fn other_functions_are_refused_and_none_is_sha256() {
        assert_eq!(
            DigestFunction::from_proto(0),
            Ok(DigestFunction::Sha256),
            "an unset function is inferred"
        );
        assert!(DigestFunction::from_proto(2).is_err(), "SHA-1");
        assert!(DigestFunction::from_proto(-1).is_err());
        assert_eq!(DigestFunction::from_name("SHA256"), None);
    }
}
