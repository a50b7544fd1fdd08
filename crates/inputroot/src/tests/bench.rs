//! A strategy on a state directory of its own, and an action's view of what it presents.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use model::{ACTION_ID, Digest, InputTree, NodeProperties, RelPath};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use store::BlobPath;
use tempfile::TempDir;

use crate::access::{Access, file_rights};
use crate::probe::{StrategyName, Trial, TrialError, Variant};
use crate::strategies::{Attachment, InputRoots, Places, PresentRequest, Presented};
use crate::tree_fixture::TreeFixture;

pub(super) struct Bench {
    variant: Variant,
    strategy: Box<dyn InputRoots>,
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    places: Places,
    _directory: TempDir,
}

impl Bench {
    /// Returns `None` and prints the reason where the kernel or the file system lacks the mechanism.
    /// The tests of actiondfs are ignored by default, so whoever runs them has a kernel with it.
    pub(super) fn open(variant: Variant) -> Option<Self> {
        let bench = Self::open_in(&std::env::temp_dir(), variant);
        assert!(bench.is_some() || variant != Variant::ActiondFs, "no actiondfs in this kernel");
        bench
    }

    /// With the state below `parent`.
    pub(super) fn open_in(parent: &Path, variant: Variant) -> Option<Self> {
        let directory = tempfile::tempdir_in(parent).expect("a temporary directory");
        let places =
            Places { work: directory.path().join("work"), blobs: directory.path().join("blobs") };
        fs::create_dir(&places.work).expect("mkdir");
        fs::create_dir(&places.blobs).expect("mkdir");
        let strategy = match open_and_try(variant, &places) {
            Ok(strategy) => strategy,
            Err(error) => {
                eprintln!("SKIPPED: {variant:?} does not work here: {error}");
                return None;
            }
        };
        Some(Self { variant, strategy, blobs: Mutex::default(), places, _directory: directory })
    }

    /// The tree, with its blobs in the store.
    pub(super) fn tree(&self, fixture: TreeFixture) -> Arc<InputTree> {
        let (tree, blobs) = fixture.build();
        for (digest, content) in blobs {
            if digest.is_empty_blob() {
                continue;
            }
            let path = self.places.blobs.join(BlobPath::new(&digest).as_str());
            fs::create_dir_all(path.parent().expect("a shard")).expect("mkdir");
            if !path.exists() {
                fs::write(&path, &content).expect("writing a blob");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("chmod");
            }
            self.blobs.lock().insert(digest, content);
        }
        tree
    }

    pub(super) fn present(&self, tree: &Arc<InputTree>) -> Presented {
        self.present_with(tree, &PresentRequest::default())
    }

    pub(super) fn present_mutable(&self, tree: &Arc<InputTree>) -> Presented {
        self.present_with(tree, &PresentRequest { mutable: true, ..PresentRequest::default() })
    }

    pub(super) fn present_with(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Presented {
        self.strategy.present(tree, request).expect("the tree can be presented")
    }

    pub(super) fn strategy(&self) -> &dyn InputRoots {
        &*self.strategy
    }

    /// Permission bits of an input file with content that is no executable. Mounts and links show the
    /// blob's own.
    pub(super) fn file_mode(&self, mutable: bool) -> u32 {
        let (mode, _) = file_rights(false, &NodeProperties::default(), Access::new(mutable));
        if self.shows_blobs() && !mutable { 0o444 } else { mode.into() }
    }

    fn shows_blobs(&self) -> bool {
        matches!(self.variant, Variant::Bind | Variant::LinkOverlay(_))
    }

    /// Whether the name of an input file with content can be moved and removed. One that is a mount
    /// stays, if it is no executable.
    pub(super) fn moves_files(&self) -> bool {
        self.variant != Variant::Bind
    }

    /// Whether inputs have the one modification time; files that are blobs have the blob's.
    pub(super) fn has_fixed_times(&self) -> bool {
        !self.shows_blobs()
    }

    /// Moves a directory of the tree as mv(1) does: by renaming it, or entry by entry where it can't be
    /// renamed, because `userxattr` rules that out.
    pub(super) fn move_directory(&self, view: &View<'_>, from: &str, to: &str) {
        let can_be_renamed =
            !matches!(self.variant, Variant::TmpfsOverlay | Variant::LinkOverlay(_));
        let expected = if can_be_renamed { Ok(()) } else { Err(Errno::XDEV) };
        assert_eq!(view.rename(from, to), expected, "{from} to {to}");
        if !can_be_renamed {
            view.move_entries(from, to);
        }
    }

    /// The content of a blob of a test's tree.
    pub(super) fn blob(&self, digest: &Digest) -> Vec<u8> {
        self.blobs.lock()[digest].clone()
    }

    /// Removes a blob from the store.
    pub(super) fn lose(&self, content: &[u8]) {
        self.damage(&Digest::of(model::DigestFunction::Sha256, content), None);
    }

    /// Replaces a blob in the store by something that it is not, or by nothing.
    pub(super) fn damage(&self, digest: &Digest, content: Option<&[u8]>) {
        self.blobs.lock().remove(digest);
        let path = self.places.blobs.join(BlobPath::new(digest).as_str());
        fs::remove_file(&path).expect("unlink");
        if let Some(content) = content {
            fs::write(path, content).expect("writing a blob");
        }
    }

    /// Every blob is as it was, and nothing that actions wrote is left.
    pub(super) fn finish(self) {
        let Self { variant, strategy, blobs, places, _directory } = self;
        drop(strategy); // waits for the janitor
        for (digest, content) in blobs.into_inner() {
            let path = places.blobs.join(BlobPath::new(&digest).as_str());
            assert_eq!(fs::read(&path).expect("the blob is there"), content);
            let mode = fs::metadata(&path).expect("stat").permissions().mode();
            assert_eq!(mode & 0o7777, 0o444);
        }
        for staging in fs::read_dir(places.work.join("staging")).expect("the staging directories") {
            let staging = staging.expect("an entry").path();
            for part in ["upper", "work"] {
                let left = fs::read_dir(staging.join(part)).expect("a part").count();
                assert_eq!(left, 0, "{part} of {staging:?} is not empty");
                let bytes = fs::metadata(staging.join(part)).expect("stat").len();
                assert!(bytes <= 64 << 10, "{part} of {staging:?} takes {bytes} bytes");
            }
        }
        if variant != Variant::Bind {
            let mount_points = fs::read_dir(places.work.join("images")).expect("images");
            assert_eq!(mount_points.count(), 0);
        }
    }
}

fn open_and_try(variant: Variant, places: &Places) -> Result<Box<dyn InputRoots>, TrialError> {
    let trial = Trial::prepare(&places.blobs)?;
    let strategy = variant.open(StrategyName::ErofsFile, places)?;
    trial.run(&*strategy)?;
    Ok(strategy)
}

/// Runs `what` as an action would: as user and group 65534, without any capability, on a thread
/// that ends with it.
pub(super) fn as_action<T: Send>(
    presented: &Presented,
    what: impl FnOnce(&View<'_>) -> T + Send,
) -> T {
    let Attachment::Mount(root) = presented.attachment();
    let view = View { root: root.as_fd() };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let id = ACTION_ID;
            rustix::thread::set_thread_groups(&[]).expect("setgroups");
            rustix::thread::set_thread_gid(rustix::fs::Gid::from_raw(id)).expect("setgid");
            rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(id)).expect("setuid");
            what(&view)
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// System calls below an input root.
pub(super) struct View<'a> {
    pub(super) root: BorrowedFd<'a>,
}

impl View<'_> {
    pub(super) fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(self.root, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
    }

    pub(super) fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let mut content = Vec::new();
        let mut file = fs::File::from(self.open(path, OFlags::RDONLY)?);
        file.read_to_end(&mut content).expect("reading an open file");
        Ok(content)
    }

    pub(super) fn write(&self, path: &str, content: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = fs::File::from(self.open(path, flags)?);
        file.write_all(content).expect("writing an open file");
        Ok(())
    }

    pub(super) fn stat(&self, path: &str) -> Result<Stat, Errno> {
        rustix::fs::statat(self.root, path, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn mkdir(&self, path: &str) -> Result<(), Errno> {
        rustix::fs::mkdirat(self.root, path, Mode::from_raw_mode(0o755))
    }

    pub(super) fn unlink(&self, path: &str) -> Result<(), Errno> {
        rustix::fs::unlinkat(self.root, path, AtFlags::empty())
    }

    pub(super) fn rmdir(&self, path: &str) -> Result<(), Errno> {
        rustix::fs::unlinkat(self.root, path, AtFlags::REMOVEDIR)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Errno> {
        rustix::fs::renameat(self.root, from, self.root, to)
    }

    fn move_entries(&self, from: &str, to: &str) {
        self.mkdir(to).expect("mkdir");
        for name in self.list(from).expect("listing") {
            let (from, to) = (format!("{from}/{name}"), format!("{to}/{name}"));
            let kind = FileType::from_raw_mode(self.stat(&from).expect("stat").st_mode);
            match kind {
                FileType::Directory => self.move_entries(&from, &to),
                _ => self.rename(&from, &to).expect("rename"),
            }
        }
        self.rmdir(from).expect("rmdir");
    }

    pub(super) fn symlink(&self, target: &str, path: &str) -> Result<(), Errno> {
        rustix::fs::symlinkat(target, self.root, path)
    }

    pub(super) fn link(&self, from: &str, to: &str) -> Result<(), Errno> {
        rustix::fs::linkat(self.root, from, self.root, to, AtFlags::empty())
    }

    pub(super) fn readlink(&self, path: &str) -> Result<Vec<u8>, Errno> {
        rustix::fs::readlinkat(self.root, path, Vec::new()).map(|target| target.into_bytes())
    }

    /// The names in a directory, sorted.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>, Errno> {
        let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

pub(super) fn path(path: &str) -> RelPath {
    RelPath::parse(path).expect("a test's path is clean")
}
