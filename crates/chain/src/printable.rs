//! Text from outside, made fit for a line of the log.
//!
//! Clients and actions choose arguments, environment variables and file names, and errors quote them.
//! Written as they are, they could forge lines of the log, send escape sequences to a terminal, or fill
//! a disk.

use std::fmt::{self, Write as _};

/// The most characters of one name: enough to tell apart any two names that people choose.
const NAME_CHARS: usize = 128;

/// The most characters of a message, which may quote several names.
const MESSAGE_CHARS: usize = 4 * NAME_CHARS;

/// Text without control characters, of bounded length: fits into one line of the log.
///
/// ```
/// let name = chain::Printable::name("out\n2026-01-01 INFO forged");
/// assert_eq!(name.as_str(), r"out\n2026-01-01 INFO forged");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Printable(Box<str>);

impl Printable {
    /// A name or an argument: the first 128 characters.
    pub fn name(text: impl fmt::Display) -> Self {
        Self::cut(text, NAME_CHARS)
    }

    /// An error or another message: the first 512 characters.
    pub fn message(text: impl fmt::Display) -> Self {
        Self::cut(text, MESSAGE_CHARS)
    }

    /// The first 128 characters of a name that need not be UTF-8.
    pub fn bytes(name: &[u8]) -> Self {
        // Each character has at most four bytes; the rest is cut anyway.
        let name = name.get(..4 * NAME_CHARS + 4).unwrap_or(name);
        Self::name(String::from_utf8_lossy(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn cut(text: impl fmt::Display, max_chars: usize) -> Self {
        let mut cutter = Cutter { text: String::new(), left: max_chars };
        if write!(cutter, "{text}").is_err() {
            cutter.text.push('…');
        }
        Self(cutter.text.into())
    }
}

impl fmt::Display for Printable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As [`Printable::name`].
impl From<&str> for Printable {
    fn from(name: &str) -> Self {
        Self::name(name)
    }
}

/// As a string.
impl serde::Serialize for Printable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Whether a terminal or a reader of logs may take the character for something else than text:
/// control characters, line separators, and marks that change the direction of text or are invisible.
pub fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Takes text up to a bound, and refuses the rest, so that a long text is never held whole.
struct Cutter {
    text: String,
    left: usize,
}

impl fmt::Write for Cutter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            if is_deceptive(character) {
                self.text.extend(character.escape_default());
            } else {
                self.text.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_short_line() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Printable::name(text).as_str(), expected, "{text:?}");
        };
        check("", "");
        check("größe.txt", "größe.txt");
        check(r"C:\dir", r"C:\dir");
        check("a\nb\r\tc", r"a\nb\r\tc");
        check("\u{1b}[31mred\0", r"\u{1b}[31mred\u{0}");
        check("\u{9b}31m", r"\u{9b}31m");
        check("line\u{2028}line", r"line\u{2028}line");
        check("exe.\u{202e}txt", r"exe.\u{202e}txt");
        check(&"x".repeat(128), &"x".repeat(128));
        check(&"x".repeat(129), &format!("{}…", "x".repeat(128)));
        check(&"ä".repeat(1 << 20), &format!("{}…", "ä".repeat(128)));
        assert_eq!(Printable::bytes(b"a\xffb\n").as_str(), "a\u{fffd}b\\n");
        let long = Printable::bytes("🦀".repeat(1 << 20).as_bytes());
        assert_eq!(long.as_str(), format!("{}…", "🦀".repeat(128)));
    }

    #[test]
    fn the_bound_counts_what_was_written() {
        let longest = Printable::name("\n".repeat(1 << 20));
        assert_eq!(longest.as_str(), format!("{}…", r"\n".repeat(128)));
        let message = Printable::message("y".repeat(1 << 20));
        assert_eq!(message.as_str().chars().count(), MESSAGE_CHARS + 1);
    }
}
