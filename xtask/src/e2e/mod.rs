//! `cargo xtask e2e`: real clients build real workspaces through the real daemon.
//!
//! A client is a program of others, so it lives in a root file system of its own that is made once
//! from the distribution's archive and kept in the user's cache ([`debian_root`]). Its suites run
//! as root on a state volume, against a daemon that they start, kill and restart ([`daemon`]), with
//! the client in a session of its own ([`session`]). A new client is a module with a recipe and a
//! list of suites, and a line in [`CLIENTS`].
//!
//! `vm` has the name of a client but is not one: it repeats with `serve-vm` everything that `serve` passes
//! ([`in_vm`]).
//!
//! `upstream` is named like a client too: the daemon with caches of others below its store ([`upstream`]), of which the
//! most is among the tests of the workspace. So is `faults`: the daemon under load on a disk that loses power and fails
//! ([`faults`]), of which a short round is among them, and which runs only when it is named. `buildgrid` is workers of a
//! real BuildGrid ([`buildgrid`]). `user` does what `serve` passes as root with a daemon that an ordinary user starts ([`user`]).
//! And `web` shows the pages in a browser ([`web`]).
//!
//! Where the root of a client can't be made, the run fails, unless the client was left out by name or is
//! optional: then it is skipped, and the reason is told.

mod bazel;
mod bazel4;
mod buildgrid;
mod certificates;
mod debian_root;
mod faults;
pub(crate) mod in_vm;
mod installed;
mod light;
mod patience;
mod podman;
mod session;
mod steps;
mod upstream;
pub(crate) mod user;
pub(crate) mod web;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};
use launch::{ORDINARY_USER, StartAs};

use crate::{
    arch::Arch,
    binaries::Binaries,
    daemon::Daemon,
    dist::{self, Release},
    process, setup, state_volume,
    vm::{self, Artifacts},
};

pub(crate) use buildgrid::{
    InsideArguments as BuildgridArguments, run_inside as run_buildgrid_inside,
    run_part as run_buildgrid_part,
};

pub(crate) use upstream::{
    InsideArguments as UpstreamArguments, Servers, run_inside as run_upstream_inside,
    run_part as run_upstream_part,
};

/// A build tool that speaks remote execution.
struct Client {
    name: &'static str,
    recipe: debian_root::Recipe,
    /// Whether the run goes on without it where its root can't be made.
    is_optional: bool,
    suites: &'static [Suite],
    /// Suites that run with `--all`, or when they are named.
    more_suites: &'static [Suite],
}

impl Client {
    /// The suites that are asked for: one by its name, all, or those of each run.
    fn chosen(&self, name: Option<&str>, all: bool) -> Vec<&'static Suite> {
        let asked = |suite: &&Suite| name.is_none_or(|name| name == suite.name);
        let more = if all || name.is_some() { self.more_suites } else { &[] };
        self.suites.iter().chain(more).filter(asked).collect()
    }
}

/// Steps that share a daemon and a workspace, each building on the one before.
struct Suite {
    name: &'static str,
    run: fn(&Place) -> Result<()>,
}

/// Every client there is.
const CLIENTS: [&Client; 7] = [
    &light::SISO,
    &light::BUILDBOX,
    &light::JUSTBUILD,
    &light::BUILDSTREAM,
    &bazel::CLIENT,
    &bazel4::CLIENT,
    &podman::CLIENT,
];

/// Named like a client.
const VM: &str = "vm";

/// Named like a client too.
const UPSTREAM: &str = "upstream";

/// And this.
const BUILDGRID: &str = "buildgrid";

/// And so is this.
const USER: &str = "user";

/// And this.
const FAULTS: &str = "faults";

/// And this.
const WEB: &str = "web";

#[derive(clap::Args)]
#[group(skip)] // `test` has these too, and groups are named after their struct
pub(crate) struct Arguments {
    /// Clients to run; all when none is named. Or `vm`, `user`, `upstream`, `buildgrid`, `faults` or `web`, by
    /// itself.
    clients: Vec<String>,
    /// Leave out this client, or `vm`, `user`, `upstream`, `buildgrid` or `web`.
    #[arg(long = "skip", value_name = "CLIENT")]
    skipped: Vec<String>,
    /// Run only this suite.
    #[arg(long)]
    suite: Option<String>,
    /// Give the daemon one more flag, such as `--daemon-flag=--input-root-strategy=bind`.
    #[arg(long = "daemon-flag", value_name = "FLAG", allow_hyphen_values = true)]
    daemon_flags: Vec<OsString>,
    #[command(flatten)]
    faults: faults::Faults,
    /// The suites that take long too. With `vm` or `user`: everything that `serve` passes, which takes half an
    /// hour under emulation.
    #[arg(long)]
    all: bool,
    /// With `vm`: the machine that the guest is for.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    arch: Arch,
}

#[derive(clap::Args)]
pub(crate) struct InsideArguments {
    client: String,
    #[arg(long)]
    suite: Option<String>,
    #[arg(long)]
    all: bool,
    #[arg(long)]
    client_root: PathBuf,
    #[arg(long)]
    daemon: PathBuf,
    #[arg(long)]
    action_tool: PathBuf,
    #[arg(long)]
    runtime_image: PathBuf,
    #[arg(long)]
    debian_12_root: PathBuf,
    #[arg(long)]
    release: PathBuf,
    #[arg(long)]
    package: PathBuf,
    #[arg(long)]
    clean_root: PathBuf,
    #[arg(long)]
    tools_root: PathBuf,
    #[arg(long = "daemon-flag", allow_hyphen_values = true)]
    daemon_flags: Vec<OsString>,
    #[arg(long)]
    start_as: Option<StartAs>,
}

impl Arguments {
    /// Whether a client is to be run.
    pub(crate) fn has_clients(&self) -> bool {
        CLIENTS.iter().any(|client| self.asks_for(client) && !self.skips(client.name))
    }

    fn asks_for(&self, client: &Client) -> bool {
        self.clients.is_empty() || self.clients.iter().any(|name| name == client.name)
    }

    /// Whether the pages are among everything that is asked for.
    fn asks_for_web(&self) -> bool {
        self.clients.is_empty() && self.suite.is_none() && !self.skips(WEB)
    }

    /// The browser for the pages, unless it was left out by name.
    pub(crate) fn browser(&self) -> Result<Option<web::Browser>> {
        (!self.skips(WEB)).then(web::Browser::provide).transpose()
    }

    /// Whether there are to be caches of others.
    pub(crate) fn has_servers(&self) -> bool {
        !self.skips(UPSTREAM)
    }

    /// The caches of others, unless they were left out by name.
    pub(crate) fn servers(&self) -> Result<Option<Servers>> {
        self.has_servers().then(Servers::provide).transpose()
    }

    /// The clients that were left out by name.
    pub(crate) fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Whether it was left out by name.
    fn skips(&self, name: &str) -> bool {
        self.skipped.iter().any(|skipped| skipped == name)
    }
}

impl Place {
    /// A place for a client that needs nothing but its root.
    fn for_a_client(client_root: &Path, daemon: &Path, scratch: &Path) -> Self {
        Self {
            client_root: client_root.to_owned(),
            daemon: daemon.to_owned(),
            daemon_flags: Vec::new(),
            action_tool: PathBuf::new(),
            runtime_image: PathBuf::new(),
            debian_12_root: PathBuf::new(),
            release: PathBuf::new(),
            package: PathBuf::new(),
            clean_root: PathBuf::new(),
            tools_root: PathBuf::new(),
            scratch: scratch.to_owned(),
            vm: None,
            start_as: None,
        }
    }

    /// A daemon on an empty root of its own, with the flags that the suite and the caller ask for.
    fn start_daemon(&self, flags: &[OsString]) -> Result<Daemon> {
        let flags = [flags, &self.daemon_flags].concat();
        if let Some(way) = self.start_as {
            let state = self.scratch.join("state");
            let command = way.serve_command(&self.daemon, ORDINARY_USER, &state, &flags)?;
            return Daemon::start_command(command, state, &self.scratch);
        }
        Daemon::start(&self.daemon, &self.scratch, &flags, self.vm.as_ref())
    }
}

/// The surroundings of a suite: everything it may use and write.
#[derive(Clone)]
struct Place {
    /// The client's root file system, never written to.
    client_root: PathBuf,
    daemon: PathBuf,
    daemon_flags: Vec<OsString>,
    /// The static program that the workspaces' actions run.
    action_tool: PathBuf,
    /// C libraries and shells for `--runtime-image`.
    runtime_image: PathBuf,
    /// Debian 12 with a C++ compiler, never written to.
    debian_12_root: PathBuf,
    /// The daemon with everything inside, as users get it.
    release: PathBuf,
    /// The Debian package of it.
    package: PathBuf,
    /// Debian 13 with nothing beside its base, never written to.
    clean_root: PathBuf,
    /// The same with tools that check what is in a package.
    tools_root: PathBuf,
    /// An empty folder on the state volume.
    scratch: PathBuf,
    /// Set where daemons are to be in VMs.
    vm: Option<Artifacts>,
    /// Set where an ordinary user is to start the daemons.
    start_as: Option<StartAs>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.clients == [VM] {
        return in_vm::run(arguments.arch, arguments.all);
    }
    if arguments.clients == [USER] {
        return user::run(arguments.all);
    }
    if arguments.clients == [UPSTREAM] {
        return upstream::run(arguments.suite.as_deref());
    }
    if arguments.clients == [BUILDGRID] {
        return buildgrid::run();
    }
    if arguments.clients == [FAULTS] {
        return faults::run(&arguments.faults);
    }
    if arguments.clients == [WEB] {
        setup::run()?;
        return web::run();
    }
    let clients = chosen(arguments)?;
    if arguments.all && arguments.asks_for_web() {
        web::run()?;
    }
    if clients.is_empty() {
        return Ok(());
    }
    setup::run()?;
    let is_named = !arguments.clients.is_empty();
    let root = |client: &&Client| provide_root_of(client, is_named);
    let roots = clients.iter().map(root).collect::<Result<Vec<_>>>()?;
    let binaries = Binaries::build()?;
    let materials = Materials::provide()?;
    for (client, root) in clients.into_iter().zip(roots) {
        let Some(root) = root else { continue };
        let inside = state_volume::command(process::this_program()?)?;
        let mut inside = client_command(inside, client, &root, &binaries, materials);
        if let Some(suite) = &arguments.suite {
            inside.arg("--suite").arg(suite);
        }
        if arguments.all {
            inside.arg("--all");
        }
        for flag in &arguments.daemon_flags {
            inside.arg("--daemon-flag").arg(flag);
        }
        process::run(&mut inside)?;
    }
    Ok(())
}

/// The programs that suites need for actions, beside the client.
struct Materials {
    debian_12_root: PathBuf,
    release: Release,
    clean_root: PathBuf,
    tools_root: PathBuf,
}

impl Materials {
    /// Makes them, once in a run: a release takes its time.
    fn provide() -> Result<&'static Self> {
        static MATERIALS: OnceLock<Materials> = OnceLock::new();
        match MATERIALS.get() {
            Some(materials) => Ok(materials),
            None => Self::make().map(|materials| MATERIALS.get_or_init(|| materials)),
        }
    }

    fn make() -> Result<Self> {
        let names = vm::RUNTIMES.map(str::to_owned);
        vm::install_qemu()?;
        Ok(Self {
            debian_12_root: debian_root::provide(&DEBIAN_12)?,
            release: dist::linux_release(&names)?,
            clean_root: debian_root::provide(&CLEAN)?,
            tools_root: debian_root::provide(&TOOLS)?,
        })
    }
}

/// The root in which programs are compiled that need the C library of Debian 12.
const DEBIAN_12: debian_root::Recipe = debian_root::Recipe {
    name: "debian-12",
    suites: &["bookworm"],
    packages: &["g++"],
    stubs: &[],
};

/// The root in which the package is installed: the packages that every Debian has.
const CLEAN: debian_root::Recipe =
    debian_root::Recipe { name: "clean", suites: &["trixie"], packages: &[], stubs: &[] };

/// The checkers of the package's files.
const TOOLS: debian_root::Recipe = debian_root::Recipe {
    name: "tools",
    suites: &["trixie"],
    packages: &["apparmor", "man-db", "systemd"],
    stubs: &[],
};

/// Makes the roots of all clients and of their materials, unless they are kept already.
pub(crate) fn provide_roots() -> Result<()> {
    for client in CLIENTS {
        if client.chosen(None, false).is_empty() {
            continue;
        }
        provide_root_of(client, false)?;
    }
    for recipe in [&DEBIAN_12, &CLEAN, &TOOLS] {
        debian_root::provide(recipe)?;
    }
    Ok(())
}

/// The root of a client; none where it can't be made, the client is optional, and nobody named it.
fn provide_root_of(client: &Client, is_named: bool) -> Result<Option<PathBuf>> {
    match provide_root(client) {
        Ok(root) => Ok(Some(root)),
        Err(error) if client.is_optional && !is_named => {
            println!("e2e {}: SKIPPED: {error:#}", client.name);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn provide_root(client: &Client) -> Result<PathBuf> {
    debian_root::provide(&client.recipe)
        .with_context(|| format!("no root for {0}; `--skip {0}` leaves it out", client.name))
}

/// Has `inside`, this program as root on a state volume, go on in [`run_inside`], with all suites unless
/// the caller adds one.
fn client_command(
    mut inside: Command,
    client: &Client,
    root: &Path,
    binaries: &Binaries,
    materials: &Materials,
) -> Command {
    inside.arg("e2e-inside").arg(client.name);
    inside.arg("--client-root").arg(root);
    inside.arg("--daemon").arg(&binaries.daemon);
    inside.arg("--action-tool").arg(&binaries.action_tool);
    inside.arg("--runtime-image").arg(&materials.release.runtimes);
    inside.arg("--debian-12-root").arg(&materials.debian_12_root);
    inside.arg("--release").arg(&materials.release.executable);
    inside.arg("--package").arg(&materials.release.package);
    inside.arg("--clean-root").arg(&materials.clean_root);
    inside.arg("--tools-root").arg(&materials.tools_root);
    inside
}

/// The clients asked for, without those skipped; a name that nobody has is an error.
fn chosen(arguments: &Arguments) -> Result<Vec<&'static Client>> {
    let named = arguments.clients.iter().chain(&arguments.skipped);
    for name in named.filter(|name| ![VM, USER, UPSTREAM, BUILDGRID, WEB].contains(&name.as_str()))
    {
        client_named(name)?;
    }
    let (left_out, chosen): (Vec<_>, Vec<_>) = CLIENTS
        .into_iter()
        .filter(|client| arguments.asks_for(client))
        .partition(|client| arguments.skips(client.name));
    for client in left_out {
        println!("e2e {}: SKIPPED, as asked", client.name);
    }
    let suite = arguments.suite.as_deref();
    let (chosen, without): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|client| !client.chosen(suite, arguments.all).is_empty());
    match suite {
        Some(suite) if chosen.is_empty() && !without.is_empty() => {
            bail!("no client has a suite {suite:?}")
        }
        Some(_) => {}
        None => {
            for client in without {
                println!("e2e {}: SKIPPED, `--all` runs it", client.name);
            }
        }
    }
    Ok(chosen)
}

fn client_named(name: &str) -> Result<&'static Client> {
    let known = || CLIENTS.map(|client| client.name).join(", ");
    CLIENTS
        .into_iter()
        .find(|client| client.name == name)
        .with_context(|| format!("no client {name:?}; there are: {}", known()))
}

/// Runs one client's suites, as root, on a state volume.
pub(crate) fn run_inside(arguments: &InsideArguments) -> Result<()> {
    let state = std::env::var_os(state_volume::STATE_VARIABLE)
        .context("this part of e2e runs on a state volume")?;
    let client = client_named(&arguments.client)?;
    let suites = client.chosen(arguments.suite.as_deref(), arguments.all);
    if suites.is_empty() {
        bail!("{} has no suite {:?}", client.name, arguments.suite);
    }
    for suite in &suites {
        let scratch = PathBuf::from(&state).join(suite.name);
        std::fs::create_dir(&scratch)?;
        println!("e2e {} {}:", client.name, suite.name);
        (suite.run)(&Place {
            client_root: arguments.client_root.clone(),
            daemon: arguments.daemon.clone(),
            daemon_flags: arguments.daemon_flags.clone(),
            action_tool: arguments.action_tool.clone(),
            runtime_image: arguments.runtime_image.clone(),
            debian_12_root: arguments.debian_12_root.clone(),
            release: arguments.release.clone(),
            package: arguments.package.clone(),
            clean_root: arguments.clean_root.clone(),
            tools_root: arguments.tools_root.clone(),
            scratch,
            vm: Artifacts::from_environment()?,
            start_as: arguments.start_as,
        })
        .with_context(|| format!("e2e {} {}", client.name, suite.name))?;
    }
    println!("e2e {}: {} suites passed", client.name, suites.len());
    Ok(())
}

/// Copies a folder with all that is in it.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    process::run(
        Command::new("cp").args(["--recursive", "--no-target-directory"]).arg(from).arg(to),
    )
}
