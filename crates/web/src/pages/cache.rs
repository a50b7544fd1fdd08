//! The page about the content of the store and its history of the last day.

use history::text::{duration, size};
use history::{Archive, AskError, Kind};

use super::PageError;
use crate::fact::Fact;
use crate::html::{facts, layout, section, table};

/// A group of files in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The name.
    pub name: String,
    /// The number of files.
    pub files: u64,
    /// The disk space that they take, in bytes.
    pub bytes: u64,
}

/// Groups that together are everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// The property that the groups differ by.
    pub title: &'static str,
    /// The groups.
    pub shares: Vec<Share>,
}

pub(crate) fn page(
    archive: &Archive,
    store: &[Fact],
    shares: &[Shares],
    since_us: u64,
) -> Result<String, PageError> {
    let known = store.iter().map(|fact| (fact.name, crate::html::Escaped(&fact.value).to_string()));
    let mut body = facts(known);
    body += &match archive.ask(|reader| reader.tally_since(since_us)) {
        Ok(tally) => {
            let sum = |kind: Kind, hits: bool| -> u64 {
                let wanted = tally.iter().filter(|it| it.kind == kind);
                wanted
                    .filter(|it| !hits || it.miss.is_none() && !it.failed)
                    .map(|it| it.events)
                    .sum()
            };
            let rate = |kind: Kind| match sum(kind, false) {
                0 => "none".to_owned(),
                all => format!("{} of {all} ({} %)", sum(kind, true), 100 * sum(kind, true) / all),
            };
            let run_us = tally.iter().map(|it| it.run_us).fold(0, u64::saturating_add);
            let day = facts([
                ("executions from the cache", rate(Kind::Execution)),
                ("lookups that were hits", rate(Kind::Lookup)),
                ("time of commands", duration(run_us)),
            ]);
            section("day", "The last day", &day)
        }
        Err(AskError::Off) => String::new(),
        Err(error) => return Err(error.into()),
    };
    for (index, Shares { title, shares }) in shares.iter().enumerate() {
        let rows = shares.iter().map(|Share { name, files, bytes }| {
            let name = crate::html::Escaped(name);
            format!("<tr><td>{name}</td><td>{files}</td><td>{}</td></tr>\n", size(*bytes))
        });
        body +=
            &section(&format!("shares{index}"), title, &table(&["group", "files", "space"], rows));
    }
    Ok(layout("Cache", &body))
}
