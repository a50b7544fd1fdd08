//! A pool, a view of the host's tools, input roots, and actions in one line.

use std::ffi::CString;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use inputroot::Attachment;
use model::{Limits, RelPath};
use runtimes::{Rootfs, RootfsMount};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use sandbox::{
    Config, Exit, ExitStatus, HelperCommand, OutputSink, Pool, RunError, Sandbox, Spec,
    StopConditions, Streams,
};
use sys::mount::{FsContext, MountAttributes};

/// The bound on every wait. It only ends waits that would never end, so it is long enough for a machine
/// that is busy with other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The first user of the host that is a sandbox's own, in tests of those.
pub(crate) const FIRST_USER: u32 = 2_100_000_000;

/// The host's programs, and this crate's probe at `/probe`.
pub(crate) static TOOLS: LazyLock<Arc<Rootfs>> = LazyLock::new(|| {
    let mut view = Rootfs::bare();
    for name in ["usr", "bin", "lib", "lib64"] {
        let host = Path::new("/").join(name);
        match host.read_link() {
            Ok(target) => view.symlinks.push((path(name), target.to_str().unwrap().to_owned())),
            Err(_) if host.is_dir() => {
                view.mounts.push(RootfsMount { source: host, at: path(name) })
            }
            Err(_) => {}
        }
    }
    let probe = Path::new(env!("CARGO_BIN_EXE_sandbox-probe")).canonicalize().unwrap();
    let source = probe.parent().unwrap().to_owned();
    view.mounts.push(RootfsMount { source, at: path("probe") });
    Arc::new(view)
});

pub(crate) fn path(path: &str) -> RelPath {
    RelPath::parse(path).unwrap()
}

pub(crate) fn config() -> Config {
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
    let helper = HelperCommand::new(Path::new(env!("CARGO_BIN_EXE_sandbox-helper")), []);
    let mut config = Config::new(helper.unwrap());
    config.tmp_bytes = 64 << 20;
    config.shm_bytes = 16 << 20;
    config
}

/// The outcome that a process reports.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    /// The same, not read as text.
    pub(crate) stdout_bytes: Vec<u8>,
    pub(crate) stderr: String,
}

impl Outcome {
    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.exit.status, ExitStatus::Code(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_stdout(&self, expected: &str) -> &Self {
        assert_eq!(self.stdout.trim_end(), expected.trim_end(), "{self:#?}");
        self
    }
}

/// An action to be.
pub(crate) struct Action {
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) directory: RelPath,
    pub(crate) limits: Limits,
    pub(crate) write_changes: Vec<(RelPath, bool)>,
    pub(crate) input_root: OwnedFd,
    pub(crate) timeout: Duration,
}

impl Action {
    pub(crate) fn new<S: AsRef<str>>(arguments: &[S]) -> Self {
        Self {
            arguments: arguments.iter().map(|word| word.as_ref().to_owned()).collect(),
            environment: vec!["PATH=/usr/bin:/bin".to_owned()],
            directory: RelPath::root(),
            limits: Limits::default(),
            write_changes: Vec::new(),
            input_root: input_root(),
            timeout: PATIENCE,
        }
    }

    pub(crate) fn sh(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// The probe of this crate: `src/bin/sandbox-probe.rs`.
    pub(crate) fn probe(arguments: &[&str]) -> Self {
        Self::new(&[&["/probe/sandbox-probe"], arguments].concat())
    }

    pub(crate) fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        add_file(&self.input_root, name, mode, content);
        self
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        rustix::fs::symlinkat(target, &self.input_root, name).unwrap();
        self
    }

    pub(crate) fn in_directory(mut self, directory: &str) -> Self {
        self.directory = path(directory);
        self
    }

    pub(crate) fn run_in(self, sandbox: &mut Sandbox) -> Result<Outcome, RunError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let stop = StopConditions { timeout: Some(self.timeout), ..Default::default() };
        let exit = self.run_with(sandbox, &mut stdout, &mut stderr, &stop)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&stdout), text(&stderr));
        Ok(Outcome { exit, stdout: out, stdout_bytes: stdout, stderr: err })
    }

    pub(crate) fn run_with(
        self,
        sandbox: &mut Sandbox,
        stdout: &mut dyn OutputSink,
        stderr: &mut dyn OutputSink,
        stop: &StopConditions<'_>,
    ) -> Result<Exit, RunError> {
        let spec = Spec {
            arguments: &c_strings(&self.arguments),
            environment: &c_strings(&self.environment),
            working_directory: &self.directory,
            input_root: &Attachment::Mount(std::sync::Arc::new(self.input_root)),
            write_changes: &self.write_changes,
            limits: &self.limits,
            conversation: None,
        };
        sandbox.run(&spec, Streams { stdout, stderr }, stop)
    }

    /// In a sandbox of its own.
    #[track_caller]
    pub(crate) fn run(self) -> Outcome {
        self.try_run().unwrap()
    }

    pub(crate) fn try_run(self) -> Result<Outcome, RunError> {
        let pool = Pool::new(config());
        let mut sandbox = pool.acquire(&TOOLS)?;
        self.run_in(&mut sandbox)
    }
}

/// Runs one after the other in the same sandbox.
pub(crate) fn run_all(actions: Vec<Action>) -> Vec<Outcome> {
    let pool = Pool::new(config());
    let mut outcomes = Vec::new();
    for action in actions {
        let mut sandbox = pool.acquire(&TOOLS).unwrap();
        outcomes.push(action.run_in(&mut sandbox).unwrap());
        pool.release(sandbox);
    }
    outcomes
}

fn c_strings(strings: &[String]) -> Vec<CString> {
    strings.iter().map(|string| CString::new(string.as_str()).unwrap()).collect()
}

/// An empty directory that everybody can write to.
pub(crate) fn input_root() -> OwnedFd {
    let tmpfs = FsContext::open("tmpfs").unwrap();
    tmpfs.string("mode", "1777").unwrap();
    tmpfs.mount(MountAttributes::empty()).unwrap()
}

fn add_file(root: &OwnedFd, name: &str, mode: u32, content: &[u8]) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root.as_fd(), name, flags, Mode::empty()).unwrap();
    let mut rest = content;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest).unwrap()..];
    }
    rustix::fs::fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT)).unwrap();
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).unwrap();
}

/// Takes so many bytes and no more.
pub(crate) struct Bounded(pub(crate) usize);

impl OutputSink for Bounded {
    fn write(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        match self.0.checked_sub(bytes.len()) {
            Some(left) => {
                self.0 = left;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        }
    }
}

/// Processes of this machine whose command line has `marker` in it.
pub(crate) fn processes_with(marker: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own)
        .filter(|pid| {
            let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command_line).contains(marker)
        })
        .collect()
}

/// Ends the processes of this machine whose command line has `marker` in it.
pub(crate) fn end_processes_with(marker: &str) {
    for pid in processes_with(marker) {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        // An error means that the process has ended.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Waits, within reason, for something that another process does.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
