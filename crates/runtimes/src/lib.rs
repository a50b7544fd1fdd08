//! The content of a sandbox's root beside the input root: a few files in `/etc`, and where an action
//! asks for it a C library, a shell, or the toolchains of the host.
//!
//! ```text
//! properties     the view
//! none           /etc, generated, with what the runtimes' common etc replaces
//! libc=NAME      that, and /lib, /lib64, /usr/lib of the C library
//! requires-bash  beside libc: also /bin and /usr/bin of the shell that belongs to the library;
//!                alone: the newest library with its shell
//! rootfs=host    /usr, /bin, /sbin, /lib* and a part of /etc of a root that the operator names
//! rootfs=NAME    what an imported image has; so does container-image=NAME or docker://NAME
//! rootfs=input-root
//!                nothing, not even /etc: the input root itself is the root
//! ```
//!
//! Nothing of it lies where the input root appears, so it can't hide an input.
//!
//! All views but those of images are worked out when the daemon starts: a request chooses one by its
//! name, and no text that a client sends ever becomes a path. A change below the given directories, such
//! as a new C library, is seen at the next start; that there was one is noticed at once, see
//! [`Environment`]. Images come and go while the daemon runs, and the actions that see one keep it.
//!
//! The crate describes views ([`Rootfs`]). All that it mounts is a runtime image, once.

mod advice;
mod confined;
mod environment;
mod etc;
mod host;
mod image;
mod image_rootfs;
mod images;
mod libc;
mod life;
pub mod manifest;
mod rootfs;
mod unpack;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::Properties;

use crate::image::MountedImage;
use crate::images::ImageViews;

pub use advice::Lack;
pub use confined::ReadError;
pub use environment::Environment;
pub use etc::{HOSTNAME, common_files};
pub use image::{ImageError, ImageOptions};
pub use image_rootfs::image_rootfs;
pub use life::InUse;
pub use rootfs::{InputRootPlace, Rootfs, RootfsMount};

/// The value of `rootfs` that names the operator's root.
const HOST: &str = "host";

/// The most images that an error names.
const MAX_KNOWN_IMAGES: usize = 32;

/// The value of `rootfs` that makes the input root the root.
pub const INPUT_ROOT: &str = "input-root";

/// The views that the operator allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// The directory of C libraries, for `libc`.
    pub runtime_root: Option<PathBuf>,
    /// The image of C libraries, instead of the directory.
    pub runtime_image: Option<ImageOptions>,
    /// The root whose toolchains `rootfs=host` shows; `None` refuses that property.
    pub host_rootfs: Option<PathBuf>,
}

/// Every view that an action can choose. Clones have the same images, whichever of them changes those.
#[derive(Debug, Clone)]
pub struct Runtimes {
    bare: Arc<Rootfs>,
    /// The view of actions whose input root is the root.
    of_input_root: Arc<Rootfs>,
    host: Option<Arc<Rootfs>>,
    libc: BTreeMap<String, Library>,
    images: ImageViews,
    /// The image that the views are made of.
    _image: Option<Arc<MountedImage>>,
}

/// The views of one C library.
#[derive(Debug, Clone)]
pub(crate) struct Library {
    alone: Arc<Rootfs>,
    with_shell: Option<Arc<Rootfs>>,
}

/// Errors of making the views.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The runtime image can't be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A directory and an image, which may have different libraries of one name.
    #[error("a runtime root and a runtime image exclude each other")]
    RootAndImage,
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

/// Errors of choosing the view that an action asks for.
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
    /// There is no shell, or none for that C library.
    #[error(
        "platform property requires-bash: there is no shell {}",
        .libc.as_ref().map_or("here".to_owned(), |name| format!("for the C library {name:?}"))
    )]
    NoShell {
        /// The C library that the action asked for.
        libc: Option<String>,
    },
    /// `rootfs=host`, and the operator has not allowed it.
    #[error(
        "platform property rootfs: this server does not show its host's toolchains; its operator \
         can start it with --allow-host-rootfs"
    )]
    HostRootfsNotAllowed,
    /// There is no image of that name.
    #[error(
        "platform properties rootfs and container-image: there is no image {name:?} here; there \
         is {}; the server's operator can import it: linux-actiond image import {name} PATH, where \
         PATH is an OCI image layout", listed(.known)
    )]
    UnknownImage {
        /// The name that was asked for.
        name: String,
        /// The first names that there are.
        known: Vec<String>,
    },
    /// Two root file systems.
    #[error("the platform properties rootfs and container-image contradict each other")]
    TwoRoots,
    /// Both bring a C library, and programs of one die with the other's.
    #[error("the platform property libc and a root file system exclude each other")]
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
        let image = options.runtime_image.as_ref().map(MountedImage::mount).transpose()?;
        let root = match (&options.runtime_root, &options.runtime_image) {
            (Some(_), Some(_)) => return Err(OpenError::RootAndImage),
            (Some(root), None) => Some(root),
            (None, image) => image.as_ref().map(|image| &image.mount_point),
        };
        let (bare, libc) = match root {
            Some(root) => libc::views(root, image.as_ref().map(|image| &image.hash))?,
            None => (Rootfs::bare(), BTreeMap::new()),
        };
        let host = options.host_rootfs.as_deref().map(host::view).transpose()?;
        let image = image.map(Arc::new);
        Ok(Self {
            bare: Arc::new(bare),
            of_input_root: Arc::new(Rootfs::of_input_root()),
            host: host.map(Arc::new),
            libc,
            images: ImageViews::default(),
            _image: image,
        })
    }

    /// The view that an action's properties ask for.
    pub fn view(&self, properties: &Properties) -> Result<Arc<Rootfs>, ViewError> {
        let shell = properties.requires_bash;
        let rootfs = chosen_root(properties)?;
        match (rootfs, &properties.libc) {
            (None, None) if shell => self.newest_with_shell(),
            (None, None) => Ok(Arc::clone(&self.bare)),
            (None, Some(name)) => self.library(name, shell),
            // Whole root file systems bring their shell.
            (Some(Root::Host), None) => self.host.clone().ok_or(ViewError::HostRootfsNotAllowed),
            (Some(Root::OfInputs), None) => Ok(Arc::clone(&self.of_input_root)),
            (Some(Root::Image(name)), None) => self.image(name),
            (Some(_), Some(_)) => Err(ViewError::LibcAndRootfs),
        }
    }

    /// The names of the C libraries that there are, sorted.
    pub fn libc_names(&self) -> impl Iterator<Item = &str> {
        self.libc.keys().map(String::as_str)
    }

    /// Lets actions choose a root file system by name, from now on. One of the same name is replaced: actions that
    /// have it keep it.
    pub fn set_image(&self, name: String, view: Rootfs) {
        self.images.set(name, view);
    }

    /// Lets no action choose that root file system any more. Actions that have it keep it.
    pub fn remove_image(&self, name: &str) {
        self.images.remove(name);
    }

    /// The number of actions that see the root file system of that name now.
    pub fn users_of_image(&self, name: &str) -> usize {
        self.images.get(name).map_or(0, |view| view.users())
    }

    fn image(&self, name: &str) -> Result<Arc<Rootfs>, ViewError> {
        self.images.get(name).ok_or_else(|| {
            let known = self.images.names(MAX_KNOWN_IMAGES);
            ViewError::UnknownImage { name: shown(name), known }
        })
    }

    fn library(&self, name: &str, shell: bool) -> Result<Arc<Rootfs>, ViewError> {
        let Some(library) = self.libc.get(name) else {
            let known = self.libc.keys().cloned().collect();
            return Err(ViewError::UnknownLibc { name: shown(name), known });
        };
        if !shell {
            return Ok(Arc::clone(&library.alone));
        }
        library.with_shell.clone().ok_or_else(|| ViewError::NoShell { libc: Some(name.to_owned()) })
    }

    /// For actions that need a shell and don't care for the library that it runs with.
    fn newest_with_shell(&self) -> Result<Arc<Rootfs>, ViewError> {
        let with_shell = self.libc.iter().filter_map(|(name, library)| {
            library.with_shell.as_ref().map(|view| (version_key(name), view))
        });
        let newest = with_shell.max_by(|(one, _), (other, _)| one.cmp(other));
        newest.map(|(_, view)| Arc::clone(view)).ok_or(ViewError::NoShell { libc: None })
    }
}

/// The root file system that an action names, in either of two properties.
fn chosen_root(properties: &Properties) -> Result<Option<Root<'_>>, ViewError> {
    let rootfs = properties.rootfs.as_deref().map(|name| match name {
        HOST => Root::Host,
        INPUT_ROOT => Root::OfInputs,
        name => Root::Image(without_scheme(name)),
    });
    let image = properties.container_image.as_deref();
    match (rootfs, image.map(|name| Root::Image(without_scheme(name)))) {
        (Some(one), Some(other)) if one != other => Err(ViewError::TwoRoots),
        (one, other) => Ok(one.or(other)),
    }
}

/// A root file system that an action names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root<'a> {
    Host,
    OfInputs,
    Image(&'a str),
}

/// The prefix that clients put before images from registries.
fn without_scheme(name: &str) -> &str {
    name.strip_prefix("docker://").unwrap_or(name)
}

/// Orders names by the numbers in them, then by themselves: `glibc2.9` before `glibc2.31`.
fn version_key(name: &str) -> (Vec<u64>, &str) {
    let digits = name.split(|character: char| !character.is_ascii_digit());
    (digits.filter_map(|digits| digits.parse().ok()).collect(), name)
}

/// A client's text for an error's text: of bounded length, whatever was sent.
fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}
