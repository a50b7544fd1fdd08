//! The errors of presenting an input root.

use std::io;

use model::{DigestFunction, RelPath};
use rustix::io::Errno;
use sys::loop_device::LoopError;

use crate::erofs::ImageError;

/// An error of presenting an input root.
#[derive(Debug, thiserror::Error)]
pub enum PresentError {
    /// A directory that has to be there is a file or symlink in the input tree.
    #[error("directory {wanted} cannot be made: {} is a {kind} in the input tree", obstacle.as_str(), wanted = wanted.as_str())]
    Obstructed {
        /// The directory that was asked for.
        wanted: RelPath,
        /// The path, a part of `wanted` or all of it, that is something else.
        obstacle: RelPath,
        /// "file" or "symlink".
        kind: &'static str,
    },
    /// The mechanism knows only shorter hashes.
    #[error(
        "trees of {function} digests can't be shown here: actiondfs reads those of SHA-256 and BLAKE3"
    )]
    Function {
        /// The digest function of the tree.
        function: DigestFunction,
    },
    /// The tree has no image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image could not be stored.
    #[error("storing the image of the input root: {step}")]
    StoreImage {
        /// The system call.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The image could not be attached to a loop device.
    #[error("attaching the image of the input root")]
    Loop(#[from] LoopError),
    /// A mount was refused.
    #[error("mounting the input root")]
    Mount(#[from] sys::mount::MountError),
    /// A directory for what the action writes could not be made.
    #[error("preparing the staging directory: {step}")]
    Staging {
        /// The system call and its object.
        step: String,
        /// The kernel's error.
        source: Errno,
    },
    /// Every input is a mount, and the kernel allows fewer.
    #[error(
        "the {files} input files need {mounts} mounts, and at most {max_mounts} are possible (sysctl \
         fs.mount-max): one each, and with SubtreeReadOnly one more for the input root and for every \
         directory above that it closes or opens"
    )]
    TooManyMounts {
        /// The number of the tree's files.
        files: usize,
        /// The mounts that the sandbox would have of it.
        mounts: u64,
        /// The most mounts that there may be.
        max_mounts: u64,
    },
    /// The strategy tells files of the action from inputs by their owner.
    #[error("actions have no user of their own here")]
    NoOwnUser,
    /// The strategy can't show what is the action's to a user of the host; see [`HostUser`](crate::HostUser).
    #[error("input roots are shown to one user of the host only here")]
    UnmappedUser,
    /// A thread could not be started.
    #[error("starting a thread")]
    Thread {
        /// The system's error.
        source: io::Error,
    },
    /// The caller's [`Interrupt`](crate::Interrupt) came.
    #[error("presenting the input root was interrupted")]
    Interrupted,
    /// No strategy could be chosen at the start, on a full disk, nor now.
    #[error("choosing a strategy: {reason}")]
    NoStrategy {
        /// The outcome of the trials.
        reason: String,
        /// Whether the disk is still full.
        is_full: bool,
    },
    /// The thread that makes mounts is gone.
    #[error("the thread that makes mounts has ended")]
    MounterGone,
}

impl PresentError {
    /// The errno of the system call, if one failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::StoreImage { source, .. }
            | Self::Thread { source }
            | Self::Loop(
                LoopError::Open { source, .. }
                | LoopError::NoneFree(source)
                | LoopError::Configure(source),
            ) => Errno::from_io_error(source),
            Self::Mount(error) => Some(error.errno),
            Self::Staging { source, .. } => Some(*source),
            Self::NoStrategy { is_full: true, .. } => Some(Errno::NOSPC),
            // Others were faster, which may be otherwise the next time.
            Self::Loop(LoopError::Contended) => Some(Errno::AGAIN),
            Self::Obstructed { .. }
            | Self::Function { .. }
            | Self::Image(_)
            | Self::TooManyMounts { .. }
            | Self::Interrupted
            | Self::NoOwnUser
            | Self::NoStrategy { is_full: false, .. }
            | Self::UnmappedUser
            | Self::MounterGone => None,
        }
    }

    /// Whether the tree is one that cannot be presented here, however often it is tried.
    pub fn is_about_tree(&self) -> bool {
        matches!(
            self,
            Self::Obstructed { .. }
                | Self::Function { .. }
                | Self::Image(_)
                | Self::TooManyMounts { .. }
        )
    }

    /// For `map_err`: a failed step on the staging directory.
    pub(crate) fn staging(step: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let step = step.into();
        move |source| Self::Staging { step, source }
    }

    /// For `map_err`: a failed step of storing the image.
    pub(crate) fn store_image<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::StoreImage { step, source: source.into() }
    }
}
