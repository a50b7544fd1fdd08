//! The remains of all attacks, looked at last, from outside.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use testkit::{Digest, DigestFunction};

use crate::case::{Case, Need, steps};
use crate::host::Local;
use crate::world::{World, eventually};

pub(super) const CASES: &[Case] = &[
    steps("every-blob-is-what-its-name-says", |world| Box::pin(async { blobs(local(world)?) }))
        .needs(Need::Local),
    steps("nothing-of-an-action-is-left-on-disk", |world| Box::pin(nothing_left(world)))
        .needs(Need::Local),
];

fn local(world: &World) -> Result<&Local> {
    world.local.as_ref().context("needs a server of this machine")
}

/// Every file of the store has its content's digest for a name, and is the server's user's,
/// read-only, and nobody else's by another name.
fn blobs(local: &Local) -> Result<()> {
    let owner = local.ids()?;
    for entry in fs::read_dir(local.root.join("cas/blobs/sha256"))? {
        for blob in fs::read_dir(entry?.path())? {
            let blob = blob?;
            let name = blob.file_name().to_string_lossy().into_owned();
            let stat = blob.metadata()?;
            ensure!(stat.is_file(), "{name} is no file");
            ensure!(stat.mode() & 0o7777 == 0o444, "{name} has the mode {:o}", stat.mode());
            ensure!((stat.uid(), stat.gid()) == owner, "{name} is user {}'s", stat.uid());
            let file = fs::File::open(blob.path())?;
            ensure!(rustix::fs::flistxattr_query(&file) == Ok(0), "{name} has attributes");
            // SECRM, UNRM, COMPR, SYNC, IMMUTABLE, APPEND, NODUMP, NOATIME: what its owner could set.
            let flags = rustix::fs::ioctl_getflags(&file).map_or(0, |flags| flags.bits() & 0xff);
            ensure!(flags == 0, "{name} has the flags {flags:x}");
            let content = fs::read(blob.path())?;
            let digest = Digest::of(DigestFunction::Sha256, &content);
            ensure!(digest.hex() == name, "{name} has the content of {digest}");
        }
    }
    Ok(())
}

/// The server deletes what actions wrote after the answer, so this waits for it.
async fn nothing_left(world: &World) -> Result<()> {
    let local = local(world)?;
    let work = local.root.join("work");
    let mut left = Vec::new();
    let nothing = async || {
        left.clear();
        if local.has_one_id() {
            collect_staged(&work.join("input-roots/staging"), &mut left)?;
        } else {
            collect_written(&work, &mut left)?;
        }
        Ok(left.is_empty())
    };
    let nothing = eventually(nothing).await?;
    ensure!(nothing, "actions left {} files, {:?} among them", left.len(), left.first());
    Ok(())
}

/// Collects the entries of the upper directories of input roots. With one user id, the owner of a file does not
/// show whether an action made it.
fn collect_staged(staging: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(staging).context("the staging directories")?.flatten() {
        // Surplus directories are deleted meanwhile.
        let upper = fs::read_dir(entry.path().join("upper")).into_iter().flatten();
        found.extend(upper.flatten().map(|entry| entry.path()));
    }
    Ok(())
}

/// The files below that belong to the user of actions, but for what the server keeps for later actions:
/// empty upper directories, because an input root's own directory belongs to its action, and the input trees
/// of `link-overlay`, which are lower layers that no action can write to.
fn collect_written(directory: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    const ACTION_ID: u32 = 65534;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Entries that are deleted meanwhile do not count.
        let Ok(stat) = entry.metadata() else { continue };
        let path = entry.path();
        let is_kept = stat.is_dir()
            && path.ends_with("upper")
            && path.ancestors().nth(2).is_some_and(|above| above.ends_with("staging"));
        if stat.uid() == ACTION_ID && !is_kept {
            found.push(path.clone());
        }
        if stat.is_dir() && !path.ends_with("input-roots/layers") {
            collect_written(&path, found)?;
        }
    }
    Ok(())
}
