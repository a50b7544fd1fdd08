//! The toolchains of the host, or of another root that the operator names.
//!
//! Shown: `/usr`; `/bin`, `/sbin` and `/lib*`, as links where they are links; and from `/etc` what
//! compilers, linkers and language runtimes read, by the list below. Not shown: home directories,
//! `/var`, `/run`, `/srv`, and `/opt`, where vendors put licences and services beside their tools;
//! and everything of `/etc` that is not on the list. Its `passwd` and `group` are the generated
//! ones: which people have accounts on the host is no business of an action.

use std::path::Path;
use std::sync::Arc;

use crate::OpenError;
use crate::confined::{ConfinedRoot, ReadError};
use crate::environment::{Content, Watched};
use crate::rootfs::{Builder, Item, Rootfs};

/// The directories of programs and libraries beside `/usr`; on most distributions links into it.
const TOP_LEVEL: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// The files of `/etc` that actions see; a `*` at the end stands for any rest of the name.
///
/// Each is read by tools that builds run, and has nothing in it that opens a door: no keys, no
/// accounts, no passwords, no addresses. Files that users or administrators put credentials into
/// (`gitconfig`, `pip.conf`, `npmrc`, `wgetrc`, `maven`, `environment`) are left out though tools
/// read them, and so is `machine-id`, which tells hosts apart.
const ETC: [&str; 41] = [
    // Names for programs, and where their libraries are.
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    // Compilers and language runtimes.
    ".java",
    "R",
    "clang*",
    "dpkg",
    "gcc",
    "ghc*",
    "java*",
    "lua",
    "mono",
    "perl",
    "python*",
    "ruby*",
    // Documentation and graphics tools.
    "ImageMagick*",
    "fonts",
    "ghostscript",
    "groff",
    "papersize",
    "sgml",
    "texmf",
    "xml",
    // Certificates of public authorities, and how TLS libraries are set up.
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "ssl/certs",
    "ssl/openssl.cnf",
    // Facts about the system and the world.
    "debian_version",
    "inputrc",
    "localtime",
    "magic*",
    "mime.types",
    "os-release",
    "protocols",
    "services",
    "timezone",
];

/// The view of the toolchains of the system at `root`.
pub(crate) fn view(root: &Path) -> Result<Rootfs, OpenError> {
    let root = ConfinedRoot::open(root)?;
    let mut builder = Builder::with_generated_etc();
    if let Some(usr) = root.directory("usr")? {
        builder.put("usr", Item::Mount(usr));
    }
    for name in TOP_LEVEL {
        match root.item(name)? {
            Some(item @ (Item::Mount(_) | Item::Symlink(_))) => builder.put(name, item),
            Some(Item::File(_)) | None => {}
        }
    }
    if !builder.has("usr") && !builder.has("bin") {
        return Err(OpenError::NotARoot(root.path().to_owned()));
    }
    for name in etc_names(&root)? {
        let path = format!("etc/{name}");
        if let Some(item) = root.item(&path)? {
            builder.put(&path, item);
        }
    }
    let view = builder.build("host", Content::named(b"host"));
    let watched = Watched::new(Some(root.path()), view.sources());
    Ok(view.with_content(Content::Watched(Arc::new(watched))))
}

/// The names below `/etc` that the list allows, as far as they can be there.
fn etc_names(root: &ConfinedRoot) -> Result<Vec<String>, ReadError> {
    let present = root.names("etc")?;
    let mut names = Vec::new();
    for pattern in ETC {
        match pattern.strip_suffix('*') {
            Some(start) => {
                names.extend(present.iter().filter(|name| name.starts_with(start)).cloned());
            }
            None => names.push(pattern.to_owned()),
        }
    }
    Ok(names)
}
