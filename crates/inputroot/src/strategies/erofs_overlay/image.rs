//! Stores the image of a tree where the kernel can read it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use model::InputTree;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, Mode, OFlags};
use sys::loop_device::LoopDevice;
use sys::mount::{FsContext, MountAttributes, MountError, descriptor_path};

use crate::access::Access;
use crate::erofs;
use crate::error::PresentError;
use crate::mounts::ATTRIBUTES;

/// A buffer that has grown above this is not kept for the next image.
///
/// The image of a tree of 50,000 files has this size. The kernel has to clear the pages of a new
/// buffer, which takes longer than building the image.
const MAX_KEPT_BUFFER_BYTES: usize = 8 << 20;
/// The number of buffers that are kept: more images are rarely built at once.
const MAX_KEPT_BUFFERS: usize = 4;

/// The way in which the kernel reads an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// Straight from a file without a name in the state directory (Linux 6.12, and not on tmpfs or
    /// overlayfs).
    File,
    /// Through a loop device on a file in memory.
    Loop,
}

/// An image that the kernel can read.
pub(crate) enum StoredImage {
    File(File),
    Loop(LoopDevice),
}

/// Builds images and stores them.
#[derive(Debug)]
pub(crate) struct ImageWriter {
    backing: Backing,
    directory: OwnedFd,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl ImageWriter {
    /// Images that are files become unnamed files in `directory`.
    pub(crate) fn new(backing: Backing, directory: OwnedFd) -> Self {
        Self { backing, directory, buffers: Mutex::default() }
    }

    /// Builds and stores the image of `tree`; returns it with its size in bytes.
    pub(crate) fn store(
        &self,
        tree: &InputTree,
        access: Access,
    ) -> Result<(StoredImage, u64), PresentError> {
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        let stored = erofs::build(tree, access, &mut buffer)
            .map_err(PresentError::from)
            .and_then(|()| self.write(&buffer));
        let bytes = buffer.len() as u64;
        let mut buffers = self.buffers.lock();
        if buffer.capacity() <= MAX_KEPT_BUFFER_BYTES && buffers.len() < MAX_KEPT_BUFFERS {
            buffers.push(buffer);
        }
        Ok((stored?, bytes))
    }

    fn write(&self, image: &[u8]) -> Result<StoredImage, PresentError> {
        match self.backing {
            Backing::File => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o600);
                let file = rustix::fs::openat(&self.directory, c".", flags, mode)
                    .map_err(PresentError::store_image("open(O_TMPFILE)"))?;
                Ok(StoredImage::File(filled(file, image)?))
            }
            Backing::Loop => {
                let file = rustix::fs::memfd_create(c"input root image", MemfdFlags::CLOEXEC)
                    .map_err(PresentError::store_image("memfd_create"))?;
                Ok(StoredImage::Loop(LoopDevice::attach(filled(file, image)?.as_fd())?))
            }
        }
    }
}

fn filled(file: OwnedFd, content: &[u8]) -> Result<File, PresentError> {
    let mut file = File::from(file);
    file.write_all(content).map_err(PresentError::store_image("write"))?;
    Ok(file)
}

impl StoredImage {
    /// A detached mount of the image.
    pub(crate) fn mount(&self) -> Result<OwnedFd, MountError> {
        let context = FsContext::open("erofs")?;
        match self {
            Self::File(file) => context.string("source", &descriptor_path(file))?,
            Self::Loop(device) => context.string("source", &device.path().to_string_lossy())?,
        }
        context.flag("ro")?;
        context.mount(ATTRIBUTES | MountAttributes::MOUNT_ATTR_RDONLY)
    }
}
