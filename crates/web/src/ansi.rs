//! The output of an action as HTML, with the colours that it asked a terminal for.
//!
//! Only colours, bold and underline are taken over, as classes of the style sheet. Every other escape sequence is
//! left out, and every other control character is shown as text.

use crate::html::Escaped;

/// The style of a piece of text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    bold: bool,
    underlined: bool,
    /// 0 to 15, as terminals number them.
    colour: Option<u8>,
}

impl Style {
    /// Applies the parameters of an SGR sequence, such as `1;31`.
    fn apply(&mut self, parameters: &str) {
        let mut numbers = parameters.split(';').map(|text| match text {
            "" => Some(0),
            text => text.parse::<u16>().ok(),
        });
        while let Some(number) = numbers.next() {
            match number {
                Some(0) => *self = Self::default(),
                Some(1) => self.bold = true,
                Some(4) => self.underlined = true,
                Some(22) => self.bold = false,
                Some(24) => self.underlined = false,
                Some(number @ 30..=37) => self.colour = Some((number - 30) as u8),
                Some(39) => self.colour = None,
                Some(number @ 90..=97) => self.colour = Some((number - 90 + 8) as u8),
                // A colour of 256 or of millions has its own parameters; the first 16 are named.
                Some(38 | 48) => {
                    let is_text = number == Some(38);
                    match numbers.next() {
                        Some(Some(5)) => {
                            let colour = numbers.next().flatten().filter(|it| *it < 16);
                            if is_text {
                                self.colour = colour.map(|it| it as u8);
                            }
                        }
                        Some(Some(2)) => {
                            let _ = (numbers.next(), numbers.next(), numbers.next());
                        }
                        _ => return,
                    }
                }
                _ => {}
            }
        }
    }

    fn classes(self) -> String {
        let mut classes = Vec::new();
        if self.bold {
            classes.push("bold".to_owned());
        }
        if self.underlined {
            classes.push("underlined".to_owned());
        }
        if let Some(colour) = self.colour {
            classes.push(format!("ansi{colour}"));
        }
        classes.join(" ")
    }
}

/// `bytes` as HTML.
pub(crate) fn to_html(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let mut html = String::with_capacity(text.len());
    let mut style = Style::default();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('\u{1b}') {
        push(&mut html, style, &rest[..at]);
        rest = &rest[at + 1..];
        rest = escape_sequence(rest, &mut style);
    }
    push(&mut html, style, rest);
    html
}

/// Skips the sequence behind an escape character, and applies it if it is about style.
fn escape_sequence<'a>(text: &'a str, style: &mut Style) -> &'a str {
    let end_of = |text: &'a str, is_end: fn(char) -> bool| text.find(is_end);
    let mut characters = text.chars();
    match characters.next() {
        // Control sequences end with a character from `@` to `~`.
        Some('[') => {
            let body = characters.as_str();
            let Some(end) = end_of(body, |it| ('@'..='~').contains(&it)) else { return "" };
            if body[end..].starts_with('m') {
                style.apply(&body[..end]);
            }
            &body[end + 1..]
        }
        // Commands to the operating system, such as a title or a link, end with a bell or with `ESC \`.
        Some(']' | 'P' | '^' | '_') => {
            let body = characters.as_str();
            let Some(end) = end_of(body, |it| it == '\u{7}' || it == '\u{1b}') else { return "" };
            let after = &body[end + 1..];
            if body[end..].starts_with('\u{1b}') {
                after.strip_prefix('\\').unwrap_or(after)
            } else {
                after
            }
        }
        // Character sets have one more.
        Some('(' | ')' | '#') => {
            characters.next();
            characters.as_str()
        }
        _ => characters.as_str(),
    }
}

fn push(html: &mut String, style: Style, text: &str) {
    if text.is_empty() {
        return;
    }
    let text = Escaped(text);
    if style == Style::default() {
        html.push_str(&text.to_string());
    } else {
        html.push_str(&format!("<span class=\"{}\">{text}</span>", style.classes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_classes_and_all_else_is_text() {
        let check =
            |text: &str, expected: &str| assert_eq!(to_html(text.as_bytes()), expected, "{text:?}");
        check("plain <b>\n", "plain &lt;b&gt;\n");
        check("\u{1b}[31merror\u{1b}[0m: x", "<span class=\"ansi1\">error</span>: x");
        check("\u{1b}[1;91mE\u{1b}[22;39mx", "<span class=\"bold ansi9\">E</span>x");
        check("\u{1b}[38;5;2mg\u{1b}[m.", "<span class=\"ansi2\">g</span>.");
        check("\u{1b}[38;2;1;2;3;4mu", "<span class=\"underlined\">u</span>");
        check("\u{1b}[38;5;200mx", "x");
        check("a\u{1b}[2J\u{1b}[Hb", "ab");
        check("\u{1b}]8;;http://evil\u{7}text\u{1b}]8;;\u{1b}\\!", "text!");
        check("\u{1b}]0;title", "");
        check("\u{1b}[31", "");
        check("\u{1b}", "");
        check("\u{1b}(Bx\u{1b}[\"><script>m", "xcript&gt;m");
        check("a\rb\u{8}\u{202e}", "a\\rb\\u{8}\\u{202e}");
        check("a\r\nb", "a\nb");
    }

    #[test]
    fn no_sequence_becomes_markup() {
        for sequence in
            ["[", "]", "(", "[31;\"m", "[<script>m", "P<img>", "[99999999999m", "[38;5m"]
        {
            let html = to_html(format!("\u{1b}{sequence}<i>\u{1b}{sequence}").as_bytes());
            assert!(
                !html.contains("<i>") && !html.contains("<script") && !html.contains("<img"),
                "{html}"
            );
        }
    }
}
