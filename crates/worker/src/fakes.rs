//! Input roots, sandboxes and a store for tests: in a temporary directory, without privileges, and
//! failing where a test wants it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use inputroot::{
    Attachment, HostUser, NamedEntry, OutputEntry, OutputError, OutputFile, PresentError,
    PresentRequest, StagedFile,
};
use model::{Digest, DigestFunction, InputTree, Mtime, NodeProperties, RelPath};
use parking_lot::Mutex;
use runtimes::Rootfs;
use rustix::io::Errno;
use sandbox::{
    Exit, ExitStatus, RunError, Spec, StopConditions, Stopped, Streams, Usage, Watchdog,
};
use store::{AdoptError, Adopted, Store, StoreError};

use crate::boundary::{BlobSink, Destination, InputRoot, InputRoots, Outputs, Sandbox, Sandboxes};

/// An object that an action left at a path.
#[derive(Debug, Clone)]
pub(crate) enum Left {
    File(&'static str),
    Input(Digest),
    Directory,
    Symlink(&'static [u8]),
    Special,
    /// Something that cannot be looked at.
    Unreadable(Errno),
}

/// The objects that an action left, by path.
#[derive(Debug, Clone)]
pub(crate) struct FakeOutputs {
    left: Arc<BTreeMap<Vec<u8>, Left>>,
    /// Where the files are, under their numbers.
    directory: Arc<OwnedFd>,
    path: Arc<Path>,
    next: Arc<AtomicUsize>,
    /// The error of listing any directory.
    unlisted: Option<Errno>,
}

impl FakeOutputs {
    pub(crate) fn new(directory: &Path, left: &[(&[u8], Left)]) -> Self {
        let left = left.iter().map(|(path, left)| (path.to_vec(), left.clone()));
        Self {
            left: Arc::new(left.collect()),
            directory: Arc::new(File::open(directory).unwrap().into()),
            path: directory.into(),
            next: Arc::default(),
            unlisted: None,
        }
    }

    pub(crate) fn unlisted(self, errno: Errno) -> Self {
        Self { unlisted: Some(errno), ..self }
    }

    fn told(&self, path: &[u8], left: &Left) -> Result<OutputEntry, OutputError> {
        Ok(match left {
            Left::File(content) => {
                let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
                fs::write(self.path.join(&name), content).unwrap();
                let name = CString::new(name).unwrap();
                let file = StagedFile::new(Arc::clone(&self.directory), name);
                OutputEntry::File(OutputFile::Staged(file))
            }
            Left::Input(digest) => {
                let mtime = Some(Mtime { seconds: 946_684_800, nanos: 0 });
                let shown = NodeProperties { mtime, unix_mode: Some(0o755) };
                OutputEntry::File(OutputFile::Input { digest: *digest, executable: true, shown })
            }
            Left::Directory => OutputEntry::Directory,
            Left::Symlink(target) => OutputEntry::Symlink(target.to_vec()),
            Left::Special => OutputEntry::Special,
            Left::Unreadable(errno) => {
                let path = String::from_utf8_lossy(path).into_owned();
                return Err(OutputError::Read { step: "fstatat", path, source: *errno });
            }
        })
    }
}

impl Outputs for FakeOutputs {
    fn entry(&self, path: &RelPath) -> Result<Option<OutputEntry>, OutputError> {
        if path.is_root() {
            return Ok(Some(OutputEntry::Directory));
        }
        let left = self.left.get(path.as_bytes());
        left.map(|left| self.told(path.as_bytes(), left)).transpose()
    }

    fn read_dir(&self, path: &RelPath, max_entries: usize) -> Result<Vec<NamedEntry>, OutputError> {
        let shown = || path.as_str().to_owned();
        if let Some(errno) = self.unlisted {
            return Err(OutputError::Read { step: "getdents64", path: shown(), source: errno });
        }
        let mut listing = Vec::new();
        for (below, left) in self.left.iter() {
            let name = match path.as_bytes() {
                b"" => Some(below.as_slice()),
                path => below.strip_prefix(path).and_then(|rest| rest.strip_prefix(b"/")),
            };
            let Some(name) = name.filter(|name| !name.contains(&b'/')) else { continue };
            if listing.len() == max_entries {
                return Err(OutputError::TooManyEntries { path: shown(), max_entries });
            }
            listing.push(NamedEntry { name: name.to_vec(), entry: self.told(below, left)? });
        }
        Ok(listing)
    }

    fn properties(&self, path: &RelPath) -> Result<NodeProperties, OutputError> {
        let seconds = i64::try_from(path.as_bytes().len()).unwrap();
        Ok(NodeProperties { mtime: Some(Mtime { seconds, nanos: 7 }), unix_mode: Some(0o750) })
    }
}

/// Presents nothing, and gives the same outputs to every action.
pub(crate) struct FakeInputRoots {
    pub(crate) outputs: FakeOutputs,
    /// The error that presenting returns once.
    pub(crate) fails: Mutex<Option<PresentError>>,
    pub(crate) discarded: Arc<AtomicUsize>,
}

struct FakeInputRoot {
    attachment: Attachment,
    outputs: FakeOutputs,
    discarded: Arc<AtomicUsize>,
}

impl InputRoots for FakeInputRoots {
    fn present(
        &self,
        _tree: &Arc<InputTree>,
        _request: &PresentRequest<'_>,
    ) -> Result<Box<dyn InputRoot>, PresentError> {
        if let Some(error) = self.fails.lock().take() {
            return Err(error);
        }
        Ok(Box::new(FakeInputRoot {
            attachment: Attachment::Mount(Arc::new(File::open("/").unwrap().into())),
            outputs: self.outputs.clone(),
            discarded: Arc::clone(&self.discarded),
        }))
    }
}

impl InputRoot for FakeInputRoot {
    fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn outputs(&self) -> Box<dyn Outputs> {
        Box::new(self.outputs.clone())
    }

    fn discard(self: Box<Self>) {
        self.discarded.fetch_add(1, Ordering::Relaxed);
    }
}

/// The behaviour of an action in a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: ExitStatus,
    pub(crate) stopped: Option<Stopped>,
    pub(crate) oom_killed: bool,
    pub(crate) acquire_fails: Option<RunError>,
    pub(crate) run_fails: Option<RunError>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            stdout: b"said\n".to_vec(),
            stderr: b"warned\n".to_vec(),
            status: ExitStatus::Code(0),
            stopped: None,
            oom_killed: false,
            acquire_fails: None,
            run_fails: None,
        }
    }
}

pub(crate) struct FakeSandboxes {
    pub(crate) behaviour: Behaviour,
    pub(crate) released: Arc<AtomicUsize>,
}

struct FakeSandbox {
    behaviour: Behaviour,
    released: Arc<AtomicUsize>,
}

impl Sandboxes for FakeSandboxes {
    fn acquire(&self, _view: &Arc<Rootfs>) -> Result<Box<dyn Sandbox>, RunError> {
        match &self.behaviour.acquire_fails {
            Some(error) => Err(error.clone()),
            None => Ok(Box::new(FakeSandbox {
                behaviour: self.behaviour.clone(),
                released: Arc::clone(&self.released),
            })),
        }
    }

    fn end_retired(&self) {}
}

impl Sandbox for FakeSandbox {
    fn user(&self) -> Option<HostUser<'_>> {
        None
    }

    fn run(
        &mut self,
        _spec: &Spec<'_>,
        streams: Streams<'_>,
        _stop: &StopConditions<'_>,
    ) -> Result<Exit, RunError> {
        let behaviour = &self.behaviour;
        if let Some(error) = &behaviour.run_fails {
            return Err(error.clone());
        }
        let written =
            [streams.stdout.write(&behaviour.stdout), streams.stderr.write(&behaviour.stderr)];
        let is_refused = written.contains(&ControlFlow::Break(()));
        let now = SystemTime::now();
        Ok(Exit {
            status: if is_refused { ExitStatus::Signal(9) } else { behaviour.status },
            stopped: if is_refused { Some(Stopped::SinkRefused) } else { behaviour.stopped },
            oom_killed: behaviour.oom_killed,
            usage: Usage { wall: Duration::from_millis(1), ..Usage::default() },
            started: now,
            ended: now,
        })
    }

    fn release(self: Box<Self>) {
        self.released.fetch_add(1, Ordering::Relaxed);
    }
}

/// A step of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A file becomes a blob, and the file itself cannot be read.
    ReadFile,
    /// A file becomes a blob, and the store does not take it.
    AdoptFile,
    Put,
    PutDirectory,
    Write,
    Commit,
    Cache,
}

/// The store, with one step that fails.
pub(crate) struct FakeDestination {
    pub(crate) store: Arc<Store>,
    pub(crate) fails: Option<(Step, Errno)>,
}

impl FakeDestination {
    fn check(&self, step: Step) -> Result<(), StoreError> {
        failing(self.fails, step)
    }
}

fn failing(fails: Option<(Step, Errno)>, step: Step) -> Result<(), StoreError> {
    match fails {
        Some((failing, errno)) if failing == step => {
            Err(StoreError::Io { step: "write", what: "a blob".to_owned(), source: errno.into() })
        }
        _ => Ok(()),
    }
}

impl Destination for FakeDestination {
    fn adopt(
        &self,
        function: DigestFunction,
        file: &StagedFile,
        max_bytes: u64,
    ) -> Result<Adopted, AdoptError> {
        if let Some((Step::ReadFile, errno)) = self.fails {
            let (step, name) = ("read", file.name().to_string_lossy().into_owned());
            return Err(AdoptError::Io { step, name, source: errno.into() });
        }
        self.check(Step::AdoptFile)?;
        self.store.adopt(function, file, max_bytes)
    }

    fn put(&self, function: DigestFunction, content: &[u8]) -> Result<Digest, StoreError> {
        self.check(Step::Put)?;
        self.store.put(function, content)
    }

    fn put_expected(&self, digest: &Digest, content: &[u8]) -> Result<(), StoreError> {
        self.check(Step::PutDirectory)?;
        self.store.put_expected(digest, content)
    }

    fn writer(&self, function: DigestFunction) -> Box<dyn BlobSink> {
        Box::new(FakeSink { sink: self.store.writer(function), fails: self.fails })
    }

    fn cache(&self, instance: &str, action: &Digest, result: &[u8]) -> Result<(), StoreError> {
        self.check(Step::Cache)?;
        self.store.cache(instance, action, result)
    }
}

struct FakeSink {
    sink: Box<dyn BlobSink>,
    fails: Option<(Step, Errno)>,
}

impl BlobSink for FakeSink {
    fn write(&mut self, content: &[u8]) -> Result<(), StoreError> {
        failing(self.fails, Step::Write)?;
        self.sink.write(content)
    }

    fn written(&self) -> u64 {
        self.sink.written()
    }

    fn commit(self: Box<Self>) -> Result<Digest, StoreError> {
        failing(self.fails, Step::Commit)?;
        self.sink.commit()
    }
}

/// A disk that is at its reserve or not.
#[derive(Debug, Default)]
pub(crate) struct FakeDisk(pub(crate) AtomicBool);

impl Watchdog for FakeDisk {
    fn allows(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}
