//! The search by digest, target, the beginning of a target, or a part of the path of an output or input.

use history::text::utc;
use history::{Archive, Page};
use model::{Digest, DigestFunction, DigestFunctions};
use store::Store;

use super::directory::download;
use super::input_files::{self, InputFile};
use super::{PageError, RECORD_HEADINGS, invocation, record_row, run_link, target_link};
use crate::html::{Escaped, layout, path, section, table};

/// Targets that a search lists.
const TARGETS_SHOWN: u32 = 100;

/// Actions that a search for an output lists.
const ACTIONS_SHOWN: u32 = 50;

/// Input trees that a search looks through, as far as its time allows.
const TREES_SEARCHED: u32 = 1000;

/// The shortest part of a path that is searched for: shorter ones are in every result.
const NAME_CHARACTERS_MIN: usize = 3;

/// The answer to a search.
pub(crate) enum Answer {
    /// A page.
    Page(String),
    /// Another address.
    Elsewhere(String),
}

pub(crate) fn answer(archive: &Archive, store: &Store, text: &str) -> Result<Answer, PageError> {
    let text = text.trim();
    if let Some(digest) = digest(text) {
        return Ok(Answer::Elsewhere(path("action", &digest)));
    }
    let exact = archive.ask(|reader| reader.of_target(text, Page::first(1)))?;
    if !exact.is_empty() {
        return invocation::target(archive, text).map(Answer::Page);
    }
    let names = archive.ask(|reader| reader.targets(text, TARGETS_SHOWN))?;
    let mut body = section("targets", "Targets", &invocation::targets(&names));
    if text.chars().count() >= NAME_CHARACTERS_MIN {
        let actions = archive.ask(|reader| reader.of_output(text, ACTIONS_SHOWN))?;
        let rows = actions.iter().map(record_row);
        let outputs = table(&RECORD_HEADINGS, rows);
        body += &section("outputs", "Actions with such an output", &outputs);
        body += &section("inputs", "Input files", &inputs(archive, store, text)?);
    } else {
        body += "<p>Files are searched for by three or more characters of their path.</p>\n";
    }
    Ok(Answer::Page(layout(&format!("Search for {text}"), &body)))
}

/// The input files with that text in their path.
fn inputs(archive: &Archive, store: &Store, text: &str) -> Result<String, PageError> {
    let trees = archive.ask(|reader| reader.recent_trees(TREES_SEARCHED))?;
    let answer = input_files::search(store, &trees, text)?;
    let rows: Result<Vec<String>, PageError> =
        answer.files.iter().map(|file| input_row(archive, file)).collect();
    let searched = match answer.trees {
        all if all == trees.len() => format!("all of the {all} latest input trees"),
        some => {
            format!("{some} of the {} latest input trees, as many as the time allows", trees.len())
        }
    };
    let note = format!(
        "<p>Searched: {searched}. A file is found while the store has the directories that lead to it.</p>\n"
    );
    Ok(table(&["file", "content", "input trees", "last action", "target", "time (UTC)"], rows?)
        + &note)
}

fn input_row(archive: &Archive, file: &InputFile) -> Result<String, PageError> {
    let InputFile { path, content, last_event, trees } = file;
    let content = match content {
        Some(digest) => download(digest, path),
        None => "symlink".to_owned(),
    };
    let record = archive.ask(|reader| reader.record(*last_event))?;
    let (action, target, time) = match &record {
        Some(it) => (run_link(it), target_link(it.origin.target.as_str()), utc(it.at_us)),
        None => Default::default(),
    };
    Ok(format!(
        "<tr><td>{}</td><td>{content}</td><td>{trees}</td><td>{action}</td><td>{target}</td><td>{time}</td></tr>\n",
        Escaped(path)
    ))
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
