//! The parts of this machine that an attack could change or find, and whether it did.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// Content that no sandbox may show or change.
const CANARY: &str = "a file of the host\n";

/// A server on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    /// Its root directory.
    pub(crate) root: PathBuf,
    /// Its process.
    pub(crate) pid: u32,
    /// Whether each of its sandboxes has a user of this machine.
    pub(crate) own_users: bool,
}

impl Local {
    /// Whether the server has CAP_SYS_RESOURCE, which containers mostly lack, and user namespaces always.
    pub(crate) fn sets_limits(&self) -> bool {
        const SYS_RESOURCE: u64 = 1 << 24;
        let effective = self.status("CapEff:");
        let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
        !self.is_in_user_namespace()
            && effective.is_some_and(|capabilities| capabilities & SYS_RESOURCE != 0)
    }

    /// The server's user and group.
    pub(crate) fn ids(&self) -> Result<(u32, u32)> {
        let process = Process(PathBuf::from(format!("/proc/{}", self.pid)));
        process.owner().context("the server's process is gone")
    }

    /// Whether actions have the server's user, for there is no other in its user namespace.
    pub(crate) fn has_one_id(&self) -> bool {
        self.is_in_user_namespace() && self.uid_map().lines().count() == 1
    }

    fn is_in_user_namespace(&self) -> bool {
        let own = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        self.uid_map() != own
    }

    fn uid_map(&self) -> String {
        fs::read_to_string(format!("/proc/{}/uid_map", self.pid)).unwrap_or_default()
    }

    /// The rest of a line of the process's status.
    fn status(&self, name: &str) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    }
}

/// Things of the host that anybody outside of a sandbox could read, write and
/// connect to.
pub(crate) struct Host {
    directory: tempfile::TempDir,
    /// Kept open: what an attack may reach.
    tcp: TcpListener,
    named: UnixListener,
    by_path: UnixListener,
    abstract_name: String,
    before: Snapshot,
}

/// The state that must not change.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    names: Vec<String>,
    canary: String,
    /// Inode, mode, owner, links, times.
    metadata: [i64; 6],
    mounts: String,
    host_name: String,
    core_pattern: String,
}

impl Host {
    /// Puts them there.
    pub(crate) fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("actiond-attack-").tempdir()?;
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        let canary = path.join("canary");
        fs::write(&canary, CANARY)?;
        fs::set_permissions(&canary, fs::Permissions::from_mode(0o666))?;
        let by_path = UnixListener::bind(path.join("socket"))?;
        fs::set_permissions(path.join("socket"), fs::Permissions::from_mode(0o777))?;
        let abstract_name = format!("actiond-attack-{}", std::process::id());
        let named = UnixListener::bind_addr(&UnixAddress::from_abstract_name(&abstract_name)?)?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        for failed in
            [tcp.set_nonblocking(true), named.set_nonblocking(true), by_path.set_nonblocking(true)]
        {
            failed?;
        }
        let before = Snapshot::take(path)?;
        Ok(Self { directory, tcp, named, by_path, abstract_name, before })
    }

    /// Puts the names of things of the host in their places.
    pub(crate) fn substitute(&self, text: &str) -> String {
        let directory = self.directory.path().display().to_string();
        let port = self.tcp.local_addr().map_or(0, |address| address.port());
        text.replace("{canary}", &format!("{directory}/canary"))
            .replace("{directory}", &directory)
            .replace("{socket}", &format!("{directory}/socket"))
            .replace("{port}", &port.to_string())
            .replace("{abstract}", &self.abstract_name)
    }

    /// Fails with what an attack has changed, or with what it has reached.
    pub(crate) fn ensure_untouched(&self) -> Result<()> {
        let after = Snapshot::take(self.directory.path()).context("a thing of the host is gone")?;
        ensure!(
            after == self.before,
            "the host was changed:\n{:#?}\nis now\n{after:#?}",
            self.before
        );
        let reached = self.tcp.accept().is_ok()
            || self.named.accept().is_ok()
            || self.by_path.accept().is_ok();
        ensure!(!reached, "a server of the host was reached");
        Ok(())
    }
}

impl Snapshot {
    fn take(directory: &std::path::Path) -> Result<Self> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let canary = directory.join("canary");
        let stat = fs::symlink_metadata(&canary)?;
        Ok(Self {
            names,
            canary: fs::read_to_string(&canary)?,
            metadata: [
                stat.ino() as i64,
                stat.mode().into(),
                stat.uid().into(),
                stat.nlink() as i64,
                stat.mtime_nsec(),
                stat.ctime_nsec(),
            ],
            mounts: fs::read_to_string("/proc/self/mounts")?,
            host_name: fs::read_to_string("/proc/sys/kernel/hostname")?,
            core_pattern: fs::read_to_string("/proc/sys/kernel/core_pattern")?,
        })
    }
}

/// A process of this machine.
#[derive(Debug)]
pub(crate) struct Process(PathBuf);

impl Process {
    /// Its user and group in our namespace; `None` if it has ended.
    pub(crate) fn owner(&self) -> Option<(u32, u32)> {
        let status = fs::read_to_string(self.0.join("status")).ok()?;
        let id = |name| first_number(&status, name);
        id("Uid:").zip(id("Gid:"))
    }
}

fn first_number(status: &str, name: &str) -> Option<u32> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Processes with that name, in any namespace below ours.
pub(crate) fn processes_named(name: &str) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Processes that end while we look are none.
        let is_one =
            fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        if is_one {
            found.push(Process(path));
        }
    }
    Ok(found)
}

/// Fails if this user can't do on the host what actions must not be able to take
/// away: the kernel counts some things by user, not by sandbox.
pub(crate) fn ensure_works() -> Result<()> {
    use rustix::fs::inotify;
    inotify::init(inotify::CreateFlags::CLOEXEC).context("watching files on the host")?;
    std::io::pipe().context("making a pipe on the host")?;
    std::process::Command::new("true").status().context("starting a process on the host")?;
    Ok(())
}
