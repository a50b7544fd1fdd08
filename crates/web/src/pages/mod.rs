//! Pages about past actions, each from what it shows to HTML. They wait for the disk.

pub(crate) mod action;
pub(crate) mod cache;
pub(crate) mod compare;
mod critical;
pub(crate) mod directory;
pub(crate) mod doctor;
mod input_files;
pub(crate) mod invocation;
pub(crate) mod search;

use bytes::Bytes;
use events::Stages;
use history::text::{duration, utc};
use history::{AskError, Kind, Record};
use model::Digest;
use store::{Store, StoreError};

use crate::html::{Escaped, Query, link};

/// An error of making a page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// There is nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// The history can't be asked.
    #[error("the history can't be asked")]
    History(#[from] AskError),
    /// The store can't be read.
    #[error("the store can't be read")]
    Store(#[from] StoreError),
}

/// The largest message that a page decodes, which may take a hundred times as much memory then. Larger ones are
/// for the verbs.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// A blob that is a message; `None` if it is gone or too large for a page.
pub(crate) fn message(store: &Store, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
    if digest.size_bytes() > MESSAGE_BYTES_MAX {
        return Ok(None);
    }
    store.cas().read(digest)
}

/// A row about a record: time, action, target, outcome, stages, duration.
pub(crate) fn record_row(record: &Record) -> String {
    let class = match record.outcome() {
        "success" => "good",
        "cached" | "hit" => "cached",
        "miss" => "",
        _ => "bad",
    };
    let mut outcome = record.outcome().to_owned();
    if let Some(code) = record.exit_code.filter(|code| *code != 0) {
        outcome = format!("exit {code}");
    }
    match (record.kind, record.miss) {
        (Kind::Lookup, Some(miss)) => outcome += &format!(" ({})", miss.as_str()),
        (Kind::Execution, Some(miss)) => outcome += &format!(" (miss: {})", miss.as_str()),
        (_, None) => {}
    }
    if record.times > 1 {
        outcome = format!("{outcome} ×{}", record.times);
    }
    let outputs = match record.kind {
        Kind::Execution => history::text::size(record.output_bytes),
        Kind::Lookup => String::new(),
    };
    let kind = match record.kind {
        Kind::Execution => record.origin.mnemonic.as_str(),
        Kind::Lookup => "lookup",
    };
    format!(
        "<tr><td>{at}</td><td>{kind} {action}</td><td>{target}</td><td class=\"{class}\">{outcome}</td>\
         <td>{stages}</td><td>{time}</td><td>{outputs}</td></tr>\n",
        at = utc(record.at_us),
        kind = Escaped(kind),
        action = run_link(record),
        target = target_link(record.origin.target.as_str()),
        outcome = Escaped(&outcome),
        stages = stages(&record.stages),
        time = record.total_us().map(duration).unwrap_or_default(),
        outputs = outputs,
    )
}

/// The names of the stages beside their colours.
pub(crate) fn legend() -> String {
    let names = ["queued", "inputs", "sandbox", "set_up", "run", "end", "outputs"];
    let names = names.map(|class| swatch((class, &class.replace('_', "-"))));
    format!("<p class=\"legend\">Stages: {}</p>\n", names.join(" "))
}

/// A colour with its meaning.
pub(crate) fn swatch((class, meaning): (&str, &str)) -> String {
    format!(
        "<span><svg viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"{class}\" width=\"10\" height=\"10\"/>\
         </svg> {meaning}</span>"
    )
}

/// The headings of [`record_row`].
pub(crate) const RECORD_HEADINGS: [&str; 7] =
    ["time (UTC)", "action", "target", "outcome", "stages", "duration", "outputs"];

/// The action, at this run of it.
fn run_link(record: &Record) -> String {
    let link = link("action", &record.action);
    link.replacen("\" title", &format!("?run={}\" title", record.id), 1)
}

/// A target, with the page of its runs.
pub(crate) fn target_link(target: &str) -> String {
    if target.is_empty() {
        return String::new();
    }
    format!("<a href=\"/search?q={}\">{}</a>", Query(target), Escaped(target))
}

/// The stages as one bar; its text names each with its time.
pub(crate) fn stages(stages: &Stages) -> String {
    let reached: Vec<_> = stages.reached().filter(|(_, us)| *us > 0).collect();
    let total: u64 = reached.iter().map(|(_, us)| us).fold(0, |sum, us| sum.saturating_add(*us));
    if total == 0 {
        return String::new();
    }
    let words: Vec<_> =
        reached.iter().map(|(name, us)| format!("{name} {}", duration(*us))).collect();
    let mut at = 0.0;
    let parts: String = reached
        .iter()
        .map(|(name, us)| {
            let width = 100.0 * *us as f64 / total as f64;
            let part = format!(
                "<rect class=\"{name}\" x=\"{at:.2}\" width=\"{width:.2}\" height=\"10\"/>"
            );
            at += width;
            part
        })
        .collect();
    let words = words.join(", ");
    format!(
        "<svg role=\"img\" aria-label=\"{words}\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\">\
         <title>{words}</title>{parts}</svg>"
    )
}
