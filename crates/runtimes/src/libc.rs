//! C libraries, each in a directory of its own below the runtime root:
//!
//! ```text
//! common/root/etc                     for every action without rootfs
//! libc/<name>/<architecture>/root/    for libc=<name>; architecture as in `uname -m`
//!     lib       or usr/lib            appears as /lib
//!     lib64     or usr/lib64          appears as /lib64
//!     usr/lib                         appears as /usr/lib
//!     etc                             goes before the common one
//! ```
//!
//! Symlinks in a library's root are resolved within that root.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::OpenError;
use crate::confined::{ConfinedRoot, ReadError};
use crate::manifest;
use crate::view::{Builder, Item, RootView};

/// Where a library's directories appear, and which of its own is taken: the first that there is.
const DIRECTORIES: [(&str, &[&str]); 3] =
    [("lib", &["lib", "usr/lib"]), ("lib64", &["lib64", "usr/lib64"]), ("usr/lib", &["usr/lib"])];

/// The views of a runtime root: the one without a C library, and those with one by their names.
pub(crate) fn views(
    runtime_root: &Path,
) -> Result<(RootView, BTreeMap<String, Arc<RootView>>), OpenError> {
    let root = ConfinedRoot::open(runtime_root)?;
    let mut bare = Builder::with_generated_etc();
    if let Some(common) = root.below("common/root")? {
        put_etc(&mut bare, &common)?;
    }
    let mut views = BTreeMap::new();
    for name in root.names("libc")? {
        if !manifest::is_runtime_name(&name) {
            tracing::warn!(name, "left out: not a name for a C library");
            continue;
        }
        match root.below(&format!("libc/{name}/{ARCH}/root"))? {
            Some(library) => {
                let view = view(bare.clone(), &name, &library)?;
                views.insert(name, Arc::new(view));
            }
            None => tracing::info!(name, "left out: the C library is not for this architecture"),
        }
    }
    Ok((bare.build("bare"), views))
}

fn view(mut builder: Builder, name: &str, library: &ConfinedRoot) -> Result<RootView, OpenError> {
    put_etc(&mut builder, library)?;
    let mut has_libraries = false;
    for (at, candidates) in DIRECTORIES {
        if let Some(source) = first_directory(library, candidates)? {
            has_libraries |= at == "lib";
            builder.put(at, Item::Mount(source));
        }
    }
    if !has_libraries {
        return Err(OpenError::NoLibraries {
            name: name.to_owned(),
            root: library.path().to_owned(),
        });
    }
    Ok(builder.build(&format!("libc:{name}")))
}

fn first_directory(
    library: &ConfinedRoot,
    candidates: &[&str],
) -> Result<Option<PathBuf>, ReadError> {
    for candidate in candidates {
        if let Some(source) = library.directory(candidate)? {
            return Ok(Some(source));
        }
    }
    Ok(None)
}

/// Puts every entry of a root's `etc` in the place of the one that is there.
fn put_etc(builder: &mut Builder, root: &ConfinedRoot) -> Result<(), ReadError> {
    for name in root.names("etc")? {
        let path = format!("etc/{name}");
        if let Some(item) = root.item(&path)? {
            builder.put(&path, item);
        }
    }
    Ok(())
}
