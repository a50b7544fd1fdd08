//! The search by digest, target, the beginning of a target, or a part of the path of an output.

use history::{Archive, Page};
use model::{Digest, DigestFunction, DigestFunctions};

use super::{PageError, RECORD_HEADINGS, invocation, record_row};
use crate::html::{layout, path, section, table};

/// Targets that a search lists.
const TARGETS_SHOWN: u32 = 100;

/// Actions that a search for an output lists.
const ACTIONS_SHOWN: u32 = 50;

/// The shortest part of a path that is searched for: shorter ones are in every result.
const NAME_CHARACTERS_MIN: usize = 3;

/// The answer to a search.
pub(crate) enum Answer {
    /// A page.
    Page(String),
    /// Another address.
    Elsewhere(String),
}

pub(crate) fn answer(archive: &Archive, text: &str) -> Result<Answer, PageError> {
    let text = text.trim();
    if let Some(digest) = digest(text) {
        return Ok(Answer::Elsewhere(path("action", &digest)));
    }
    let exact = archive.ask(|reader| reader.of_target(text, Page::first(1)))?;
    if !exact.is_empty() {
        return invocation::target(archive, text).map(Answer::Page);
    }
    let names = archive.ask(|reader| reader.targets(text, TARGETS_SHOWN))?;
    let is_name = text.chars().count() >= NAME_CHARACTERS_MIN;
    let actions = match is_name {
        true => archive.ask(|reader| reader.of_output(text, ACTIONS_SHOWN))?,
        false => Vec::new(),
    };
    let mut body = format!(
        "{}<p>Targets that begin with these words. A digest is <code>HASH/SIZE</code>.</p>\n",
        invocation::targets(&names)
    );
    let rows = actions.iter().map(record_row);
    body += &section("outputs", "Actions with such an output", &table(&RECORD_HEADINGS, rows));
    Ok(Answer::Page(layout("Search", &body)))
}

/// `HASH/SIZE`, or with the digest function before it.
fn digest(text: &str) -> Option<Digest> {
    let (named, text) = match text.split_once(':') {
        Some((name, rest)) => (Some(DigestFunction::from_name(name)?), rest),
        None => (None, text),
    };
    let (hash, size) = text.split_once('/')?;
    let all = DigestFunctions::of(DigestFunction::ALL);
    let function = named.or_else(|| all.infer(hash.len()).ok())?;
    Digest::parse_hex(function, hash, size.parse().ok()?).ok()
}
