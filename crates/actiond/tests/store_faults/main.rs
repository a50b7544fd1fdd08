//! The daemon under load on a disk that loses power and fails: what it acknowledged is there or is missing,
//! as `docs/storage-format.md` says, and is never false.
//!
//! The environment says what a run is made of; `cargo xtask e2e faults` sets it:
//!
//! - `ACTIOND_FAULT_ROUNDS`: the number of faults, of all kinds in turn.
//! - `ACTIOND_FAULT_KILLS`, `ACTIOND_FAULT_CUTS`, `ACTIOND_FAULT_FILLS`: in place of it, the number of killed servers, of
//!   power cuts, and of disks that others fill with data and with files in turn.
//! - `ACTIOND_FAULT_FILE_SYSTEM`: `ext4`, `xfs`, `btrfs` or `ext4-without-journal`.
//! - `ACTIOND_FAULT_SEED`: the first seed. Each disk has its own, which is printed.

mod disk;
mod full;
mod load;
mod place;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context as _, bail, ensure};
use testkit::{Client, Kit, Outcome, eventually_async};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use disk::Numbers;
use load::{Load, action, content, store};
use place::{FileSystem, Filling, Place};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    what_was_acknowledged_survives_faults_or_is_missing,
    with_group_durability_what_was_acknowledged_survives_power_cuts,
    a_full_disk_is_served_from_with_ext4,
    a_full_disk_is_served_from_with_xfs,
    a_full_disk_is_served_from_with_btrfs,
}

/// The faults of a short run: each takes about ten seconds on a busy machine.
const ROUNDS: u64 = 2;
/// After this many faults the disk is replaced: all that was stored fits on it, so that nothing is evicted.
const FAULTS_PER_DISK: u64 = 8;

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
    /// Others fill the disk.
    FullDisk,
    /// Others take all inodes.
    NoInodes,
    /// The file system is not written to any more, as after an error of its own.
    ReadOnly,
}

impl Fault {
    /// Whether that file system knows it.
    fn happens_to(self, file_system: FileSystem) -> bool {
        match self {
            Self::NoInodes => file_system.has_inodes(),
            Self::ReadOnly => file_system.stops_writing().is_some(),
            _ => true,
        }
    }
}

const FAULTS: [Fault; 7] = [
    Fault::PowerCut,
    Fault::Kill,
    Fault::Writes,
    Fault::Reads,
    Fault::FullDisk,
    Fault::NoInodes,
    Fault::ReadOnly,
];

/// Something that the server acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It must be there.
    Kept,
    /// It may be missing.
    MayBeLost,
}

/// The blobs that a server acknowledged, by their numbers.
type Told = BTreeMap<u64, Standing>;

async fn is_serving(client: &Client) -> anyhow::Result<bool> {
    let health = client.health().check(HealthCheckRequest { service: String::new() }).await?;
    Ok(health.into_inner().status() == ServingStatus::Serving)
}

/// Downloads the acknowledged blobs. Takes those that are lost and may be out of `told`, and returns their
/// number.
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
    let file_system = FileSystem::of_environment()?;
    let place = Place::new(kit, seed, file_system)?;
    let (mut told, next) = (Told::new(), Arc::new(AtomicU64::new(0)));
    let mut daemon = place.start(kit, durability).await?;
    for &fault in faults {
        let load = Load::start(&daemon, &next);
        load.wait_for(40 + numbers.below(80)).await?;
        let client = daemon.client();
        let mut cut = (0, 0);
        let filling = match fault {
            Fault::FullDisk => Some(Filling::Space),
            Fault::NoInodes => Some(Filling::Inodes),
            _ => None,
        };
        match fault {
            Fault::Kill | Fault::Reads => {}
            Fault::PowerCut => cut = place.disk.cut_power(),
            Fault::Writes => {
                place.disk.fail(0, 20);
                // The load meets it until the server has noticed, or for some syncs.
                for _ in 0..60 {
                    if !is_serving(&client).await? {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
            Fault::FullDisk | Fault::NoInodes => {
                place.fill(filling.expect("it fills the disk"))?;
                load.wait_for_answers(40).await?;
            }
            Fault::ReadOnly => {
                place.run(file_system.stops_writing().context("there is a command")?)?;
                load.wait_for_answers(40).await?;
            }
        }
        // A server that goes on says this of the fault.
        let is_beside =
            matches!(fault, Fault::Writes | Fault::FullDisk | Fault::NoInodes | Fault::ReadOnly);
        if !is_beside {
            daemon.kill()?;
        }
        let load::Ended { acknowledged, errors } = load.stop().await?;
        let survives = match fault {
            Fault::Kill => true,
            // The server evicts to make room.
            Fault::FullDisk | Fault::NoInodes => false,
            _ => durability == "group",
        };
        let standing = if survives { Standing::Kept } else { Standing::MayBeLost };
        let count = acknowledged.len();
        told.extend(acknowledged.into_iter().map(|number| (number, standing)));
        if filling.is_some() {
            told.values_mut().for_each(|standing| *standing = Standing::MayBeLost);
            // An error of one blob of a batch has no code in its text.
            let is_other =
                |error: &&String| error.contains("code: ") && !error.contains("exhausted");
            if let Some(other) = errors.iter().find(is_other) {
                bail!("a full disk is told as {other}");
            }
        }
        if is_beside {
            // Before anything is mended, nothing false is served.
            never_false(&client, &told).await?;
            daemon.kill()?;
        }
        if let Some(filling) = filling {
            // Nor by a server that starts on it.
            place.fill(filling)?;
            daemon = place.start(kit, durability).await?;
            never_false(&daemon.client(), &told).await?;
            daemon.kill()?;
            place.empty()?;
        } else if fault != Fault::Kill {
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
            "seed {seed}, {durability}, {fault:?}: {count} acknowledged, {} refused, {lost} lost; {} of {} \
             sectors in the cache were lost",
            errors.len(),
            cut.1,
            cut.0
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
fn plan(kinds: &[Fault], file_system: FileSystem) -> anyhow::Result<Vec<Fault>> {
    let kinds: Vec<_> = kinds.iter().copied().filter(|kind| kind.happens_to(file_system)).collect();
    let kills = variable("ACTIOND_FAULT_KILLS")?;
    let cuts = variable("ACTIOND_FAULT_CUTS")?;
    let fills = variable("ACTIOND_FAULT_FILLS")?;
    if kills.is_none() && cuts.is_none() && fills.is_none() {
        let rounds = variable("ACTIOND_FAULT_ROUNDS")?.unwrap_or(ROUNDS);
        return Ok(kinds.into_iter().cycle().take(rounds as usize).collect());
    }
    let fills = fills.unwrap_or(0);
    let without_inodes = if file_system.has_inodes() { fills / 2 } else { 0 };
    let mut left = [
        (Fault::PowerCut, cuts.unwrap_or(0)),
        (Fault::Kill, kills.unwrap_or(0)),
        (Fault::FullDisk, fills - without_inodes),
        (Fault::NoInodes, without_inodes),
    ];
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
    let file_system = FileSystem::of_environment()?;
    let faults = plan(kinds, file_system)?;
    for (seed, faults) in (first_seed..).zip(faults.chunks(FAULTS_PER_DISK as usize)) {
        let ran = faults_of_a_disk(&kit, seed, durability, faults).await;
        ran.with_context(|| format!("ACTIOND_FAULT_SEED={seed}"))?;
    }
    let counts: Vec<_> = FAULTS
        .into_iter()
        .map(|kind| (kind, faults.iter().filter(|fault| **fault == kind).count()))
        .filter(|(_, count)| *count > 0)
        .collect();
    eprintln!("{durability} on {file_system:?}: {counts:?}");
    Ok(())
}

async fn what_was_acknowledged_survives_faults_or_is_missing(kit: Kit) -> Outcome {
    run(kit, "lazy", &FAULTS).await
}

async fn with_group_durability_what_was_acknowledged_survives_power_cuts(kit: Kit) -> Outcome {
    run(kit, "group", &[Fault::PowerCut, Fault::Writes]).await
}

async fn a_full_disk_is_served_from_with_ext4(kit: Kit) -> Outcome {
    full::is_served_from(kit, FileSystem::Ext4).await
}

async fn a_full_disk_is_served_from_with_xfs(kit: Kit) -> Outcome {
    full::is_served_from(kit, FileSystem::Xfs).await
}

async fn a_full_disk_is_served_from_with_btrfs(kit: Kit) -> Outcome {
    full::is_served_from(kit, FileSystem::Btrfs).await
}
