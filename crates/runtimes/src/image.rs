//! A runtime image as a directory: checked, mounted once, given back at the end. Where the kernel mounts
//! none, in a user namespace, it is unpacked once.
//!
//! The mount has to be attached somewhere, for before Linux 6.15 a mount can be copied only from a
//! mount namespace that the caller is in. A daemon that doesn't want it to show on its host enters a
//! namespace of its own first (`sys::mount::enter_private_namespace`). There it also goes away with
//! the daemon, however that ends, and the loop device with it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use sys::loop_device::{LoopDevice, LoopError};
use sys::mount::{FsContext, MountAttributes, MountError};

use crate::environment::ImageHash;
use crate::manifest::{self, Manifest};

/// A manifest with a hundred runtimes has some 300 KB.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// An image, and where it is to appear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOptions {
    /// The SquashFS file.
    pub file: PathBuf,
    /// A directory, made where it is missing, in which nothing else is kept.
    pub mount_point: PathBuf,
}

/// Errors of using an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file can't be opened or read.
    #[error("cannot read the runtime image {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file is something else.
    #[error("the runtime image {} is no SquashFS 4.0 image", .0.display())]
    NotSquashFs(PathBuf),
    /// The end of the file is missing.
    #[error("the runtime image {} is cut off: {found} of {expected} bytes", path.display())]
    CutOff {
        /// The file.
        path: PathBuf,
        /// The bytes that there should be.
        expected: u64,
        /// The bytes that there are.
        found: u64,
    },
    /// There is no loop device for it.
    #[error("the runtime image {}: no loop device", path.display())]
    Loop {
        /// The file.
        path: PathBuf,
        /// Why.
        source: LoopError,
    },
    /// The kernel does not mount it.
    #[error("the runtime image {} can't be mounted", path.display())]
    Mount {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MountError,
    },
    /// Its files can't be unpacked.
    #[error("unpacking the runtime image {}", path.display())]
    Unpack {
        /// The file.
        path: PathBuf,
        /// The error of reading it or of writing its files.
        source: io::Error,
    },
    /// It is a SquashFS image of something else.
    #[error("the runtime image {}: its {} can't be read", path.display(), manifest::PATH)]
    NoManifest {
        /// The file.
        path: PathBuf,
        /// The error of reading the manifest.
        source: io::Error,
    },
    /// The manifest is of another version of this program.
    #[error("the runtime image {} has format {found}, not {}", path.display(), manifest::FORMAT)]
    Format {
        /// The file.
        path: PathBuf,
        /// The manifest's value.
        found: u32,
    },
    /// Its programs can't run here.
    #[error("the runtime image {} is for {found}, this machine is {}", path.display(), std::env::consts::ARCH)]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The manifest's value.
        found: String,
    },
    /// The directory where it is to appear can't be used.
    #[error("cannot create the mount point {}", path.display())]
    MountPoint {
        /// The directory.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// An image that is mounted until this is dropped. Copies of the mount that others have made go on.
#[derive(Debug)]
pub(crate) struct MountedImage {
    /// The directory that shows it.
    pub(crate) mount_point: PathBuf,
    is_mounted: bool,
    pub(crate) hash: Arc<ImageHash>,
}

impl MountedImage {
    /// Checks and mounts an image.
    pub(crate) fn mount(options: &ImageOptions) -> Result<Self, ImageError> {
        let path = &options.file;
        let file = File::open(path).map_err(|source| read_error(path, source))?;
        check_superblock(&file, path)?;
        if !sys::user_namespace::is_initial() {
            return Self::unpack(options);
        }
        let mount = detached(&file, path)?;
        check_manifest(mount.as_fd(), path)?;
        std::fs::create_dir_all(&options.mount_point).map_err(|source| ImageError::MountPoint {
            path: options.mount_point.clone(),
            source,
        })?;
        sys::mount::attach(mount.as_fd(), CWD, &c_path(&options.mount_point))
            .map_err(|source| ImageError::Mount { path: path.clone(), source })?;
        let mount_point = options.mount_point.clone();
        Ok(Self { mount_point, is_mounted: true, hash: ImageHash::start(path) })
    }

    fn unpack(options: &ImageOptions) -> Result<Self, ImageError> {
        let path = &options.file;
        let failed = |source| ImageError::Unpack { path: path.clone(), source };
        let below = options.mount_point.with_extension("unpacked");
        let files = crate::unpack::provide(path, &below).map_err(failed)?;
        let directory = File::open(&files).map_err(failed)?;
        check_manifest(directory.as_fd(), path)?;
        Ok(Self { mount_point: files, is_mounted: false, hash: ImageHash::start(path) })
    }
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        if self.is_mounted
            && let Err(error) = sys::mount::detach(&c_path(&self.mount_point))
        {
            tracing::warn!(error = %chain::Chain(&error), "the runtime image could not be unmounted");
        }
    }
}

/// A path that the system has used already, so there is no NUL in it.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

fn read_error(path: &Path, source: io::Error) -> ImageError {
    ImageError::Read { path: path.to_owned(), source }
}

/// Tells what is no image, or only the beginning of one, before the kernel is asked: its answer to
/// both is EINVAL.
fn check_superblock(file: &File, path: &Path) -> Result<(), ImageError> {
    // Documentation/filesystems/squashfs.rst and struct squashfs_super_block in the kernel.
    const BYTES: usize = 96;
    const MAGIC: &[u8] = b"hsqs";
    const VERSION: [u8; 4] = [4, 0, 0, 0];
    let mut block = [0; BYTES];
    let metadata = file.metadata().map_err(|source| read_error(path, source))?;
    if !metadata.is_file() {
        return Err(ImageError::NotSquashFs(path.to_owned()));
    }
    match file.read_exact_at(&mut block, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(ImageError::NotSquashFs(path.to_owned()));
        }
        read => read.map_err(|source| read_error(path, source))?,
    }
    if !block.starts_with(MAGIC) || block[28..32] != VERSION {
        return Err(ImageError::NotSquashFs(path.to_owned()));
    }
    let expected = block[40..48].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let found = metadata.len();
    if found < expected {
        return Err(ImageError::CutOff { path: path.to_owned(), expected, found });
    }
    Ok(())
}

/// A detached mount of the image. It alone keeps the loop device.
fn detached(file: &File, path: &Path) -> Result<OwnedFd, ImageError> {
    let device = LoopDevice::attach(file.as_fd())
        .map_err(|source| ImageError::Loop { path: path.to_owned(), source })?;
    let mount = || {
        let context = FsContext::open("squashfs")?;
        context.string("source", &device.path().to_string_lossy())?;
        context.flag("ro")?;
        let attributes = MountAttributes::MOUNT_ATTR_RDONLY
            | MountAttributes::MOUNT_ATTR_NOSUID
            | MountAttributes::MOUNT_ATTR_NODEV
            | MountAttributes::MOUNT_ATTR_NOATIME;
        context.mount(attributes)
    };
    mount().map_err(|source| ImageError::Mount { path: path.to_owned(), source })
}

fn check_manifest(mount: BorrowedFd<'_>, path: &Path) -> Result<(), ImageError> {
    let manifest = read_manifest(mount)
        .map_err(|source| ImageError::NoManifest { path: path.to_owned(), source })?;
    if manifest.format != manifest::FORMAT {
        return Err(ImageError::Format { path: path.to_owned(), found: manifest.format });
    }
    if manifest.architecture != std::env::consts::ARCH {
        let found = manifest.architecture.chars().take(64).collect();
        return Err(ImageError::Architecture { path: path.to_owned(), found });
    }
    Ok(())
}

fn read_manifest(mount: BorrowedFd<'_>) -> io::Result<Manifest> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(mount, manifest::PATH, flags, Mode::empty())?;
    let mut text = String::new();
    File::from(file).take(MAX_MANIFEST_BYTES).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::from)
}
