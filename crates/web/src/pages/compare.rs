//! The differences of two actions.

use bytes::Bytes;
use history::compare::{Blobs, Difference, compare};
use model::Digest;
use store::{Store, StoreError};

use super::{PageError, message};
use crate::html::{Escaped, layout, link, table};

/// The blobs of the store.
struct OfStore<'a>(&'a Store);

impl Blobs for OfStore<'_> {
    type Error = StoreError;

    fn read(&mut self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        message(self.0, digest)
    }
}

pub(crate) fn page(store: &Store, old: &Digest, new: &Digest) -> Result<String, PageError> {
    let found = compare(&mut OfStore(store), old, new)?;
    let row = |it: &Difference| {
        let value = |value: &Option<String>| {
            value.as_ref().map(|value| Escaped(value).to_string()).unwrap_or_default()
        };
        format!(
            "<tr><td>{}</td><td>{}</td><td class=\"bad\">{}</td><td class=\"good\">{}</td></tr>\n",
            it.part.as_str().replace('_', " "),
            Escaped(&it.name),
            value(&it.old),
            value(&it.new),
        )
    };
    let rows = table(&["part", "name", "old", "new"], found.differences.iter().map(row));
    let more = if found.is_cut { "<p>There may be more.</p>\n" } else { "" };
    let body =
        format!("<p>From {} to {}.</p>\n{rows}{more}", link("action", old), link("action", new));
    Ok(layout("Compare", &body))
}
