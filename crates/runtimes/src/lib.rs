//! What a sandbox's root holds beside the input root: a few files in `/etc`, and where an action
//! asks for it a C library or the toolchains of the host.
//!
//! ```text
//! rootfs, libc   the view
//! neither        /etc, generated, with what the runtime root's common etc replaces
//! libc=NAME      that, and /lib, /lib64, /usr/lib of the C library
//! rootfs=host    /usr, /bin, /sbin, /lib* and a part of /etc of a root that the operator names
//! ```
//!
//! All views are worked out when the daemon starts: a request chooses one by its name, and no text
//! that a client sends ever becomes a path. A change below the given directories, such as a new C
//! library, is seen at the next start.
//!
//! The crate describes views ([`RootView`]); it mounts nothing.

mod confined;
mod etc;
mod host;
mod libc;
pub mod manifest;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::Properties;

pub use confined::ReadError;
pub use etc::{HOSTNAME, common_files};
pub use view::{RootView, ViewMount};

/// The value of `rootfs` that names the operator's root.
const HOST: &str = "host";

/// What the operator lets actions have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The directory of C libraries, for `libc`.
    pub runtime_root: Option<PathBuf>,
    /// The root whose toolchains `rootfs=host` shows; `None` refuses that property.
    pub host_rootfs: Option<PathBuf>,
}

/// Every view that an action can choose.
#[derive(Debug, Clone)]
pub struct Runtimes {
    bare: Arc<RootView>,
    host: Option<Arc<RootView>>,
    libc: BTreeMap<String, Arc<RootView>>,
}

/// Why the views could not be worked out.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A C library lacks what makes it one.
    #[error("the C library {name} has neither lib nor usr/lib in {root}")]
    NoLibraries {
        /// The name of the library.
        name: String,
        /// The directory that stands for its root.
        root: PathBuf,
    },
    /// The directory given as the host's root has no programs.
    #[error("{0} is not a root file system: it has neither usr nor bin")]
    NotARoot(PathBuf),
}

/// Why an action can't have the view that it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// There is no C library of that name.
    #[error("platform property libc: there is no {name:?} here; there is {}", listed(.known))]
    UnknownLibc {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// `rootfs=host`, and the operator has not allowed it.
    #[error(
        "platform property rootfs: this server does not show its host's toolchains; its operator \
         can start it with --allow-host-rootfs"
    )]
    HostRootfsNotAllowed,
    /// A `rootfs` that means nothing.
    #[error("platform property rootfs: {0:?} is not known here; there is \"host\"")]
    UnknownRootfs(String),
    /// `rootfs` and `libc` both bring a C library, and programs of one die with the other's.
    #[error("the platform properties rootfs and libc exclude each other")]
    LibcAndRootfs,
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

impl Runtimes {
    /// Works out every view that `options` allow.
    pub fn open(options: &RuntimeOptions) -> Result<Self, OpenError> {
        let (bare, libc) = match &options.runtime_root {
            Some(root) => libc::views(root)?,
            None => (RootView::bare(), BTreeMap::new()),
        };
        let host = options.host_rootfs.as_deref().map(host::view).transpose()?;
        Ok(Self { bare: Arc::new(bare), host: host.map(Arc::new), libc })
    }

    /// The view that an action's properties ask for.
    pub fn view(&self, properties: &Properties) -> Result<Arc<RootView>, ViewError> {
        match (&properties.rootfs, &properties.libc) {
            (None, None) => Ok(Arc::clone(&self.bare)),
            (None, Some(name)) => self.libc(name),
            (Some(name), None) if name == HOST => {
                self.host.clone().ok_or(ViewError::HostRootfsNotAllowed)
            }
            (Some(name), None) => Err(ViewError::UnknownRootfs(shown(name))),
            (Some(_), Some(_)) => Err(ViewError::LibcAndRootfs),
        }
    }

    /// The names of the C libraries that there are, sorted.
    pub fn libc_names(&self) -> impl Iterator<Item = &str> {
        self.libc.keys().map(String::as_str)
    }

    fn libc(&self, name: &str) -> Result<Arc<RootView>, ViewError> {
        self.libc.get(name).cloned().ok_or_else(|| ViewError::UnknownLibc {
            name: shown(name),
            known: self.libc.keys().cloned().collect(),
        })
    }
}

/// A client's text for an error's text: of bounded length, whatever was sent.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}
