//! A directory of an input tree, with links to those below and to downloads.

use history::text::size;
use model::{Digest, Directory, Entry};
use store::Store;

use super::{PageError, message};
use crate::html::{Escaped, Query, layout, link, path, table};

/// Entries that a page lists; the verbs list all.
const ENTRIES_SHOWN: usize = 2000;

pub(crate) fn page(store: &Store, digest: &Digest) -> Result<String, PageError> {
    let listing = listing(store, digest)?.ok_or_else(|| {
        PageError::NotFound(
            "the store has no such Directory, or one that is too large for a page".into(),
        )
    })?;
    Ok(layout("Directory", &format!("<p><code>{digest}</code></p>\n{listing}")))
}

/// The entries; `None` if the Directory is gone, malformed or too large.
pub(crate) fn listing(store: &Store, digest: &Digest) -> Result<Option<String>, PageError> {
    let Some(bytes) = message(store, digest)? else { return Ok(None) };
    let Ok(directory) = Directory::parse(bytes, digest.function()) else { return Ok(None) };
    let more = directory.len().saturating_sub(ENTRIES_SHOWN);
    let rows = directory.entries().take(ENTRIES_SHOWN).map(row);
    let mut html = table(&["name", "size", "content"], rows);
    if more > 0 {
        html += &format!("<p>And {more} more: <code>linux-actiond ls {digest}</code></p>\n");
    }
    Ok(Some(html))
}

fn row(entry: Entry<'_>) -> String {
    let name = String::from_utf8_lossy(entry.name());
    let name = Escaped(&name);
    match entry {
        Entry::Directory { digest, .. } => {
            format!(
                "<tr><td><a href=\"{}\">{name}/</a></td><td></td><td></td></tr>\n",
                path("directory", &digest)
            )
        }
        Entry::File { digest, executable, .. } => {
            let mark = if executable { " <small>executable</small>" } else { "" };
            let text = String::from_utf8_lossy(entry.name());
            format!(
                "<tr><td>{name}{mark}</td><td>{}</td><td>{}</td></tr>\n",
                size(digest.size_bytes()),
                download(&digest, &text),
            )
        }
        Entry::Symlink { target, .. } => {
            let target = String::from_utf8_lossy(target);
            format!("<tr><td>{name} → {}</td><td></td><td></td></tr>\n", Escaped(&target))
        }
    }
}

/// A link that downloads a blob.
pub(crate) fn download(digest: &Digest, name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or_default();
    link("blob", digest).replacen("\" title", &format!("?name={}\" title", Query(file)), 1)
}
