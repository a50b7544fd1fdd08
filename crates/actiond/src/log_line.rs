//! A line of the text log: one line, whatever words are in it.

use std::borrow::Cow;

use chain::is_deceptive;

/// The longest line, in bytes: longer than any that the daemon means to write, whose longest field is a
/// message of 512 characters.
pub(crate) const MAX_LINE_BYTES: usize = 8 << 10;

/// The event as one line of bounded length.
pub(crate) fn text_line(event: &[u8]) -> Cow<'_, [u8]> {
    let text = String::from_utf8_lossy(event);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.len() <= MAX_LINE_BYTES && !text.contains(is_deceptive) {
        return Cow::Borrowed(event);
    }
    let mut line = String::new();
    for character in text.chars() {
        if line.len() > MAX_LINE_BYTES {
            line.push('…');
            break;
        }
        if is_deceptive(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    Cow::Owned(line.into_bytes())
}
