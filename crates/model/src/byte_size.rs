//! A size in bytes as people write it, in one notation for flags, configuration and platform
//! properties.

use std::fmt;
use std::str::FromStr;

/// The suffixes, without the optional `i` and in lower case, each with its power of two.
const SUFFIXES: [(&str, u32); 5] = [("", 0), ("k", 10), ("m", 20), ("g", 30), ("t", 40)];

/// A number of bytes with an optional suffix: `268435456`, `256m`, `2Gi`, `1t`.
///
/// `k`, `m`, `g` and `t` are powers of 1024 in either case, with or without an `i`, as in the
/// kernel's own limit files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A text that is not a [`ByteSize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a size in bytes (such as 268435456, 256m, 2Gi or 1t)")]
pub struct ByteSizeError;

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let is_suffix = |character: char| !character.is_ascii_digit();
        let (digits, suffix) = text.split_at(text.find(is_suffix).unwrap_or(text.len()));
        let suffix = suffix.to_ascii_lowercase();
        let unit = match suffix.strip_suffix('i') {
            // An `i` alone is no suffix.
            Some("") => return Err(ByteSizeError),
            Some(unit) => unit,
            None => &suffix,
        };
        let (_, shift) = SUFFIXES.iter().find(|(name, _)| *name == unit).ok_or(ByteSizeError)?;
        let number: u64 = digits.parse().map_err(|_| ByteSizeError)?;
        number.checked_mul(1 << shift).map(Self).ok_or(ByteSizeError)
    }
}

impl fmt::Display for ByteSize {
    /// The shortest form that parses to the same number: `4g`, `1536m`, `1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        let largest = SUFFIXES.iter().rev().find(|(_, shift)| divides(*shift));
        let (name, shift) = largest.unwrap_or(&SUFFIXES[0]);
        write!(f, "{}{name}", self.0 >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: u64| {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        };
        check("0", 0);
        check("268435456", 1 << 28);
        for (suffix, shift) in [("k", 10), ("m", 20), ("g", 30), ("t", 40)] {
            for suffix in [suffix.to_owned(), suffix.to_uppercase()] {
                check(&format!("3{suffix}"), 3 << shift);
                check(&format!("3{suffix}i"), 3 << shift);
                check(&format!("3{suffix}I"), 3 << shift);
            }
        }
        check("16777215t", 16_777_215 << 40);
    }

    #[test]
    fn what_is_no_size() {
        for bad in [
            "",
            "k",
            "i",
            "1i",
            "-1",
            "+1",
            "1.5g",
            "1kb",
            "1GB",
            "M",
            " 1",
            "1 ",
            "1 k",
            "0x10",
            "1e3",
            "١",
            "1kk",
            "1p",
            "99999999999999999999",
            "16777216t",
            "18446744073709551615g",
        ] {
            assert_eq!(bad.parse::<ByteSize>(), Err(ByteSizeError), "{bad:?}");
        }
    }

    #[test]
    fn a_size_is_shown_as_it_can_be_read() {
        let check = |bytes: u64, text: &str| {
            assert_eq!(ByteSize(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(ByteSize(bytes)));
        };
        check(0, "0");
        check(1000, "1000");
        check(4 << 30, "4g");
        check(1536 << 20, "1536m");
        check(5 << 40, "5t");
        check(u64::MAX, "18446744073709551615");
    }
}
