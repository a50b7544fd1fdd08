//! Text as HTML: what clients and actions chose never becomes markup.

use std::fmt::{self, Write as _};

use model::Digest;

/// Text with the characters escaped that mean something in HTML, in elements and in attributes.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // A browser would show it, or hide it, as something else than it is.
                other if chain::is_deceptive(other) && !matches!(other, '\n' | '\t') => {
                    write!(f, "{}", other.escape_default())?;
                }
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A value in the query of an address: all but letters, digits and `-._~` is encoded.
pub(crate) struct Query<'a>(pub(crate) &'a str);

impl fmt::Display for Query<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                f.write_char(char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// The value of a parameter in the query of an address; `None` if it is missing or not UTF-8.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                bytes.push((high * 16 + low) as u8);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

/// The path of the page of a digest: `/KIND/FUNCTION/HASH/SIZE`.
pub(crate) fn path(kind: &str, digest: &Digest) -> String {
    format!("/{kind}/{}/{digest}", digest.function())
}

/// A digest as a short link.
pub(crate) fn link(kind: &str, digest: &Digest) -> String {
    let hash = digest.hex();
    format!(
        "<a href=\"{}\" title=\"{digest}\"><code>{}</code></a>",
        path(kind, digest),
        &hash[..12]
    )
}

/// The whole page. `body` is HTML, `title` is text.
pub(crate) fn layout(title: &str, body: &str) -> String {
    with_main(title, body, "", "")
}

/// As [`layout`], for a page that other actions change: a script fetches it anew when some have ended.
pub(crate) fn live_layout(title: &str, body: &str) -> String {
    let script = "<script src=\"/page.js\" defer></script>\n";
    with_main(title, body, script, " data-live=\"ended\"")
}

fn with_main(title: &str, body: &str, script: &str, attributes: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} · actiond</title>\n<link rel=\"stylesheet\" href=\"/page.css\">\n{script}</head>\n<body>\n\
         <header><p><a href=\"/\">actiond</a></p>{NAVIGATION}</header>\n\
         <main{attributes}><h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n",
        title = Escaped(title),
    )
}

/// Links to the pages that need no name, and the search.
pub(crate) const NAVIGATION: &str = "<nav aria-label=\"Pages\"><a href=\"/\">now</a> <a href=\"/invocations\">\
    invocations</a> <a href=\"/cache\">cache</a> <a href=\"/doctor\">doctor</a> <a href=\"/metrics\">metrics</a>\
    </nav><form action=\"/search\" role=\"search\"><label>Digest, target or file <input name=\"q\" type=\"search\" \
    required></label> <button>Search</button></form>";

/// A table. Headings are text of ours, rows are HTML.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = String>) -> String {
    let rows: String = rows.into_iter().collect();
    if rows.is_empty() {
        return "<p>None.</p>\n".to_owned();
    }
    let headings: String =
        headings.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>{headings}</tr></thead><tbody>\n{rows}\
         </tbody></table></div>\n"
    )
}

/// A section with a heading of ours.
pub(crate) fn section(id: &str, heading: &str, body: &str) -> String {
    format!("<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{heading}</h2>\n{body}</section>\n")
}

/// Names and values. The values are HTML.
pub(crate) fn facts(facts: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    let rows: String = facts
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n"))
        .collect();
    format!("<dl>\n{rows}</dl>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_an_address() {
        for text in ["", "//a:b", "a b&c=d#e?f%+", "größe", "\u{1b}\n<\"'>"] {
            let query = format!("x=1&name={}&y=2", Query(text));
            assert!(!query.contains(['<', '"', ' ', '#']), "{query}");
            assert_eq!(parameter(&query, "name").as_deref(), Some(text));
        }
        assert_eq!(parameter("name=a+b", "name").as_deref(), Some("a b"));
        for bad in ["", "name", "other=1", "name=%", "name=%4", "name=%zz", "name=%ff"] {
            assert_eq!(parameter(bad, "name"), None, "{bad}");
        }
    }

    #[test]
    fn markup_and_tricks_are_text() {
        let escaped = Escaped("<b>&\"'\u{1b}[1m\u{202e}\n").to_string();
        assert_eq!(escaped, "&lt;b&gt;&amp;&quot;&#39;\\u{1b}[1m\\u{202e}\n");
    }
}
