//! `cargo xtask profile`: where the daemon's time goes under a load, as a flame graph.
//!
//! The load is that of `bench`. perf(1) samples the daemon and all that it starts, in the kernel as
//! well: most of an action's cost is system calls.

mod flame_graph;
mod stacks;

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    bench,
    binaries::{self, Binaries},
    daemon::Daemon,
    process,
    setup::{self, Need},
    state_volume, workspace,
};

const PERF: Need =
    Need { program: "perf", package: "linux-perf", why: "samples what the daemon does" };

/// Samples per second and CPU: enough for a step of some microseconds to be seen over thousands of
/// actions, and not a multiple of anything that a kernel does by the clock.
const FREQUENCY: &str = "1999";

/// The bytes of a stack that are copied with each sample. Stacks are unwound by their tables, not
/// by frame pointers, so that the program is the one that is shipped.
const CALL_GRAPH: &str = "dwarf,16384";

/// The time that perf has to begin. It prints nothing that could be waited for.
const PERF_BEGINS: Duration = Duration::from_millis(500);

/// The time that perf has to end.
const PERF_ENDS: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// The file for the flame graph; default: `profile.svg` in the target folder.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Arguments of `actiond-bench`, such as `--only TEXT` or `--samples N`.
    #[arg(last = true)]
    load: Vec<std::ffi::OsString>,
}

#[derive(clap::Args)]
pub(crate) struct InsideArguments {
    daemon: PathBuf,
    /// The program that makes the load.
    program: PathBuf,
    /// The file for perf's record.
    record: PathBuf,
    /// Arguments of the load.
    #[arg(last = true)]
    load: Vec<std::ffi::OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    setup::ensure(&[PERF])?;
    let Binaries { daemon, action_tool } = Binaries::build()?;
    let program = binaries::build("bench", "actiond-bench")?;
    let record = workspace::target().join("profile.perf");

    let mut inside = state_volume::command(process::this_program()?)?;
    inside.arg("profile-inside").arg(daemon).arg(program).arg(&record);
    inside.arg("--").arg("--writer").arg(action_tool).args(&arguments.load);
    process::run(&mut inside)?;

    let stacks = stacks::fold(&script(&record)?);
    ensure!(!stacks.is_empty(), "perf took no samples of the daemon");
    let output =
        arguments.output.clone().unwrap_or_else(|| workspace::target().join("profile.svg"));
    fs::write(&output, flame_graph::draw(&stacks))
        .with_context(|| format!("cannot write {}", output.display()))?;
    fs::remove_file(&record)?;
    for (name, share) in stacks::shares_by_process(&stacks) {
        println!("profile: {share:5.1} % {name}");
    }
    println!("profile: the flame graph is {}", output.display());
    Ok(())
}

/// Samples the daemon under the load, as root, on a state volume.
pub(crate) fn run_inside(inside: &InsideArguments) -> Result<()> {
    let state =
        std::env::var_os(state_volume::STATE_VARIABLE).context("profile runs on a state volume")?;
    let daemon = Daemon::start(&inside.daemon, Path::new(&state), &[], None)?;
    let recorder = Recorder::start(&inside.record, daemon.id()?)?;
    bench::load(&inside.program, &daemon, &inside.load)?;
    recorder.stop()?;
    daemon.stop()?;
    // For who called this, who need not be root.
    let caller = fs::metadata(workspace::target())?;
    use std::os::unix::fs::MetadataExt;
    chown(&inside.record, Some(caller.uid()), Some(caller.gid()))?;
    Ok(())
}

/// perf while it records.
struct Recorder(Child);

impl Recorder {
    /// Records the process and all that it starts from now on.
    fn start(record: &Path, process: u32) -> Result<Self> {
        let child = Command::new("perf")
            .args(["record", "--quiet", "--event", "cpu-clock", "--freq", FREQUENCY])
            .args(["--call-graph", CALL_GRAPH, "--inherit", "--pid", &process.to_string()])
            .arg("--output")
            .arg(record)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start perf")?;
        let mut recorder = Self(child);
        thread::sleep(PERF_BEGINS);
        if let Some(status) = recorder.0.try_wait()? {
            bail!("perf ended before the load began: {status}");
        }
        Ok(recorder)
    }

    /// Has perf write what it has.
    fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?).context("perf has an id")?;
        kill_process(pid, Signal::INT)?;
        let deadline = Instant::now() + PERF_ENDS;
        while self.0.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "perf does not end");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_reaped = self.0.wait();
    }
}

/// The samples as text. Functions that were inlined are left to their callers: finding them takes
/// perf minutes.
fn script(record: &Path) -> Result<String> {
    let mut perf = Command::new("perf");
    perf.args(["script", "--no-inline", "--fields", "comm,ip,sym", "--input"]).arg(record);
    process::output(&mut perf)
}
