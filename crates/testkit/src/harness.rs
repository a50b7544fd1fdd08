//! Cases that can say why they can't run here.
//!
//! The test harness of the toolchain knows only passed and failed at run time. A
//! test that needs what a machine lacks (root, a kernel feature) would have to
//! pass without having tested anything; here it is counted as ignored, with its
//! reason.

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use launch::{ORDINARY_USER, StartAs};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::daemon::DaemonBuilder;
use crate::outcome::{Outcome, Skipped};
use crate::vm::Vm;

/// The longest time that a case may take: four waits for states that never come, in an emulated guest too.
const LONGEST: Duration = Duration::from_secs(4 * crate::wait::PATIENCE.as_secs());

/// The input of a case.
#[derive(Debug, Clone)]
pub struct Kit {
    binary: PathBuf,
    vm: Option<Vm>,
    start_as: Option<StartAs>,
}

impl Kit {
    /// A kit for the daemon at `binary`, on this machine.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self { binary: binary.into(), vm: None, start_as: None }
    }

    /// A kit for the daemon at `binary`, in a VM or started by an ordinary user if the environment asks for
    /// that.
    fn as_wanted(binary: &str) -> anyhow::Result<Self> {
        Ok(Self { binary: binary.into(), vm: Vm::wanted()?, start_as: StartAs::wanted()? })
    }

    /// The daemon's binary.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// Fails with a reason to skip the case where daemons are in VMs.
    ///
    /// # Errors
    /// When they are.
    pub fn only_on_the_host(&self, reason: &str) -> anyhow::Result<()> {
        if self.vm.is_some() { Err(Skipped(reason.to_owned()).into()) } else { Ok(()) }
    }

    /// Fails with a reason to skip the case where an ordinary user starts the daemons.
    ///
    /// # Errors
    /// When one does.
    pub fn only_as_root(&self, reason: &str) -> anyhow::Result<()> {
        if self.start_as.is_some() { Err(Skipped(reason.to_owned()).into()) } else { Ok(()) }
    }

    /// The way in which an ordinary user starts the daemons, if one does.
    pub fn start_as(&self) -> Option<StartAs> {
        self.start_as
    }

    /// The program and the first arguments that start the daemon's binary as this kit does it.
    pub fn words(&self) -> Vec<OsString> {
        let mut words = self.start_as.map(|way| way.words(ORDINARY_USER)).unwrap_or_default();
        words.push(self.binary.clone().into());
        words
    }

    /// Whether the daemons of this kit stand in VMs.
    pub fn is_in_vm(&self) -> bool {
        self.vm.is_some()
    }

    /// A daemon with a new root directory, to be started.
    pub fn daemon(&self) -> DaemonBuilder {
        let builder = DaemonBuilder::new(&self.binary).started_as(self.start_as);
        match &self.vm {
            None => builder,
            Some(vm) => builder.standing_in(vm),
        }
    }
}

type BoxedCase = Box<dyn FnOnce(Kit) -> Pin<Box<dyn Future<Output = Outcome>>> + Send>;

/// A named case.
pub struct Case {
    name: String,
    body: BoxedCase,
}

impl Case {
    /// A case called `name`.
    pub fn new<F, Fut>(name: impl Into<String>, body: F) -> Self
    where
        F: FnOnce(Kit) -> Fut + Send + 'static,
        Fut: Future<Output = Outcome> + 'static,
    {
        Self { name: name.into(), body: Box::new(move |kit| Box::pin(body(kit))) }
    }
}

/// Runs `cases` as `cargo test` asks; the body of a test binary's `main`.
pub fn run(binary: &str, cases: Vec<Case>) -> ExitCode {
    let arguments = Arguments::from_args();
    let kit = match Kit::as_wanted(binary) {
        Ok(kit) => kit,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = cases.into_iter().map(|case| {
        let (kit, name) = (kit.clone(), case.name.clone());
        Trial::ignorable_test(case.name, move || bounded(name, || run_one(case.body, kit)))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Ends the program, and so the daemons, when a case takes longer than any should: one that waits for ever would
/// hold up the whole run.
fn bounded<T>(name: String, run: impl FnOnce() -> T) -> T {
    let (ended, end) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if end.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
            eprintln!("test {name} has not ended in {} minutes", LONGEST.as_secs() / 60);
            std::process::exit(101);
        }
    });
    let outcome = run();
    drop(ended);
    outcome
}

fn run_one(body: BoxedCase, kit: Kit) -> Result<Completion, Failed> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Completion::ignored_with("the daemon needs root to make sandboxes"));
    }
    // Connections have a thread of their own: they answer the server's pings while the case does something long,
    // such as filling a disk, and is no silent client.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build()?;
    match runtime.block_on(body(kit)) {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast::<Skipped>() {
            Ok(Skipped(reason)) => Ok(Completion::ignored_with(reason)),
            Err(error) => Err(format!("{error:?}").into()),
        },
    }
}

/// Makes `main` of the functions named: `cases! { BINARY => one, two }`.
#[macro_export]
macro_rules! cases {
    ($binary:expr => $($case:ident),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::harness::run(
                $binary,
                vec![$($crate::harness::Case::new(stringify!($case), $case)),+],
            )
        }
    };
}
