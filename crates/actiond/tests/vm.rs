//! `serve-vm`: a real VM behind the real host process.
//!
//! `cargo xtask e2e vm` builds what is booted and sets the variables below. Under emulation a boot
//! takes seconds, so each case asks one VM many things.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::proto::execution_stage::Value as Stage;
use testkit::run::metadata;
use testkit::{Action, Client, Daemon, DaemonBuilder, Kit, Outcome, eventually, skip};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    actions_run_and_blobs_come_back,
    limits_hold,
    the_store_outlives_its_guests,
    a_guest_that_dies_is_replaced,
    a_vmm_has_no_rights_and_dies_with_its_host,
    two_vms_on_one_image_are_refused,
    a_disk_with_something_else_on_it_is_left_alone,
}

const KERNEL: &str = "ACTIOND_TEST_VM_KERNEL";
const INITRAMFS: &str = "ACTIOND_TEST_VM_INITRAMFS";

/// A shell with all its tools in one static program: in a VM without runtimes an action has nothing
/// but its inputs.
const BUSYBOX: &str = "/bin/busybox";

/// What a case boots.
struct Artifacts {
    kernel: PathBuf,
    initramfs: PathBuf,
    busybox: Vec<u8>,
}

impl Artifacts {
    /// `Err`: why there are none.
    fn find() -> Result<Self, String> {
        let variable = |name| {
            std::env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("{name} is not set"))
        };
        let busybox = std::fs::read(BUSYBOX).map_err(|error| format!("{BUSYBOX}: {error}"))?;
        Ok(Self { kernel: variable(KERNEL)?, initramfs: variable(INITRAMFS)?, busybox })
    }

    fn vm(&self, kit: &Kit) -> DaemonBuilder {
        let vm = kit.daemon().in_vm(&self.kernel, &self.initramfs);
        vm.flag("--accel=tcg").flag("--cas-image-size-mib=2048").flag("--memory-mib=768")
    }

    /// An action that runs `script`; the tools are applets of `./busybox`, `$B`.
    fn action(&self, client: &Client, script: &str) -> Action {
        let script = format!("B=./busybox; {script}");
        let action = client.bare_action(["./busybox".to_owned(), "sh".into(), "-c".into(), script]);
        action.executable("busybox", self.busybox.clone())
    }
}

/// What `case` returns; a failure with the VM's log.
async fn told(daemon: &Daemon, case: impl Future<Output = Outcome>) -> Outcome {
    case.await.with_context(|| format!("the log:\n{}", daemon.log()))
}

/// The artifacts, or the end of the case with the reason why there are none.
macro_rules! artifacts {
    () => {
        match Artifacts::find() {
            Ok(artifacts) => artifacts,
            Err(reason) => return skip(reason),
        }
    };
}

async fn actions_run_and_blobs_come_back(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let stats = tempfile::tempdir()?;
    let stats = stats.path().join("stats");
    let vm = artifacts.vm(&kit).flag("--actiondfs-stats-path").flag(&stats);
    let mut daemon = vm.start().await?;
    told(&daemon, run_and_carry(&artifacts, &daemon, &stats)).await?;
    daemon.terminate()?;
    ensure!(daemon.wait()?.success(), "{}", daemon.log());
    ensure!(daemon.log().contains("guest stopped in "), "{}", daemon.log());
    ensure!(daemon.log().contains("vm bridge timing"), "{}", daemon.log());
    Ok(())
}

async fn run_and_carry(artifacts: &Artifacts, daemon: &Daemon, stats: &Path) -> Outcome {
    let client = daemon.client();
    let action = artifacts.action(&client, "$B cat in > out; $B uname -r; echo said >&2");
    let action = action.input("in", "hi").output("out");
    let run = action.run().await?;
    run.succeeded().await?;
    ensure!(run.file("out").await? == "hi");
    ensure!(run.stderr().await? == "said\n");
    let host = rustix::system::uname();
    ensure!(run.stdout().await?.trim() != host.release().to_string_lossy(), "not in the VM");
    ensure!(action.run().await?.from_cache());

    // More than all windows and buffers on the way.
    let large: Vec<u8> = (0..24_u32 << 20).map(|at| (at ^ (at >> 11)) as u8).collect();
    let digest = client.digest(&large);
    let written = client.write(&client.upload_name(&digest), &large, 1 << 20).await?;
    ensure!(written == i64::try_from(large.len())?);
    ensure!(client.read(&client.download_name(&digest), 0, 0).await? == large);
    eventually("the counters are written", || {
        Ok(std::fs::read_to_string(stats).is_ok_and(|stats| stats.contains("cas_blobs ")))
    })
    .await?;
    let again = daemon.client();
    ensure!(again.missing(&[digest]).await?.is_empty());
    Ok(())
}

async fn limits_hold(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let daemon = artifacts.vm(&kit).start().await?;
    told(&daemon, exceed_limits(&artifacts, &daemon.client())).await
}

async fn exceed_limits(artifacts: &Artifacts, client: &Client) -> Outcome {
    let hog = "$B dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null && echo fits";
    let run = artifacts.action(client, hog).run().await?;
    ensure!(run.stdout().await? == "fits\n", "{run:?}");
    let run = artifacts.action(client, hog).property("memory", "64m").run().await?;
    ensure!(run.exit_code()? != 0 && run.stdout().await?.is_empty(), "{run:?}");
    let message = &run.response.message;
    ensure!(message.contains("more memory than its limit"), "{message}");

    let many = "for i in 1 2 3 4 5 6 7 8 9; do $B sleep 1 & done; wait; echo all";
    let run = artifacts.action(client, many).run().await?;
    ensure!(run.stdout().await? == "all\n", "{run:?}");
    let run = artifacts.action(client, many).property("pids", "6").run().await?;
    ensure!(run.exit_code()? != 0, "{run:?}");

    // Two loops for two seconds, by the guest's clock.
    let burn = "burn() { $B timeout 2 $B sh -c 'while :; do :; done'; }; burn & burn & wait; times";
    let unbounded = burned(&artifacts.action(client, burn)).await?;
    let bounded = burned(&artifacts.action(client, burn).property("cpu", "1")).await?;
    ensure!(
        bounded < 0.75 * unbounded,
        "{bounded} s of CPU time within a limit, {unbounded} s without"
    );
    Ok(())
}

/// The CPU time of an action's children, seconds, as the shell's `times` tells it on its second line:
/// `0m1.98s 0m0.02s`.
async fn burned(action: &Action) -> anyhow::Result<f64> {
    let stdout = action.run().await?.stdout().await?;
    let line = stdout.lines().nth(1).with_context(|| format!("no second line in `{stdout}`"))?;
    let seconds = |time: &str| {
        let (minutes, seconds) = time.strip_suffix('s')?.split_once('m')?;
        Some(60.0 * minutes.parse::<f64>().ok()? + seconds.parse::<f64>().ok()?)
    };
    let times: Option<Vec<f64>> = line.split_ascii_whitespace().map(seconds).collect();
    Ok(times.with_context(|| format!("no times in `{line}`"))?.iter().sum())
}

async fn the_store_outlives_its_guests(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let mut daemon = artifacts.vm(&kit).start().await?;
    let client = daemon.client();
    let digest = client.put("kept").await?;
    let action = artifacts.action(&client, "echo once > out").output("out");
    action.run().await?.succeeded().await?;
    daemon.terminate()?;
    daemon.wait()?;
    // What was acknowledged is there after a clean stop, and also after a second guest was killed.
    let mut daemon = daemon.successor().start().await?;
    let client = daemon.client();
    ensure!(client.get(&digest).await? == b"kept");
    let action = artifacts.action(&client, "echo once > out").output("out");
    ensure!(action.run().await?.from_cache());
    daemon.kill()?;
    let daemon = daemon.successor().start().await?;
    ensure!(daemon.client().get(&digest).await? == b"kept");
    ensure!(!daemon.log().contains("making a file system"), "{}", daemon.log());
    Ok(())
}

async fn a_guest_that_dies_is_replaced(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let daemon = artifacts.vm(&kit).start().await?;
    let client = daemon.client();
    let mut stream = artifacts.action(&client, "$B sleep 1000").start().await?;
    loop {
        let operation = stream.message().await?.context("the stream ended")?;
        if metadata(&operation)?.stage == Stage::Executing as i32 {
            break;
        }
    }
    kill_process(vmm_of(&daemon)?, Signal::KILL)?;
    let lost = loop {
        match stream.message().await {
            Ok(message) => ensure!(message.is_some(), "the stream ended in order"),
            Err(status) => break status,
        }
    };
    // tonic says UNKNOWN where others say UNAVAILABLE of a connection that was lost.
    ensure!(matches!(lost.code(), Code::Unavailable | Code::Unknown), "{lost:?}");
    // A new connection waits for the new guest.
    let run = artifacts.action(&daemon.client(), "echo again").run().await?;
    ensure!(run.stdout().await? == "again\n");
    ensure!(daemon.log().matches("guest ready in ").count() == 2, "{}", daemon.log());
    Ok(())
}

async fn a_vmm_has_no_rights_and_dies_with_its_host(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let mut daemon = artifacts.vm(&kit).start().await?;
    let process = format!("/proc/{}", vmm_of(&daemon)?.as_raw_nonzero());
    let status = std::fs::read_to_string(format!("{process}/status"))?;
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        ensure!(status.contains(line), "no `{line}` in\n{status}");
    }
    ensure!(!status.contains("Uid:\t0"), "the VMM is root:\n{status}");
    for namespace in ["net", "ipc", "uts"] {
        let of = |process: &str| std::fs::read_link(format!("{process}/ns/{namespace}"));
        ensure!(of(&process)? != of("/proc/self")?, "the VMM is in our {namespace} namespace");
    }
    daemon.kill()?;
    eventually("the VMM is gone", || Ok(!Path::new(&process).exists())).await
}

async fn two_vms_on_one_image_are_refused(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let daemon = artifacts.vm(&kit).start().await?;
    let image = daemon.root().join("cas.ext4");
    let (mut second, _root) = artifacts.vm(&kit).flag("--cas-image").flag(&image).command()?;
    let said = failure(&mut second)?;
    ensure!(said.contains(&format!("{} is in use by another VM", image.display())), "{said}");
    Ok(())
}

async fn a_disk_with_something_else_on_it_is_left_alone(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let disk = tempfile::NamedTempFile::new()?;
    std::fs::write(disk.path(), [7; 4096])?;
    let (mut vm, _root) = artifacts.vm(&kit).flag("--cas-image").flag(disk.path()).command()?;
    let said = failure(&mut vm)?;
    ensure!(said.contains("ended while booting"), "{said}");
    ensure!(std::fs::read(disk.path())?.iter().filter(|byte| **byte == 7).count() == 4096);
    Ok(())
}

/// What `command` says when it fails.
fn failure(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(!output.status.success(), "{command:?} did not fail");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The daemon's VMM: its child that is named so.
fn vmm_of(daemon: &Daemon) -> anyhow::Result<Pid> {
    for entry in std::fs::read_dir("/proc")? {
        // Processes come and go.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        // proc_pid_stat(5): pid (comm) state ppid …
        let words: Vec<_> = stat.split_ascii_whitespace().take(4).collect();
        if let [pid, name, _, parent] = words[..]
            && name.starts_with("(qemu")
            && parent == daemon.pid().to_string()
        {
            return Pid::from_raw(pid.parse()?).context("a process has a number");
        }
    }
    anyhow::bail!("the daemon has no VMM")
}
