//! The page about the content of the store and its history of the last day.

use history::reader::Tree;
use history::text::{duration, size, utc};
use history::{Archive, AskError, Kind, Record};

use super::{PageError, run_link, target_link};
use crate::fact::Fact;
use crate::html::{facts, layout, link, section, table};

/// Input trees that the page lists.
const TREES_SHOWN: u32 = 20;

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
    match trees(archive) {
        Ok(rows) => {
            let headings = ["input tree", "files", "space", "last action", "target", "time (UTC)"];
            body += &section("trees", "The largest input trees", &table(&headings, rows));
        }
        Err(AskError::Off) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(layout("Cache", &body))
}

/// A row for each of the largest input trees of actions in the history.
fn trees(archive: &Archive) -> Result<Vec<String>, AskError> {
    archive.ask(|reader| {
        let trees = reader.largest_trees(TREES_SHOWN)?;
        trees.iter().map(|tree| Ok(tree_row(tree, reader.record(tree.last_event)?))).collect()
    })
}

fn tree_row(Tree { root, totals, .. }: &Tree, last: Option<Record>) -> String {
    let (action, target, time) = match &last {
        Some(it) => (run_link(it), target_link(it.origin.target.as_str()), utc(it.at_us)),
        None => Default::default(),
    };
    format!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{action}</td><td>{target}</td><td>{time}</td></tr>\n",
        link("directory", root),
        totals.files,
        size(totals.bytes),
    )
}
