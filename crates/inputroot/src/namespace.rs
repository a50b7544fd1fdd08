//! A thread with a mount namespace of its own, for kernels before 6.13.
//!
//! There overlayfs takes its layers by path only, and only from mounts that are attached in the
//! caller's mount namespace. This thread is such a caller: what it attaches nobody else sees, and
//! all of it is gone when the process dies.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sys::mount::MountError;

use crate::error::PresentError;
use crate::overlay::{Dialect, Layers};

/// Callers wait for their answers, so there are never more jobs than callers; this many wait in
/// the queue, the others at its door.
const MAX_WAITING: usize = 16;

type Job = Box<dyn FnOnce(&Directories) + Send>;

/// The directories of the state as the thread's own namespace has them: the kernel compares
/// mounts, and a descriptor opened elsewhere leads to the same directory by another one.
struct Directories {
    staging: OwnedFd,
    images: OwnedFd,
    blobs: OwnedFd,
}

/// A handle on the thread, which ends when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    jobs: SyncSender<Job>,
    next_image: AtomicU64,
}

/// A mount that is attached in the namespace until this is dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    namespace: Arc<Namespace>,
    name: CString,
}

impl Namespace {
    /// Starts the thread. `images` is an empty directory for mount points.
    pub(crate) fn start(
        staging: PathBuf,
        images: PathBuf,
        blobs: PathBuf,
    ) -> Result<Self, PresentError> {
        let (jobs, waiting) = sync_channel::<Job>(MAX_WAITING);
        let (ready, started) = sync_channel(1);
        let thread = std::thread::Builder::new().name("inputroot-mounter".to_owned());
        let body = move || {
            let directories = match enter(&staging, &images, &blobs) {
                Ok(directories) => directories,
                Err(error) => return drop(ready.send(Err(error))),
            };
            drop(ready.send(Ok(())));
            for job in waiting {
                job(&directories);
            }
        };
        thread
            .spawn(body)
            .map_err(|source| PresentError::Thread { source })?;
        started.recv().map_err(|_| PresentError::MounterGone)??;
        Ok(Self {
            jobs,
            next_image: AtomicU64::new(0),
        })
    }

    /// Makes a mount in the namespace and attaches it there.
    pub(crate) fn attach(
        self: &Arc<Self>,
        make: impl FnOnce() -> Result<OwnedFd, MountError> + Send + 'static,
    ) -> Result<(OwnedFd, Attached), PresentError> {
        let number = self.next_image.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(number.to_string()).unwrap_or_default();
        let point = name.clone();
        let mount = self.run(move |directories| {
            let mount = make()?;
            rustix::fs::mkdirat(&directories.images, &*point, Mode::from_raw_mode(0o700))
                .map_err(PresentError::staging("mkdir(mount point)"))?;
            sys::mount::attach(mount.as_fd(), directories.images.as_fd(), &point)?;
            Ok::<_, PresentError>(mount)
        })??;
        Ok((
            mount,
            Attached {
                namespace: Arc::clone(self),
                name,
            },
        ))
    }

    /// Makes an overlay of an attached image and the staging directory of that name.
    pub(crate) fn overlay(
        &self,
        image: &Arc<crate::image::Image>,
        staging: &CStr,
    ) -> Result<OwnedFd, PresentError> {
        let (image, staging) = (Arc::clone(image), staging.to_owned());
        self.run(move |directories| {
            let directory = open_directory(&directories.staging, &staging)
                .map_err(PresentError::staging("open(staging)"))?;
            let open = |name| {
                open_directory(&directory, name).map_err(PresentError::staging("open(staging)"))
            };
            let (upper, work) = (open(c"upper")?, open(c"work")?);
            let layers = Layers {
                upper: upper.as_fd(),
                work: work.as_fd(),
                image: image.mount.as_fd(),
                blobs: directories.blobs.as_fd(),
            };
            Ok(crate::overlay::mount(layers, Dialect::Paths)?)
        })?
    }

    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Directories) -> T + Send + 'static,
    ) -> Result<T, PresentError> {
        let (answer, answered) = sync_channel(1);
        let job = move |directories: &Directories| drop(answer.send(job(directories)));
        self.jobs
            .send(Box::new(job))
            .map_err(|_| PresentError::MounterGone)?;
        answered.recv().map_err(|_| PresentError::MounterGone)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let name = self.name.clone();
        let detached = self.namespace.run(move |directories| {
            let base = sys::mount::descriptor_path(&directories.images);
            let path = format!("{base}/{}", name.to_string_lossy());
            let path = CString::new(path).unwrap_or_default();
            sys::mount::detach(&path)?;
            rustix::fs::unlinkat(&directories.images, &*name, AtFlags::REMOVEDIR)
                .map_err(PresentError::staging("rmdir(mount point)"))
        });
        if let Err(error) | Ok(Err(error)) = detached {
            tracing::warn!(%error, "the image of an input root could not be unmounted");
        }
    }
}

fn enter(staging: &Path, images: &Path, blobs: &Path) -> Result<Directories, PresentError> {
    sys::mount::enter_private_namespace()?;
    let open = |path: &Path| {
        rustix::fs::open(path, directory_flags(), Mode::empty())
            .map_err(PresentError::staging(format!("open({})", path.display())))
    };
    Ok(Directories {
        staging: open(staging)?,
        images: open(images)?,
        blobs: open(blobs)?,
    })
}

fn open_directory(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, directory_flags(), Mode::empty())
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}
