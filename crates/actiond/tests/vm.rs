//! `serve-vm`: a real VM behind the real host process.
//!
//! `cargo xtask e2e vm` builds what is booted and sets the variables below. Under emulation a boot
//! takes seconds, so each case asks one VM many things.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use testkit::proto::execution_stage::Value as Stage;
use testkit::run::metadata;
use testkit::vm::{FLAGS, INITRAMFS, KERNEL};
use testkit::{Action, Client, Daemon, DaemonBuilder, Kit, Outcome, eventually, skip};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    actions_run_and_blobs_come_back,
    limits_hold,
    many_small_processes_run_out_of_memory,
    the_store_outlives_its_guests,
    a_guest_that_dies_is_replaced,
    connections_are_carried_as_they_are,
    a_flag_that_the_worker_can_not_follow_is_told,
    a_vmm_has_no_rights_and_dies_with_its_host,
    two_vms_on_one_image_are_refused,
    a_disk_with_something_else_on_it_is_left_alone,
    a_host_without_space_stops_no_guest,
}

/// A shell with all its tools in one static program: in a VM without runtimes an action has nothing
/// but its inputs.
const BUSYBOX: &str = "/bin/busybox";

/// The machine that a case boots.
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
        FLAGS.into_iter().fold(vm, DaemonBuilder::flag)
    }

    /// An action that runs `script`; the tools are applets of `./busybox`, `$B`.
    fn action(&self, client: &Client, script: &str) -> Action {
        let script = format!("B=./busybox; {script}");
        let action = client.bare_action(["./busybox".to_owned(), "sh".into(), "-c".into(), script]);
        action.executable("busybox", self.busybox.clone())
    }
}

/// Returns the result of `case`; adds the VM's log to a failure.
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

    // They end with the shell, and not before it, however slow the guest is.
    let many = "for i in 1 2 3 4 5 6 7 8 9; do $B sleep 1000 & done; echo all";
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

/// Each of them is smaller than what looks after the action, which is not to be killed in their place;
/// and if they see to it that it is, the answer is the same.
async fn many_small_processes_run_out_of_memory(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let daemon = artifacts.vm(&kit).start().await?;
    told(&daemon, crowd_memory(&artifacts, &daemon.client())).await?;
    let log = daemon.log();
    ensure!(!log.contains("could not be removed"), "something is left of an action:\n{log}");
    Ok(())
}

async fn crowd_memory(artifacts: &Artifacts, client: &Client) -> Outcome {
    let crowd = "i=0; while [ $i -lt 500 ]; do $B sleep 1000 & i=$((i+1)); done; wait";
    let selfish = format!("echo 0 > /proc/self/oom_score_adj; $B sleep 0.1; {crowd}");
    for script in [crowd, &selfish] {
        let run = artifacts.action(client, script).property("memory", "16m").run().await?;
        let message = &run.response.message;
        ensure!(message.contains("more memory than its limit"), "{script}: {run:?}");
    }
    // Without a limit it is the machine's memory, of which others have their part.
    let half = "$B dd if=/dev/zero of=/dev/null bs=500M count=1";
    let run = artifacts.action(client, &format!("{half} & {half} & wait")).run().await?;
    ensure!(run.response.message.contains("more memory than"), "{run:?}");
    let run = artifacts.action(client, "echo still here").run().await?;
    ensure!(run.stdout().await? == "still here\n", "{run:?}");
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
    // Acknowledged blobs are there after a clean stop, and also after a second guest was killed.
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
    // Everything that the guest has answered is on the disk.
    let vm = artifacts.vm(&kit).flag("--worker-flag").flag("--durability=group");
    let daemon = vm.start().await?;
    let client = daemon.client();
    let digest = client.put("kept").await?;
    let kept = |client: &Client| artifacts.action(client, "echo once > out").output("out");
    kept(&client).run().await?.succeeded().await?;
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
    // A new connection waits for the new guest, which has the same disk.
    let client = daemon.client();
    let run = artifacts.action(&client, "echo again").run().await?;
    ensure!(run.stdout().await? == "again\n");
    ensure!(daemon.log().matches("guest ready in ").count() == 2, "{}", daemon.log());
    ensure!(daemon.log().matches("making a file system").count() == 1, "{}", daemon.log());
    ensure!(client.get(&digest).await? == b"kept");
    ensure!(kept(&client).run().await?.from_cache(), "a stored result is lost");
    Ok(())
}

/// Clients at a time: more than descriptors that a process has by default, less than the bridge's
/// bound.
const CONNECTIONS: usize = 1500;

/// The first bytes of a client: HTTP/2's preface, and settings that change nothing (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn connections_are_carried_as_they_are(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let daemon = artifacts.vm(&kit).start().await?;
    let case = async {
        let mut half_closed = greeted(&daemon).await?;
        half_closed.shutdown().await?;
        let mut rest = Vec::new();
        half_closed.read_to_end(&mut rest).await.context("it was not closed in order")?;
        many_connections(&artifacts, &daemon).await
    };
    told(&daemon, case).await
}

/// A connection whose server, in the guest, has begun to speak.
async fn greeted(daemon: &Daemon) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(daemon.address()).await?;
    stream.write_all(PREFACE).await?;
    // The header of a frame: three bytes of length, then the type, 4 for settings.
    let mut header = [0; 9];
    stream.read_exact(&mut header).await?;
    ensure!(header[3] == 4, "the server does not begin with its settings: {header:?}");
    Ok(stream)
}

async fn many_connections(artifacts: &Artifacts, daemon: &Daemon) -> Outcome {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        open.push(greeted(daemon).await?);
    }
    let run = artifacts.action(&daemon.client(), "echo beside").run().await?;
    ensure!(run.stdout().await? == "beside\n");
    // All of them are still there.
    for stream in &mut open {
        stream.write_all(b"\0\0\x08\x06\0\0\0\0\0pingpong").await?;
    }
    for stream in &mut open {
        let ping_came_back = async {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"pingpong") {
                ensure!(stream.read_buf(&mut bytes).await? > 0, "a connection was closed");
            }
            Ok(())
        };
        ping_came_back.await?;
    }
    Ok(())
}

async fn a_flag_that_the_worker_can_not_follow_is_told(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    // Before anything boots, where it is wrong in every guest.
    for (flag, expected) in [
        ("--worker-flag=--nonsense", "unexpected argument '--nonsense'"),
        ("--worker-flag=--insecure", "--insecure has no effect in a VM"),
    ] {
        let (mut vm, _root) = artifacts.vm(&kit).flag(flag).command()?;
        let said = failure(&mut vm)?;
        ensure!(said.contains(expected) && !said.contains("booting"), "{said}");
    }
    // Only the guest can know this: its kernel refuses to mount a device that is open for writing.
    let flag = "--worker-flag=--input-root-strategy=erofs-loop";
    let (mut vm, _root) = artifacts.vm(&kit).flag(flag).command()?;
    let said = failure(&mut vm)?;
    ensure!(said.contains("choosing an input root strategy"), "{said}");
    ensure!(said.contains("ended while booting"), "{said}");
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

/// Runs `command`, which must fail, and returns its error output.
/// The image grows as the guest writes, and QEMU halts a guest whose write finds no space on the host unless it is told
/// not to.
async fn a_host_without_space_stops_no_guest(kit: Kit) -> Outcome {
    let artifacts = artifacts!();
    let place = kit.daemon().directory()?;
    let script = format!(
        "mount -t tmpfs -o size=96m,mode=700 tmpfs {} && exec \"$@\"",
        place.path().display()
    );
    let through = ["unshare", "--mount", "--propagation", "private", "bash", "-c", &script, "disk"];
    let image = place.path().join("cas.ext4");
    let daemon = artifacts.vm(&kit).through(through).flag("--cas-image").flag(&image);
    let daemon = daemon.start().await?;
    told(&daemon, fill_the_host(&daemon)).await
}

async fn fill_the_host(daemon: &Daemon) -> Outcome {
    let client = daemon.client();
    let blob = |number: u8| (0..3 << 20).map(|at: u32| (at ^ at >> 8) as u8 ^ number).collect();
    let mut refused = None;
    for number in 0..60 {
        let stored: Vec<u8> = blob(number);
        if let Err(error) = client.put(stored).await {
            refused = Some(error);
            break;
        }
    }
    let refused = format!("{:#}", refused.context("180 MiB are on a disk of 96")?);
    // An input or output error, or a read-only file system: by the store, and not of a connection that broke.
    ensure!(refused.contains("the store: can't"), "{refused}");
    ensure!(
        client
            .capabilities()
            .get_capabilities(testkit::proto::GetCapabilitiesRequest::default())
            .await
            .is_ok()
    );
    Ok(())
}

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
