//! The layout and the manifest of a runtime image, which its builder and its reader share.
//!
//! `manifest.json` lies at the top of the image. The crate's documentation has the layout around
//! it.

use serde::{Deserialize, Serialize};

/// The path of the manifest.
pub const PATH: &str = "manifest.json";

/// The version of the layout and the manifest.
pub const FORMAT: u32 = 1;

/// The root of what every action sees.
pub const COMMON_ROOT: &str = "common/root";

/// The manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The processor that its programs are for, as in `uname -m`.
    pub architecture: String,
    /// The runtimes in it, sorted by name.
    pub runtimes: Vec<RuntimeManifest>,
}

/// One runtime of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeManifest {
    /// Its name, as actions say it in `libc`.
    pub name: String,
    /// The source of its packages, such as `debian bookworm`.
    pub source: String,
    /// Whether it has a shell, for `requires-bash`.
    pub shell: bool,
    /// Its packages, the C library's first.
    pub packages: Vec<PackageManifest>,
}

/// A package of a runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageManifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, as the distribution calls it.
    pub architecture: String,
    /// The hash of the package file, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// A manifest without runtimes.
    pub fn new(architecture: &str) -> Self {
        Self { format: FORMAT, architecture: architecture.to_owned(), runtimes: Vec::new() }
    }
}

/// The root of a C library.
pub fn libc_root(name: &str, architecture: &str) -> String {
    format!("libc/{name}/{architecture}/root")
}

/// The root of a C library together with the shell that runs on it.
pub fn shell_root(name: &str, architecture: &str) -> String {
    format!("shell/{name}/{architecture}/root")
}

/// The path of one runtime's manifest, a copy of its part of the image's.
pub fn runtime_manifest(name: &str, architecture: &str) -> String {
    format!("libc/{name}/{architecture}/{PATH}")
}

/// Whether this can name a runtime: in a platform property, a path and a log line.
pub fn is_runtime_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_plain)
}
