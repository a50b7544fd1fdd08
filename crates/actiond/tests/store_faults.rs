//! The daemon under load on a disk that loses power and fails: what it acknowledged is there or is missing,
//! as `docs/storage-format.md` says, and is never false.
//!
//! The environment says what a run is made of; `cargo xtask e2e faults` sets it:
//!
//! - `ACTIOND_FAULT_ROUNDS`: the number of faults, of all kinds in turn.
//! - `ACTIOND_FAULT_KILLS`, `ACTIOND_FAULT_CUTS`: in place of it, the number of killed servers and of power cuts.
//! - `ACTIOND_FAULT_FILE_SYSTEM`: `ext4`, `xfs`, `btrfs` or `ext4-without-journal`.
//! - `ACTIOND_FAULT_SEED`: the first seed. Each disk has its own, which is printed.

mod faulty_disk;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail, ensure};
use faulty_disk::{Disk, Numbers};
use model::proto::{ActionResult, OutputFile, UpdateActionResultRequest};
use testkit::{Client, Daemon, Digest, Kit, Outcome, eventually_async};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    what_was_acknowledged_survives_faults_or_is_missing,
    with_group_durability_what_was_acknowledged_survives_power_cuts,
}

/// The faults of a short run: each takes about ten seconds on a busy machine.
const ROUNDS: u64 = 2;
/// After this many faults the disk is replaced: all that was stored fits on it, so that nothing is evicted.
const FAULTS_PER_DISK: u64 = 8;
/// The callers that upload at the same time.
const CALLERS: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// SIGKILL.
    Kill,
    /// The power is cut, then the server is killed.
    PowerCut,
    /// Writes fail for a while.
    Writes,
    /// Reads fail for a while.
    Reads,
}

/// The file system on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileSystem {
    Ext4,
    /// It is repaired after each power cut.
    Ext4WithoutJournal,
    Xfs,
    Btrfs,
}

impl FileSystem {
    fn of_environment() -> anyhow::Result<Self> {
        match std::env::var("ACTIOND_FAULT_FILE_SYSTEM").as_deref() {
            Err(std::env::VarError::NotPresent) | Ok("ext4") => Ok(Self::Ext4),
            Ok("ext4-without-journal") => Ok(Self::Ext4WithoutJournal),
            Ok("xfs") => Ok(Self::Xfs),
            Ok("btrfs") => Ok(Self::Btrfs),
            other => bail!("ACTIOND_FAULT_FILE_SYSTEM: {other:?}"),
        }
    }

    /// The program that makes it, with its arguments.
    fn maker(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4 -q -F -E nodiscard",
            Self::Ext4WithoutJournal => "mkfs.ext4 -q -F -E nodiscard -O ^has_journal",
            Self::Xfs => "mkfs.xfs -q -f -K",
            Self::Btrfs => "mkfs.btrfs -q -f -K",
        }
    }

    /// The name of the kernel's driver.
    fn driver(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4WithoutJournal => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

const FAULTS: [Fault; 4] = [Fault::PowerCut, Fault::Kill, Fault::Writes, Fault::Reads];

/// Something that the server acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It must be there.
    Kept,
    /// It may be missing.
    MayBeLost,
}

/// The content of a blob, by its number.
fn content(number: u64) -> Vec<u8> {
    let size = [10, 900, 4_096, 20_000, 150_000, 600_000][number as usize % 6];
    let mut numbers = Numbers::new(number);
    let mut content: Vec<_> =
        (0..size / 8 + 1).flat_map(|_| numbers.below(u64::MAX).to_le_bytes()).collect();
    content.truncate(size);
    content
}

/// A disk in a mount namespace of its own, with a file system on it.
struct Place {
    disk: Disk,
    directory: tempfile::TempDir,
    namespace: String,
    server: Option<JoinHandle<()>>,
    file_system: FileSystem,
}

impl Place {
    fn new(kit: &Kit, seed: u64, file_system: FileSystem) -> anyhow::Result<Self> {
        kit.only_on_the_host("the disk of a guest is a file of the host")?;
        if !std::path::Path::new("/dev/fuse").exists() {
            testkit::skip("there is no /dev/fuse")?;
        }
        let known = std::fs::read_to_string("/proc/filesystems")?;
        if !known.split_whitespace().any(|name| name == file_system.driver()) {
            testkit::skip(format!("this kernel has no {}", file_system.driver()))?;
        }
        let (maker, _) = file_system.maker().split_once(' ').context("a program and arguments")?;
        for program in ["nsenter", maker] {
            if Command::new(program).arg("--help").output().is_err() {
                testkit::skip(format!("{program} is not installed"))?;
            }
        }
        let directory = kit.daemon().directory()?;
        for name in ["fuse", "root"] {
            std::fs::create_dir(directory.path().join(name))?;
        }
        let disk = Disk::new(seed);
        let (server, mount_point) = (disk.clone(), directory.path().join("fuse"));
        let (tell, told) = std::sync::mpsc::channel();
        // The namespace is the thread's. Its mounts are gone when thread and daemon are.
        let server = std::thread::spawn(move || {
            let session = sys::mount::enter_private_namespace()
                .map_err(anyhow::Error::new)
                .and_then(|()| Ok(server.serve(&mount_point)?));
            let thread = rustix::thread::gettid();
            match session {
                Ok(session) => {
                    let _ = tell.send(Ok(thread));
                    // Ends when the disk is unmounted.
                    let _ = session.run();
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        });
        let thread = told.recv().context("the thread of the disk")?.context("mounting the disk")?;
        let namespace =
            format!("/proc/{}/task/{}/ns/mnt", std::process::id(), thread.as_raw_nonzero());
        let place = Self { disk, directory, namespace, server: Some(server), file_system };
        place.run(&format!("{} \"$FUSE/$DISK\"", file_system.maker()))?;
        place.mount()?;
        Ok(place)
    }

    /// Runs a shell script in the namespace.
    fn run(&self, script: &str) -> anyhow::Result<()> {
        let output = Command::new("nsenter")
            .args([&format!("--mount={}", self.namespace), "--", "sh", "-c", script])
            .env("FUSE", self.directory.path().join("fuse"))
            .env("DISK", self.disk.name())
            .env("ROOT", self.directory.path().join("root"))
            .output()?;
        ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn mount(&self) -> anyhow::Result<()> {
        self.run("mount -o loop \"$FUSE/$DISK\" \"$ROOT\"")
    }

    /// Repairs a file system that has no journal to do it by. Exit code 1 says that there was something to
    /// repair.
    fn repair(&self) -> anyhow::Result<()> {
        match self.file_system {
            FileSystem::Ext4WithoutJournal => {
                self.run("e2fsck -fy \"$FUSE/$DISK\" || test $? -eq 1")
            }
            FileSystem::Ext4 | FileSystem::Xfs | FileSystem::Btrfs => Ok(()),
        }
    }

    /// Unmounts the file system as soon as nobody uses it.
    async fn unmount(&self) -> anyhow::Result<()> {
        eventually_async("the file system is unmounted", async || {
            Ok(self.run("umount \"$ROOT\"").is_ok())
        })
        .await
    }

    async fn start(&self, kit: &Kit, durability: &str) -> anyhow::Result<Daemon> {
        let root: PathBuf = self.directory.path().join("root/store");
        let through: [OsString; 3] =
            ["nsenter".into(), format!("--mount={}", self.namespace).into(), "--".into()];
        let daemon = kit.daemon().through(through).root(root).flag("--cas-size=400m");
        daemon.flag(format!("--durability={durability}")).start().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Where that fails, the namespace goes with this process.
        let unmounted = self.run("umount \"$ROOT\"; umount \"$FUSE\"");
        if let (Ok(()), Some(server)) = (unmounted, self.server.take()) {
            let _ = server.join();
        }
    }
}

/// The blobs that a server acknowledged, by their numbers.
type Told = BTreeMap<u64, Standing>;

/// The action whose cached result names a blob. Only every third blob has one.
fn action(client: &Client, number: u64) -> Option<Digest> {
    number.is_multiple_of(3).then(|| client.digest(format!("action {number}")))
}

/// Stores a blob, and a cached result that names it.
async fn store(client: &Client, number: u64) -> anyhow::Result<()> {
    let content = content(number);
    let digest = client.digest(&content);
    if number.is_multiple_of(2) {
        client.write(&client.upload_name(&digest), &content, 64 << 10).await?;
    } else {
        client.put(content).await?;
    }
    if let Some(action) = action(client, number) {
        let file = OutputFile {
            path: "out".to_owned(),
            digest: Some(digest.to_proto()),
            ..OutputFile::default()
        };
        let request = UpdateActionResultRequest {
            action_digest: Some(action.to_proto()),
            action_result: Some(ActionResult {
                output_files: vec![file],
                ..ActionResult::default()
            }),
            ..UpdateActionResultRequest::default()
        };
        client.action_cache().update_action_result(request).await?;
    }
    Ok(())
}

/// Callers that store blobs until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<u64>>>,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(daemon: &Daemon, next: &Arc<AtomicU64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let callers = (0..CALLERS).map(|_| {
            let (client, next) = (daemon.client(), Arc::clone(next));
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if store(&client, number).await.is_ok() {
                        acknowledged.lock().expect("no panic").push(number);
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        Self { callers: callers.collect(), stop, acknowledged }
    }

    fn count(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }

    /// Waits for that many acknowledgements more.
    async fn wait_for(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.count() + more as usize;
        eventually_async("blobs are acknowledged", async || Ok(self.count() >= goal)).await
    }

    async fn stop(self) -> anyhow::Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await?;
        }
        Ok(std::mem::take(&mut self.acknowledged.lock().expect("no panic")))
    }
}

async fn is_serving(client: &Client) -> anyhow::Result<bool> {
    let health = client.health().check(HealthCheckRequest { service: String::new() }).await?;
    Ok(health.into_inner().status() == ServingStatus::Serving)
}

/// Downloads the acknowledged blobs. Takes those that are lost and may be out of `told`, and returns their
/// number of bytes.
async fn check(client: &Client, told: &mut Told) -> anyhow::Result<u64> {
    let mut lost = Vec::new();
    for (&number, standing) in &mut *told {
        let expected = content(number);
        let digest = client.digest(&expected);
        let is_there = match client.get(&digest).await {
            Ok(read) => {
                ensure!(read == expected, "blob {number} is false: {digest}");
                true
            }
            Err(error) => {
                let missing = client.missing(&[digest]).await?;
                ensure!(
                    missing == [digest],
                    "blob {number} is neither served nor missing: {error:#}"
                );
                false
            }
        };
        let is_cached = match action(client, number) {
            Some(action) => client.cached(&action).await?.is_some(),
            None => is_there,
        };
        ensure!(is_there || !is_cached, "the result {number} names a blob that is missing");
        if is_there && is_cached {
            *standing = Standing::Kept;
        } else {
            ensure!(
                *standing == Standing::MayBeLost,
                "{number} was acknowledged and is lost: blob {is_there}, result {is_cached}"
            );
            lost.push(number);
        }
    }
    // Clients can mend it.
    for number in &lost {
        store(client, *number).await.with_context(|| format!("storing {number} again"))?;
        told.remove(number);
    }
    Ok(lost.len() as u64)
}

/// The faults of one disk.
async fn faults_of_a_disk(
    kit: &Kit,
    seed: u64,
    durability: &str,
    faults: &[Fault],
) -> anyhow::Result<()> {
    let mut numbers = Numbers::new(seed);
    let place = Place::new(kit, seed, FileSystem::of_environment()?)?;
    let (mut told, next) = (Told::new(), Arc::new(AtomicU64::new(0)));
    let mut daemon = place.start(kit, durability).await?;
    for &fault in faults {
        let load = Load::start(&daemon, &next);
        load.wait_for(40 + numbers.below(80)).await?;
        let mut cut = (0, 0);
        match fault {
            Fault::Kill => {}
            Fault::PowerCut => cut = place.disk.cut_power(),
            Fault::Writes => {
                place.disk.fail(0, 20);
                // The load meets it until the server has noticed, or for some syncs.
                let client = daemon.client();
                for _ in 0..60 {
                    if !is_serving(&client).await? {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
            Fault::Reads => {}
        }
        if fault != Fault::Writes {
            daemon.kill()?;
        }
        let acknowledged = load.stop().await?;
        let survives = fault == Fault::Kill || durability == "group";
        let standing = if survives { Standing::Kept } else { Standing::MayBeLost };
        let count = acknowledged.len();
        told.extend(acknowledged.into_iter().map(|number| (number, standing)));
        if fault == Fault::Writes {
            // Before anything is mended, nothing false is served.
            never_false(&daemon.client(), &told).await?;
            daemon.kill()?;
        }
        if fault != Fault::Kill {
            place.disk.fail(0, 0);
            place.unmount().await?;
            if fault == Fault::PowerCut {
                place.disk.power_on();
                place.repair()?;
            }
            place.mount()?;
        }
        daemon = place.start(kit, durability).await?;
        let client = daemon.client();
        if fault == Fault::Reads {
            eventually_async("the store is open", async || is_serving(&client).await).await?;
            place.disk.fail(30, 0);
            never_false(&client, &told).await?;
            place.disk.fail(0, 0);
            // A blob that could not be read went to quarantine.
            told.values_mut().for_each(|standing| *standing = Standing::MayBeLost);
        }
        let lost = check(&client, &mut told).await.with_context(|| format!("after {fault:?}"))?;
        eventually_async("the store is open", async || is_serving(&client).await).await?;
        eprintln!(
            "seed {seed}, {durability}, {fault:?}: {count} acknowledged, {lost} lost; {} of {} sectors \
             in the cache were lost",
            cut.1, cut.0
        );
    }
    daemon.terminate()?;
    ensure!(daemon.wait()?.success(), "{}", daemon.log());
    daemon = place.start(kit, durability).await?;
    told.values_mut().for_each(|standing| *standing = Standing::Kept);
    check(&daemon.client(), &mut told).await.context("after an end in order")?;
    daemon.kill()?;
    place.unmount().await
}

/// Checks that what is read is right, whether it can be read or not.
async fn never_false(client: &Client, told: &Told) -> anyhow::Result<()> {
    for &number in told.keys() {
        let expected = content(number);
        if let Ok(read) = client.get(&client.digest(&expected)).await {
            ensure!(read == expected, "blob {number} is false");
        }
    }
    Ok(())
}

fn variable(name: &str) -> anyhow::Result<Option<u64>> {
    match std::env::var(name) {
        Ok(text) => Ok(Some(text.parse().with_context(|| format!("{name} is a number"))?)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => bail!("{name}: {error}"),
    }
}

/// The faults of a case that makes these kinds of faults.
fn plan(kinds: &[Fault]) -> anyhow::Result<Vec<Fault>> {
    let kills = variable("ACTIOND_FAULT_KILLS")?;
    let cuts = variable("ACTIOND_FAULT_CUTS")?;
    if kills.is_none() && cuts.is_none() {
        let rounds = variable("ACTIOND_FAULT_ROUNDS")?.unwrap_or(ROUNDS);
        return Ok(kinds.iter().copied().cycle().take(rounds as usize).collect());
    }
    let mut left = [(Fault::PowerCut, cuts.unwrap_or(0)), (Fault::Kill, kills.unwrap_or(0))];
    left.iter_mut().filter(|(kind, _)| !kinds.contains(kind)).for_each(|(_, count)| *count = 0);
    let mut faults = Vec::new();
    while left.iter().any(|(_, count)| *count > 0) {
        for (kind, count) in left.iter_mut().filter(|(_, count)| *count > 0) {
            faults.push(*kind);
            *count -= 1;
        }
    }
    Ok(faults)
}

/// All faults of a case.
async fn run(kit: Kit, durability: &str, kinds: &[Fault]) -> Outcome {
    let first_seed = variable("ACTIOND_FAULT_SEED")?.unwrap_or(1);
    let faults = plan(kinds)?;
    for (seed, faults) in (first_seed..).zip(faults.chunks(FAULTS_PER_DISK as usize)) {
        let ran = faults_of_a_disk(&kit, seed, durability, faults).await;
        ran.with_context(|| format!("ACTIOND_FAULT_SEED={seed}"))?;
    }
    let count = |kind| faults.iter().filter(|fault| **fault == kind).count();
    eprintln!(
        "{durability} on {:?}: {} killed servers, {} power cuts, {} times failing writes, {} times \
         failing reads",
        FileSystem::of_environment()?,
        count(Fault::Kill),
        count(Fault::PowerCut),
        count(Fault::Writes),
        count(Fault::Reads),
    );
    Ok(())
}

async fn what_was_acknowledged_survives_faults_or_is_missing(kit: Kit) -> Outcome {
    run(kit, "lazy", &FAULTS).await
}

async fn with_group_durability_what_was_acknowledged_survives_power_cuts(kit: Kit) -> Outcome {
    run(kit, "group", &[Fault::PowerCut, Fault::Writes]).await
}
