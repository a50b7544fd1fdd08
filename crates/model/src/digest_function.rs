//! The hash functions that blobs can be addressed by, and their names in files and messages.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

use crate::digest_error::DigestError;
use crate::hash_bytes::HashBytes;
use crate::proto;

/// A hash function that blobs are addressed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestFunction {
    /// SHA-256, what every client speaks.
    Sha256,
    /// BLAKE3 with 32 bytes of output.
    Blake3,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
    /// SHA-1, for old clients. Collisions can be made.
    Sha1,
    /// MD5, for old clients. Collisions can be made by anybody.
    Md5,
}

impl DigestFunction {
    /// Every function, in the order in which they are offered to clients.
    pub const ALL: [Self; 6] =
        [Self::Sha256, Self::Blake3, Self::Sha384, Self::Sha512, Self::Sha1, Self::Md5];

    /// The lower-case name, as in resource names and in the store's directories.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sha1 => "sha1",
            Self::Md5 => "md5",
        }
    }

    /// The function of that lower-case name, if it is supported.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }

    /// The number of bytes of a hash.
    pub const fn hash_bytes(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
            Self::Sha1 => 20,
            Self::Md5 => 16,
        }
    }

    /// The hash of `content`.
    pub(crate) fn hash(self, content: &[u8]) -> HashBytes {
        match self {
            Self::Sha256 => HashBytes::of(&sha2::Sha256::digest(content)),
            Self::Blake3 => HashBytes::of(blake3::hash(content).as_bytes()),
            Self::Sha384 => HashBytes::of(&sha2::Sha384::digest(content)),
            Self::Sha512 => HashBytes::of(&sha2::Sha512::digest(content)),
            Self::Sha1 => HashBytes::of(&sha1::Sha1::digest(content)),
            Self::Md5 => HashBytes::of(&md5::Md5::digest(content)),
        }
    }

    /// The name that stands before the hash in resource names. REAPI leaves it out for the functions
    /// that it had before 2.3, which are told apart by the length of the hash.
    pub const fn resource_name_segment(self) -> Option<&'static str> {
        match self {
            Self::Blake3 => Some(self.name()),
            Self::Sha256 | Self::Sha384 | Self::Sha512 | Self::Sha1 | Self::Md5 => None,
        }
    }

    /// Reads the `digest_function` field of a request; `None` if the client left it unset.
    pub fn from_proto(value: i32) -> Result<Option<Self>, DigestError> {
        use proto::digest_function::Value;
        match Value::try_from(value) {
            Ok(Value::Unknown) => Ok(None),
            Ok(Value::Sha256) => Ok(Some(Self::Sha256)),
            Ok(Value::Blake3) => Ok(Some(Self::Blake3)),
            Ok(Value::Sha384) => Ok(Some(Self::Sha384)),
            Ok(Value::Sha512) => Ok(Some(Self::Sha512)),
            Ok(Value::Sha1) => Ok(Some(Self::Sha1)),
            Ok(Value::Md5) => Ok(Some(Self::Md5)),
            _ => Err(DigestError::UnsupportedFunction(value)),
        }
    }

    /// The value of REAPI's `DigestFunction.Value` enumeration.
    pub fn to_proto(self) -> i32 {
        use proto::digest_function::Value;
        match self {
            Self::Sha256 => Value::Sha256,
            Self::Blake3 => Value::Blake3,
            Self::Sha384 => Value::Sha384,
            Self::Sha512 => Value::Sha512,
            Self::Sha1 => Value::Sha1,
            Self::Md5 => Value::Md5,
        }
        .into()
    }
}

impl fmt::Display for DigestFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DigestFunction {
    type Err = String;

    /// Reads the name, in which a dash or capital letters are no difference: `SHA-256`.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.to_ascii_lowercase().replace('-', "");
        Self::from_name(&name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("no digest function is called {text:?}; there are {names}")
        })
    }
}

/// The digest functions that a server offers, in the order in which it offers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestFunctions {
    functions: [Option<DigestFunction>; DigestFunction::ALL.len()],
}

impl DigestFunctions {
    /// Those functions, each once, the first ones first.
    pub fn of(functions: impl IntoIterator<Item = DigestFunction>) -> Self {
        let mut kept = Self { functions: [None; DigestFunction::ALL.len()] };
        for function in functions {
            if !kept.contains(function)
                && let Some(free) = kept.functions.iter_mut().find(|it| it.is_none())
            {
                *free = Some(function);
            }
        }
        kept
    }

    /// Whether the function is among them.
    pub fn contains(&self, function: DigestFunction) -> bool {
        self.functions.contains(&Some(function))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = DigestFunction> {
        self.functions.into_iter().flatten()
    }

    /// Reads a request's `digest_function` field.
    ///
    /// Clients of API 2.2 and before leave it unset. The function is then inferred from the first hash
    /// of the request that has the length of one, given the hashes' lengths in hexadecimal. Where two
    /// functions have that length, clients that old can only mean SHA-256.
    pub fn read(
        &self,
        value: i32,
        hash_chars: impl IntoIterator<Item = usize>,
    ) -> Result<DigestFunction, DigestError> {
        match DigestFunction::from_proto(value)? {
            Some(function) if self.contains(function) => return Ok(function),
            Some(function) => return Err(self.not_offered(function)),
            None => {}
        }
        for chars in hash_chars {
            match self.infer(chars) {
                Err(DigestError::HashLength(_)) => {}
                inferred => return inferred,
            }
        }
        // There is no hash, or none that is one, and the caller refuses those whatever the function.
        Ok(self.iter().next().unwrap_or(DigestFunction::Sha256))
    }

    /// The function whose hashes have that many characters; of SHA-256 and BLAKE3 the former, if it is
    /// offered.
    pub fn infer(&self, hex_chars: usize) -> Result<DigestFunction, DigestError> {
        let fits = |function: &DigestFunction| 2 * function.hash_bytes() == hex_chars;
        if let Some(function) =
            DigestFunction::ALL.into_iter().find(|it| fits(it) && self.contains(*it))
        {
            return Ok(function);
        }
        match DigestFunction::ALL.into_iter().find(fits) {
            Some(function) => Err(self.not_offered(function)),
            None => Err(DigestError::HashLength(hex_chars)),
        }
    }

    fn not_offered(&self, function: DigestFunction) -> DigestError {
        DigestError::NotOffered { function: function.name(), offered: self.to_string() }
    }
}

impl Default for DigestFunctions {
    /// Those that are without known weaknesses.
    fn default() -> Self {
        use DigestFunction::{Blake3, Sha256, Sha384, Sha512};
        Self::of([Sha256, Blake3, Sha384, Sha512])
    }
}

impl fmt::Display for DigestFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, function) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{function}")?;
        }
        Ok(())
    }
}

impl FromStr for DigestFunctions {
    type Err = String;

    /// Reads names with commas between.
    fn from_str(text: &str) -> Result<Self, String> {
        let functions = text.split(',').map(|name| name.trim().parse());
        Ok(Self::of(functions.collect::<Result<Vec<DigestFunction>, String>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DigestFunction::{Blake3, Md5, Sha1, Sha256, Sha384, Sha512};

    #[test]
    fn names_and_numbers_round_trip() {
        for function in DigestFunction::ALL {
            assert_eq!(DigestFunction::from_proto(function.to_proto()), Ok(Some(function)));
            assert_eq!(DigestFunction::from_name(function.name()), Some(function));
            assert_eq!(function.name().to_uppercase().parse(), Ok(function));
        }
        assert_eq!("SHA-512".parse(), Ok(Sha512));
        assert_eq!(DigestFunction::from_name("SHA256"), None);
        assert!("sha3".parse::<DigestFunction>().is_err_and(|text| text.contains("sha384")));
    }

    #[test]
    fn other_functions_are_refused() {
        assert_eq!(DigestFunction::from_proto(0), Ok(None));
        for value in [proto::digest_function::Value::Vso as i32, 7, 8, 1000, -1] {
            let refused = DigestFunction::from_proto(value);
            assert_eq!(refused, Err(DigestError::UnsupportedFunction(value)));
        }
    }

    #[test]
    fn a_function_that_is_not_said_is_inferred_from_the_length() {
        let all = DigestFunctions::of(DigestFunction::ALL);
        let infer = |functions: &DigestFunctions, chars: usize| functions.infer(chars);
        for (chars, function) in [(64, Sha256), (96, Sha384), (128, Sha512), (40, Sha1), (32, Md5)]
        {
            assert_eq!(infer(&all, chars), Ok(function));
        }
        for chars in [0, 42, 63, 65, 127] {
            assert_eq!(infer(&all, chars), Err(DigestError::HashLength(chars)));
        }
        let offered = DigestFunctions::of([Blake3, Sha512]);
        assert_eq!(infer(&offered, 64), Ok(Blake3));
        let refused =
            DigestError::NotOffered { function: "md5", offered: "blake3,sha512".to_owned() };
        assert_eq!(infer(&offered, 32), Err(refused.clone()));
        assert_eq!(offered.read(Md5.to_proto(), []), Err(refused.clone()));
        assert_eq!(offered.read(0, [42, 32]), Err(refused));
        assert_eq!(offered.read(Sha512.to_proto(), [64]), Ok(Sha512));
        assert_eq!(offered.read(0, [0, 42, 128, 64]), Ok(Sha512));
        assert_eq!(offered.read(0, []), Ok(Blake3));
    }

    #[test]
    fn lists_are_read_and_written() {
        let list: DigestFunctions = "BLAKE3, sha256,blake3".parse().unwrap();
        assert_eq!(list, DigestFunctions::of([Blake3, Sha256]));
        assert_eq!(list.to_string(), "blake3,sha256");
        assert_eq!(DigestFunctions::default().to_string(), "sha256,blake3,sha384,sha512");
        for bad in ["", ",", "sha256,", "sha257"] {
            assert!(bad.parse::<DigestFunctions>().is_err(), "{bad:?}");
        }
    }
}
