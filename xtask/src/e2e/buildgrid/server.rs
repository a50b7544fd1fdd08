//! BuildGrid with its database, as a process in a root of its own.
//!
//! It comes from PyPI in the versions of `e2e/buildgrid/requirements.txt`, each file by its hash; PostgreSQL and Python
//! are Debian's. pip's own configuration decides which index serves the packages.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context, Result, ensure};
use launch::ReservedAddress;

use crate::{
    e2e::{
        debian_root::{CLIENT_FOLDER, Recipe},
        patience::within_patience,
    },
    process,
    setup::{self, Need},
    workspace,
};

/// The database and the interpreter.
pub(super) const ROOT: Recipe = Recipe {
    name: "buildgrid",
    suites: &["trixie"],
    packages: &["postgresql", "python3"],
    stubs: &[],
};

const PIP: [Need; 1] =
    [Need { program: "pip3", package: "python3-pip", why: "fetches BuildGrid from PyPI" }];

/// The version of the root's Python, for which the packages are.
const PYTHON: &str = "3.13";

/// The lists of what glibc's versions can run, newest first.
const PLATFORMS: [&str; 3] = ["manylinux_2_28", "manylinux_2_17", "manylinux2014"];

/// The place of the packages in the root: a folder that every Debian has.
const PACKAGES: &str = "/mnt";

/// The name that our own user has inside: PostgreSQL does not run as root.
const NOBODY: &str = "65534";

/// The files of the server, in the repository.
fn sources() -> PathBuf {
    workspace::root().join("e2e/buildgrid")
}

/// The folder with BuildGrid and all that it imports, fetched once for each list of versions.
pub(super) fn packages() -> Result<PathBuf> {
    let list = sources().join("requirements.txt");
    let folder = workspace::cache()?.join("servers/buildgrid");
    let (packages, noted) = (folder.join("packages"), folder.join("requirements.txt"));
    if fs::read(&noted).ok() == Some(fs::read(&list)?) {
        return Ok(packages);
    }
    setup::ensure(&PIP)?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    println!("e2e buildgrid: fetching BuildGrid and what it imports");
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]);
    // This pip may be the one of another Python, whose version is not asked for.
    pip.args(["--ignore-requires-python", "--python-version", PYTHON, "--implementation", "cp"]);
    for platform in PLATFORMS {
        pip.arg("--platform").arg(format!("{platform}_{}", std::env::consts::ARCH));
    }
    pip.arg("--target").arg(&packages).arg("--requirement").arg(&list);
    process::run(&mut pip).context("fetching BuildGrid")?;
    fs::copy(&list, &noted)?;
    Ok(packages)
}

/// A server that keeps its address and its folder when it is started again.
pub(super) struct Server {
    root: PathBuf,
    packages: PathBuf,
    folder: PathBuf,
    address: ReservedAddress,
    process: Child,
}

impl Server {
    pub(super) fn start(root: &Path, packages: &Path, folder: PathBuf) -> Result<Self> {
        fs::create_dir(&folder)?;
        let address = ReservedAddress::new()?;
        let settings = fs::read_to_string(sources().join("server.yml"))?;
        let settings = settings.replace("ADDRESS", &address.get().to_string());
        fs::write(folder.join("server.yml"), settings)?;
        fs::copy(sources().join("start.sh"), folder.join("start.sh"))?;
        let process = spawn(root, packages, &folder)?;
        let (root, packages) = (root.to_owned(), packages.to_owned());
        let mut server = Self { root, packages, folder, address, process };
        server.wait_until_it_serves()?;
        Ok(server)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address.get()
    }

    /// SIGKILL for the server and its database.
    pub(super) fn kill(&mut self) -> Result<()> {
        // The rest of its PID namespace goes with it.
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again with what it had.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.root, &self.packages, &self.folder)?;
        self.wait_until_it_serves()
    }

    /// The times that it has taken a worker for dead.
    pub(super) fn expired_sessions(&self) -> Result<usize> {
        Ok(fs::read_to_string(self.log())?.matches("BotSession has expired").count())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The end of its log, for a message.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!(
            "BuildGrid's log ends with:\n{}",
            lines[lines.len().saturating_sub(40)..].join("\n")
        )
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        let address = self.address();
        let mut ended = None;
        let serves = within_patience(|| {
            ended = self.process.try_wait()?;
            Ok(ended.is_some() || TcpStream::connect(address).is_ok())
        })?;
        ensure!(serves && ended.is_none(), "BuildGrid does not serve\n{}", self.log_tail());
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _gone = self.kill();
    }
}

fn spawn(root: &Path, packages: &Path, folder: &Path) -> Result<Child> {
    let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
    let mut command = Command::new("bwrap");
    command.args(["--die-with-parent", "--unshare-pid", "--unshare-ipc", "--new-session"]);
    command.args(["--unshare-user", "--uid", NOBODY, "--gid", NOBODY]);
    command.arg("--ro-bind").arg(root).arg("/").args(["--dev", "/dev", "--proc", "/proc"]);
    command.args(["--tmpfs", "/tmp", "--tmpfs", "/run"]);
    command.arg("--ro-bind").arg(packages).arg(PACKAGES);
    command.arg("--bind").arg(folder).arg(CLIENT_FOLDER).args(["--chdir", CLIENT_FOLDER]);
    command.args([
        "--clearenv",
        "--setenv",
        "PATH",
        "/usr/bin:/bin",
        "--setenv",
        "LANG",
        "C.UTF-8",
    ]);
    command.args(["--setenv", "HOME", CLIENT_FOLDER, "--setenv", "PYTHONPATH", PACKAGES]);
    command.args(["--setenv", "PYTHONDONTWRITEBYTECODE", "1", "--setenv", "PYTHONUNBUFFERED", "1"]);
    command.args(["sh", "start.sh"]).stdin(std::process::Stdio::null());
    command.stdout(log.try_clone()?).stderr(log).spawn().context("cannot start bwrap")
}
