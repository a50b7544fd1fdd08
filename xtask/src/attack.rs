//! `cargo xtask attack`: hostile actions and lying clients against the daemon.
//!
//! The attacks and what must become of them are `actiond-attack`'s; this starts the daemon for them,
//! once with each way to present inputs, on a small disk of its own that may be filled; or in a VM,
//! whose disk is that.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use launch::{ORDINARY_USER, StartAs};

use crate::{
    arch::Arch, binaries, daemon::Daemon, kernel::Flavour, process, reproducible::Checkout, setup,
    state_volume, vm::Artifacts,
};

/// Every way to present inputs (`--input-root-strategy`).
const STRATEGIES: [&str; 5] = ["erofs-file", "erofs-loop", "tmpfs-overlay", "link-overlay", "bind"];

/// In place of one of them.
const ALL: &str = "all";

/// Bounds that are reached soon: every wall that an operator can move is moved close.
const DAEMON_FLAGS: [&str; 7] = [
    "--jobs=2",
    "--tmp-bytes=64m",
    "--shm-bytes=16m",
    "--stream-limit-bytes=16m",
    "--output-entries-limit=100000",
    "--queue-limit=64",
    "--orphan-grace-ms=200",
];

/// There is no other wall where what is behind this one is the host's.
const HOST_FLAG: &str = "--allow-host-rootfs";

/// A disk that is filled within seconds.
const DISK_BYTES: u64 = 1 << 30;
const DISK_INODES: u64 = 24_000;

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Attack this server, in place of a daemon that is started for it.
    #[arg(long, value_name = "URL", conflicts_with_all = ["strategy", "vm"])]
    server: Option<String>,
    /// Only with this way to present inputs.
    #[arg(long, value_name = "NAME", default_value = ALL,
          value_parser = ["erofs-file", "erofs-loop", "tmpfs-overlay", "link-overlay", "bind", ALL])]
    strategy: String,
    /// Only attacks whose name contains this.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Attack the worker in a VM, with the way to present inputs that it chooses unless one is named.
    #[arg(long)]
    vm: bool,
    /// Attack a daemon that this ordinary user started, given as a number; no account needs to have it.
    #[arg(long, value_name = "UID", conflicts_with_all = ["server", "vm"])]
    user: Option<u32>,
    /// Leave out what takes long.
    #[arg(long)]
    quick: bool,
}

#[derive(clap::Args)]
pub(crate) struct InsideArguments {
    daemon: PathBuf,
    driver: PathBuf,
    attacker: PathBuf,
    #[command(flatten)]
    arguments: Arguments,
}

impl Arguments {
    /// All attacks, with every strategy.
    pub(crate) fn all() -> Self {
        let strategy = ALL.to_owned();
        Self { server: None, strategy, only: None, vm: false, user: None, quick: false }
    }

    /// Attacks on a daemon that an ordinary user started.
    pub(crate) fn by_user(quick: bool) -> Self {
        Self { user: Some(ORDINARY_USER), quick, ..Self::all() }
    }

    /// Attacks on a worker in a VM.
    pub(crate) fn in_vm(quick: bool) -> Self {
        Self { vm: true, quick, ..Self::all() }
    }

    fn strategies(&self) -> Vec<&str> {
        STRATEGIES
            .into_iter()
            .filter(|name| [name, ALL].contains(&self.strategy.as_str()))
            .collect()
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let Programs { driver, attacker } = build()?;
    if let Some(server) = &arguments.server {
        let mut attack = Command::new(&driver);
        attack.args(["--server", server]).arg("--attacker").arg(&attacker);
        return process::run(only(&mut attack, arguments));
    }
    let daemon = binaries::build("actiond", "linux-actiond")?;
    let this = process::this_program()?;
    let mut inside = if arguments.vm {
        Artifacts::provide(Arch::host(), Flavour::Release)?.state_volume_command(this)?
    } else {
        state_volume::command(this)?
    };
    inside.arg("attack-inside").arg(daemon).arg(driver).arg(attacker);
    inside.args(["--strategy", &arguments.strategy]);
    if let Some(user) = arguments.user {
        inside.args(["--user", &user.to_string()]);
    }
    if arguments.quick {
        inside.arg("--quick");
    }
    process::run(only(&mut inside, arguments))
}

fn only<'a>(command: &'a mut Command, arguments: &Arguments) -> &'a mut Command {
    if let Some(name) = &arguments.only {
        command.args(["--only", name]);
    }
    command
}

/// The programs of an attack.
pub(crate) struct Programs {
    driver: PathBuf,
    /// The program that the actions run. It is linked statically, for it runs in sandboxes that hold nothing but an
    /// action's inputs.
    attacker: PathBuf,
}

/// Builds them.
pub(crate) fn build() -> Result<Programs> {
    let checkout = Checkout::own()?;
    let alone = ["--no-default-features"];
    Ok(Programs {
        driver: binaries::build("attack", "actiond-attack")?,
        // Without the driver's dependencies, which cargo would compile with other features for it alone.
        attacker: binaries::build_static(&checkout, "attack", "actiond-attacker", &alone)?,
    })
}

/// The daemon's message when a strategy does not work on this machine.
const NO_STRATEGY: &str = "no input root strategy works here";

/// Attacks one daemon after the other, as root, on disks within a state volume. Slow attacks are
/// made once: they do not depend on how inputs are presented.
pub(crate) fn run_inside(inside: &InsideArguments) -> Result<()> {
    let state = std::env::var_os(state_volume::STATE_VARIABLE);
    let state = PathBuf::from(state.context("attacks run on a state volume")?);
    if let Some(vm) = Artifacts::from_environment()? {
        return attack_vm(inside, &vm, &state);
    }
    let (mut held, mut breached) = (Vec::new(), Vec::new());
    for strategy in inside.arguments.strategies() {
        println!("attack: {strategy}");
        let disk = state.join(strategy);
        make_disk(&disk)?;
        let is_first = held.is_empty() && breached.is_empty();
        match attack(inside, strategy, &disk, is_first) {
            Ok(()) => held.push(strategy),
            Err(error) if format!("{error:#}").contains(NO_STRATEGY) => {
                println!("attack: {strategy}: skipped, for it does not work here: {error:#}");
            }
            Err(error) => {
                println!("attack: {strategy}: {error:#}");
                breached.push(strategy);
            }
        }
        process::run(Command::new("umount").arg(&disk))?;
    }
    ensure!(breached.is_empty(), "the walls did not hold with {}", breached.join(", "));
    ensure!(!held.is_empty(), "nothing was attacked: no strategy works here");
    println!("attack: the walls held with {}", held.join(", "));
    Ok(())
}

fn attack(inside: &InsideArguments, strategy: &str, disk: &Path, costly: bool) -> Result<()> {
    let mut flags = flags(strategy);
    flags.push(HOST_FLAG.into());
    let daemon = match inside.arguments.user {
        None => Daemon::start(&inside.daemon, disk, &flags, None)?,
        Some(user) => {
            let state = disk.join("state");
            let command = StartAs::User.serve_command(&inside.daemon, user, &state, &flags)?;
            Daemon::start_command(command, state, disk)?
        }
    };
    let mut attack = Command::new(&inside.driver);
    attack.args(["--server", &daemon.address().to_string()]);
    attack.arg("--attacker").arg(&inside.attacker);
    attack.arg("--root").arg(disk.join("state")).args(["--pid", &daemon.id()?.to_string()]);
    attack.arg("--daemon").arg(&inside.daemon);
    if inside.arguments.user.is_none() && has_own_users(strategy)? {
        attack.arg("--own-users");
    }
    if !costly || inside.arguments.quick {
        attack.arg("--quick");
    }
    process::run(only(&mut attack, &inside.arguments)).with_context(|| daemon.log_tail())?;
    daemon.stop()
}

/// Whether a daemon of root's gives each sandbox a user of this machine: `bind` can't, and the others need a kernel
/// that makes mounts of detached ones.
fn has_own_users(strategy: &str) -> Result<bool> {
    const FIRST: (u32, u32) = (6, 15);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let [Some(Ok(major)), Some(Ok(minor))] = [numbers.next(), numbers.next()] else {
        bail!("the kernel's release is {release}");
    };
    Ok(strategy != "bind" && (major, minor) >= FIRST)
}

/// Attacks a worker whose processes and store nobody here sees: that of a VM.
fn attack_vm(inside: &InsideArguments, vm: &Artifacts, state: &Path) -> Result<()> {
    let strategy = &inside.arguments.strategy;
    let flags = flags(if strategy == ALL { "auto" } else { strategy });
    let daemon = Daemon::start(&inside.daemon, state, &flags, Some(vm))?;
    let mut attack = Command::new(&inside.driver);
    attack.args(["--server", &daemon.address().to_string()]);
    attack.arg("--attacker").arg(&inside.attacker);
    if inside.arguments.quick {
        attack.arg("--quick");
    }
    process::run(only(&mut attack, &inside.arguments)).with_context(|| daemon.log_tail())?;
    println!("attack: the walls held in a VM, with {}", daemon.strategy()?);
    daemon.stop()
}

fn flags(strategy: &str) -> Vec<OsString> {
    let strategy = format!("--input-root-strategy={strategy}");
    DAEMON_FLAGS.iter().map(OsString::from).chain([strategy.into()]).collect()
}

/// A small file system, gone with this mount namespace.
fn make_disk(at: &Path) -> Result<()> {
    fs::create_dir_all(at)?;
    let image = at.with_extension("img");
    fs::File::create(&image)?.set_len(DISK_BYTES)?;
    let inodes = DISK_INODES.to_string();
    process::run(
        Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N", &inodes]).arg(&image),
    )?;
    process::run(Command::new("mount").args(["-o", "loop,nosuid,nodev"]).arg(&image).arg(at))?;
    Ok(fs::remove_file(&image)?)
}
