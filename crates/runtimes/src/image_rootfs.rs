//! A whole root file system, such as a container image's, as a view.
//!
//! Shown is what it has at its top, but for the places that every sandbox makes itself. `/etc` and
//! `/var` are shown entry by entry: in the one, names for the machine are the sandbox's own, and in
//! the other lies `/var/tmp`.

use std::path::Path;

use crate::OpenError;
use crate::confined::ConfinedRoot;
use crate::environment::Content;
use crate::etc;
use crate::rootfs::{Builder, Item, Rootfs};

/// Directories that a sandbox makes itself or has no use for.
const NOT_SHOWN: [&str; 7] = ["boot", "dev", "proc", "run", "sys", "tmp", "execroot"];

/// Shown entry by entry, without these entries.
const BY_ENTRY: [(&str, &[&str]); 2] =
    [("etc", &["hostname", "hosts", "mtab", "resolv.conf"]), ("var", &["lock", "run", "tmp"])];

/// The view of the root file system at `root`, for the image of that name; `content` names what is in it, such
/// as the image's digest.
///
/// # Errors
/// When it can't be read, or has neither `usr` nor `bin`.
pub fn image_rootfs(root: &Path, name: &str, content: &str) -> Result<Rootfs, OpenError> {
    let root = ConfinedRoot::open(root)?;
    let mut builder = Builder::default();
    for name in root.names(".")? {
        match BY_ENTRY.iter().find(|(directory, _)| *directory == name) {
            Some((directory, left_out)) => {
                put_entries(&mut builder, &root, directory, left_out)?;
            }
            None if NOT_SHOWN.contains(&&*name) => {}
            None => put(&mut builder, &root, &name)?,
        }
    }
    if !builder.has("usr") && !builder.has("bin") {
        return Err(OpenError::NotARoot(root.path().to_owned()));
    }
    // An image without users of its own gets those of every sandbox.
    for (path, content) in etc::common_files() {
        if !builder.has(path.as_str()) {
            builder.put(path.as_str(), Item::File(content));
        }
    }
    Ok(builder.build(&format!("image:{name}"), Content::named(content.as_bytes())))
}

fn put_entries(
    builder: &mut Builder,
    root: &ConfinedRoot,
    directory: &str,
    left_out: &[&str],
) -> Result<(), OpenError> {
    let names = root.names(directory)?;
    let shown = names.iter().filter(|name| !left_out.contains(&name.as_str()));
    shown.map(|name| format!("{directory}/{name}")).try_for_each(|path| put(builder, root, &path))
}

fn put(builder: &mut Builder, root: &ConfinedRoot, path: &str) -> Result<(), OpenError> {
    if let Some(item) = root.item(path)? {
        builder.put(path, item);
    }
    Ok(())
}
