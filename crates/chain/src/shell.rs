//! Words as a shell reads them.

use std::fmt::Write as _;

use crate::is_deceptive;

/// A word that a POSIX shell reads as `text`; one with control characters or other characters that a terminal
/// may take for something else has the form `$'…'` (POSIX 2024, bash, zsh).
///
/// ```
/// assert_eq!(chain::shell_word("-O2"), "-O2");
/// assert_eq!(chain::shell_word("it's"), r"'it'\''s'");
/// assert_eq!(chain::shell_word("a\nb"), r"$'a\nb'");
/// ```
pub fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    if !text.chars().any(is_deceptive) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut word = String::from("$'");
    for character in text.chars() {
        match character {
            '\'' | '\\' => word.extend(['\\', character]),
            '\n' => word.push_str("\\n"),
            '\t' => word.push_str("\\t"),
            '\r' => word.push_str("\\r"),
            other if is_deceptive(other) => {
                // Octal has three digits at most, so that what follows is never taken for a part of it.
                let mut buffer = [0; 4];
                for byte in other.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(word, "\\{byte:03o}");
                }
            }
            other => word.push(other),
        }
    }
    word.push('\'');
    word
}

/// The text with every character escaped that a terminal may take for something else.
///
/// ```
/// assert_eq!(chain::visible("a\u{1b}[2Jb"), r"a\u{1b}[2Jb");
/// ```
pub fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        if is_deceptive(character) {
            visible.extend(character.escape_default());
        } else {
            visible.push(character);
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let check = |text: &str, expected: &str| assert_eq!(shell_word(text), expected, "{text:?}");
        check("", "''");
        check("//a:b", "//a:b");
        check("a b", "'a b'");
        check("$HOME", "'$HOME'");
        check("größe", "'größe'");
        check("a\u{1b}1", r"$'a\0331'");
        check("\u{202e}'\\", r"$'\342\200\256\'\\'");
    }

    #[test]
    fn a_shell_reads_what_was_quoted() {
        for text in ["", "a b", "it's", "a\nb\t\\n'", "\u{1b}[0m1", "x\u{202e}y'", "`id`$(id)"] {
            let script = format!("printf %s {}", shell_word(text));
            let output = std::process::Command::new("bash").args(["-c", &script]).output();
            let Ok(output) = output else {
                eprintln!("skipped: there is no bash here");
                return;
            };
            assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{script}");
        }
    }
}
