//! Tries a strategy with a small tree.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::proto::{self, Message};
use model::{
    Digest, DigestFunction, Directory, InputTree, LoadError, PathError, RelPath, TreeLimits,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use store::BlobPath;

use crate::access::HostUser;
use crate::error::PresentError;
use crate::staging::{OutputEntry, OutputError, OutputFile};
use crate::strategies::{Attachment, InputRoots, PresentRequest};

const CONTENT: &[u8] = b"what an action reads";
const CHANGED: &[u8] = b"what an action wrote";
const INPUT: &str = "directory/input";
const OUTPUT: &str = "directory/output";

/// The reason why a strategy is not used.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// It does not come up with an input root.
    #[error(transparent)]
    Present(#[from] PresentError),
    /// Its outputs cannot be read.
    #[error("reading the outputs")]
    Outputs(#[from] OutputError),
    /// The files for the trial could not be made, or the input root could not be used.
    #[error("{step}")]
    Io {
        /// The step.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// It seems to work, and does not do what it should.
    #[error("{0}")]
    Wrong(&'static str),
}

impl TrialError {
    /// The kernel's error, if a system call failed.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Present(error) => error.errno(),
            Self::Io { source, .. } => Errno::from_io_error(source),
            Self::Outputs(_) | Self::Wrong(_) => None,
        }
    }

    fn io<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { step, source: source.into() }
    }
}

/// A tree of one input, and a blob directory with all that it is made of.
pub(crate) struct Trial {
    tree: Arc<InputTree>,
    blob: PathBuf,
}

impl Trial {
    /// Puts the blobs below `blobs`, which must exist.
    pub(crate) fn prepare(blobs: &Path) -> Result<Self, TrialError> {
        for function in DigestFunction::ALL {
            fs::create_dir_all(blobs.join(function.name()))
                .map_err(TrialError::io("making a directory of blobs"))?;
        }
        let (below, root) = messages();
        for message in [&below, &root] {
            put(blobs, message)?;
        }
        let blob = put(blobs, CONTENT)?;
        Ok(Self { tree: Arc::new(tree(below, root)?), blob })
    }

    /// Has `strategy` present the tree in both modes, and looks whether it is as it should be.
    pub(crate) fn run(&self, strategy: &dyn InputRoots) -> Result<(), TrialError> {
        self.strict(strategy)?;
        self.mutable(strategy)
    }

    fn strict(&self, strategy: &dyn InputRoots) -> Result<(), TrialError> {
        let presented = strategy.present(&self.tree, &PresentRequest::default())?;
        let Attachment::Mount(mount) = presented.attachment();
        let mut input = open(mount, INPUT, OFlags::RDONLY)?;
        let metadata = input.metadata().map_err(TrialError::io("fstat of the input"))?;
        // A bind mount shows the blob's own mode.
        if !matches!(metadata.mode() & 0o7777, 0o644 | 0o444) || metadata.uid() != 0 {
            return Err(TrialError::Wrong("the input has not the owner and mode that it should"));
        }
        expect(&mut input, CONTENT)?;
        drop(open(mount, OUTPUT, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?);
        let path = path(OUTPUT)?;
        let found = presented.outputs().entry(&path)?;
        if !matches!(found, Some(OutputEntry::File(OutputFile::Staged(_)))) {
            return Err(TrialError::Wrong("a file made beside the input is not among the outputs"));
        }
        presented.discard();
        Ok(())
    }

    fn mutable(&self, strategy: &dyn InputRoots) -> Result<(), TrialError> {
        let request = PresentRequest { mutable: true, ..PresentRequest::default() };
        let presented = strategy.present(&self.tree, &request)?;
        let Attachment::Mount(mount) = presented.attachment();
        let mut input = open(mount, INPUT, OFlags::RDWR | OFlags::TRUNC)?;
        input.write_all(CHANGED).map_err(TrialError::io("writing to the input"))?;
        drop(input);
        expect(&mut open(mount, INPUT, OFlags::RDONLY)?, CHANGED)?;
        let mut blob = File::open(&self.blob).map_err(TrialError::io("opening the blob"))?;
        expect(&mut blob, CONTENT)?;
        presented.discard();
        Ok(())
    }
}

/// Has `input_roots` present an empty tree to `user`, and looks whether it is that user's, and what the user makes the
/// action's.
///
/// # Errors
/// When it is not, as on a file system that can't show its files to other owners.
pub fn try_user(input_roots: &dyn InputRoots, user: HostUser<'_>) -> Result<(), TrialError> {
    let request = PresentRequest { user: Some(user), ..PresentRequest::default() };
    let presented = input_roots.present(&Arc::new(tree(Vec::new(), Vec::new())?), &request)?;
    let Attachment::Mount(mount) = presented.attachment();
    let root = rustix::fs::fstat(&**mount).map_err(TrialError::io("fstat of the input root"))?;
    if (root.st_uid, root.st_gid) != (user.id, user.id) {
        return Err(TrialError::Wrong("the input root is not the user's"));
    }
    let made = open(mount, "made", OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    std::os::unix::fs::fchown(made, Some(user.id), Some(user.id))
        .map_err(TrialError::io("giving a file to the user"))?;
    match presented.outputs().entry(&path("made")?)? {
        Some(OutputEntry::File(OutputFile::Staged(file))) if !file.must_copy() => {}
        _ => return Err(TrialError::Wrong("a file of the user's is not one of the action's")),
    }
    presented.discard();
    Ok(())
}

fn path(path: &str) -> Result<RelPath, TrialError> {
    RelPath::parse(path).map_err(|_: PathError| TrialError::Wrong("the trial's path is not clean"))
}

fn open(root: &OwnedFd, path: &str, flags: OFlags) -> Result<File, TrialError> {
    let mode = Mode::from_raw_mode(0o644);
    let file = rustix::fs::openat(root, path, flags | OFlags::CLOEXEC, mode)
        .map_err(TrialError::io("opening a file in the input root"))?;
    Ok(file.into())
}

fn expect(file: &mut File, expected: &[u8]) -> Result<(), TrialError> {
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(TrialError::io("reading a file"))?;
    if content == expected {
        return Ok(());
    }
    Err(TrialError::Wrong("a file has not the content that it should"))
}

/// Stores a blob; gives its path.
fn put(blobs: &Path, content: &[u8]) -> Result<PathBuf, TrialError> {
    let path = blobs.join(BlobPath::new(&Digest::of(DigestFunction::Sha256, content)).as_str());
    let shard = path.parent().unwrap_or(blobs);
    fs::create_dir_all(shard).map_err(TrialError::io("making a blob's directory"))?;
    fs::write(&path, content).map_err(TrialError::io("writing a blob"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444))
        .map_err(TrialError::io("chmod of a blob"))?;
    Ok(path)
}

/// A directory with a file `input`, and the root, with that as its `directory`.
fn messages() -> (Vec<u8>, Vec<u8>) {
    let below = proto::Directory {
        files: vec![proto::FileNode {
            name: "input".to_owned(),
            digest: Some(Digest::of(DigestFunction::Sha256, CONTENT).to_proto()),
            ..proto::FileNode::default()
        }],
        ..proto::Directory::default()
    };
    let below = below.encode_to_vec();
    let root = proto::Directory {
        directories: vec![proto::DirectoryNode {
            name: "directory".to_owned(),
            digest: Some(Digest::of(DigestFunction::Sha256, &below).to_proto()),
        }],
        ..proto::Directory::default()
    };
    (below, root.encode_to_vec())
}

fn tree(below: Vec<u8>, root: Vec<u8>) -> Result<InputTree, TrialError> {
    let root_digest = Digest::of(DigestFunction::Sha256, &root);
    let load = &mut |digest: &Digest| {
        let message = if *digest == root_digest { root.clone() } else { below.clone() };
        let directory = Directory::parse(message.into(), digest.function());
        directory.map(|directory| Some(Arc::new(directory))).map_err(LoadError::<Infallible>::from)
    };
    InputTree::assemble(root_digest, TreeLimits::default(), load)
        .map_err(|_| TrialError::Wrong("the trial's tree is malformed"))
}
