//! C libraries, each in a directory of its own below the runtime root:
//!
//! ```text
//! common/root/etc                     for every action without rootfs
//! libc/<name>/<architecture>/root/    for libc=<name>; architecture as in `uname -m`
//!     lib       or usr/lib            appears as /lib
//!     lib64     or usr/lib64          appears as /lib64
//!     usr/lib                         appears as /usr/lib
//!     etc                             goes before the common one
//! shell/<name>/<architecture>/root/   for libc=<name> with requires-bash: the library once more,
//!                                     with the shell and what that needs
//!     bin       or usr/bin            appears as /bin
//!     usr/bin, usr/libexec            appear as they are
//! ```
//!
//! Symlinks in a library's root are resolved within that root.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::confined::{ConfinedRoot, ReadError};
use crate::environment::{Content, ImageHash, Watched};
use crate::manifest;
use crate::rootfs::{Builder, Item, Rootfs};
use crate::{Library, OpenError};

/// Where a root's directories appear, and which of its own is taken: the first that there is.
type Directories = &'static [(&'static str, &'static [&'static str])];

const LIBRARIES: Directories =
    &[("lib", &["lib", "usr/lib"]), ("lib64", &["lib64", "usr/lib64"]), ("usr/lib", &["usr/lib"])];

const PROGRAMS: Directories =
    &[("bin", &["bin", "usr/bin"]), ("usr/bin", &["usr/bin"]), ("usr/libexec", &["usr/libexec"])];

/// The views of a runtime root: the one without a C library, and those with one by their names.
///
/// The content of all of them is known by the hash of `image`; by their directories where there is none.
pub(crate) fn views(
    runtime_root: &Path,
    image: Option<&Arc<ImageHash>>,
) -> Result<(Rootfs, BTreeMap<String, Library>), OpenError> {
    let root = ConfinedRoot::open(runtime_root)?;
    let mut bare = Builder::with_generated_etc();
    if let Some(common) = root.below(manifest::COMMON_ROOT)? {
        put_etc(&mut bare, &common)?;
    }
    let mut libraries = BTreeMap::new();
    for name in root.names("libc")? {
        if !manifest::is_runtime_name(&name) {
            tracing::warn!(name, "left out: not a name for a C library");
            continue;
        }
        match library(&root, &bare, &name, image)? {
            Some(library) => drop(libraries.insert(name, library)),
            None => tracing::info!(name, "left out: the C library is not for this architecture"),
        }
    }
    Ok((finish(bare, "bare", image), libraries))
}

/// The views of one C library; `None` when it is not for this architecture.
fn library(
    root: &ConfinedRoot,
    bare: &Builder,
    name: &str,
    image: Option<&Arc<ImageHash>>,
) -> Result<Option<Library>, OpenError> {
    let Some(libc) = root.below(&manifest::libc_root(name, ARCH))? else { return Ok(None) };
    let alone = with_libraries(bare.clone(), name, &libc)?;
    let alone = finish(alone, &format!("libc:{name}"), image);
    let shell = root.below(&manifest::shell_root(name, ARCH))?;
    let with_shell = shell.map(|shell| {
        let mut builder = with_libraries(bare.clone(), name, &shell)?;
        put_directories(&mut builder, &shell, PROGRAMS)?;
        Ok::<_, OpenError>(Arc::new(finish(builder, &format!("libc:{name}+shell"), image)))
    });
    Ok(Some(Library { alone: Arc::new(alone), with_shell: with_shell.transpose()? }))
}

fn finish(builder: Builder, name: &str, image: Option<&Arc<ImageHash>>) -> Rootfs {
    let view = builder.build(name, Content::named(b"no mounts"));
    match image {
        _ if view.mounts.is_empty() => view,
        Some(image) => view.with_content(Content::Image(Arc::clone(image))),
        None => {
            let watched = Watched::new(None, view.sources());
            view.with_content(Content::Watched(Arc::new(watched)))
        }
    }
}

fn with_libraries(
    mut builder: Builder,
    name: &str,
    root: &ConfinedRoot,
) -> Result<Builder, OpenError> {
    put_etc(&mut builder, root)?;
    put_directories(&mut builder, root, LIBRARIES)?;
    if !builder.has("lib") {
        return Err(OpenError::NoLibraries { name: name.to_owned(), root: root.path().to_owned() });
    }
    Ok(builder)
}

fn put_directories(
    builder: &mut Builder,
    root: &ConfinedRoot,
    directories: Directories,
) -> Result<(), ReadError> {
    for (at, candidates) in directories {
        if let Some(source) = first_directory(root, candidates)? {
            builder.put(at, Item::Mount(source));
        }
    }
    Ok(())
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
