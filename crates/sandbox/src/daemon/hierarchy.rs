//! The version 2 hierarchy of cgroups: where this process is in it, and what can be limited there.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use sys::proc_file;

/// The cgroup of the daemon, in the one that it divides.
pub(super) const DAEMON: &str = "actiond-daemon";
/// The parent of the actions' cgroups, beside it.
pub(super) const ACTIONS: &str = "actiond-actions";

/// The reason why there are no cgroups although there are controllers.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {errno}", path = path.display())]
pub struct CgroupError {
    pub(super) action: &'static str,
    pub(super) path: PathBuf,
    pub(super) errno: Errno,
}

impl CgroupError {
    /// Whether other processes are in the cgroup, so that it can't be divided.
    pub fn has_other_processes(&self) -> bool {
        self.errno == Errno::BUSY
    }
}

/// The limits that can be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// `memory.max`
    pub memory: bool,
    /// `cpu.max`
    pub cpu: bool,
    /// `pids.max`
    pub pids: bool,
}

impl Controllers {
    /// The controllers that this process's cgroup could pass on; nothing, where there is no
    /// version 2 hierarchy. Looks only.
    pub fn offered() -> Self {
        own_cgroup().map(|own| Self::of(&own)).unwrap_or_default()
    }

    pub(super) fn of(cgroup: &Path) -> Self {
        Self::parse(&proc_file::read(CWD, cgroup.join("cgroup.controllers")).unwrap_or_default())
    }

    fn parse(list: &str) -> Self {
        let has = |name| list.split_whitespace().any(|word| word == name);
        Self { memory: has("memory"), cpu: has("cpu"), pids: has("pids") }
    }

    pub(super) fn any(self) -> bool {
        self.memory || self.cpu || self.pids
    }

    /// Those that the children of a cgroup have.
    pub(super) fn enabled_in(cgroup: &Path) -> Self {
        let enabled = proc_file::read(CWD, cgroup.join("cgroup.subtree_control"));
        Self::parse(&enabled.unwrap_or_default())
    }

    /// Those that `others` lack.
    pub(super) fn without(self, others: Self) -> Self {
        Self {
            memory: self.memory && !others.memory,
            cpu: self.cpu && !others.cpu,
            pids: self.pids && !others.pids,
        }
    }

    /// The text that is written to `cgroup.subtree_control`: each name after `sign`.
    fn signed(self, sign: char) -> String {
        let names = [(self.memory, "memory"), (self.cpu, "cpu"), (self.pids, "pids")];
        let chosen = names.iter().filter(|(has, _)| *has);
        chosen.map(|(_, name)| format!("{sign}{name}")).collect::<Vec<_>>().join(" ")
    }
}

/// The directory of this process's version 2 cgroup.
pub(super) fn own_cgroup() -> Option<PathBuf> {
    let cgroups = proc_file::read(CWD, "/proc/self/cgroup").ok()?;
    let mounts = proc_file::read(CWD, "/proc/self/mountinfo").ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount_point(&mounts)?.join(path))
}

/// The mount point of the whole version 2 hierarchy: a line of `mountinfo` is
/// `id parent device root mount-point options … - type source options`.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (file_system.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })
}

/// Gives controllers to the children of a cgroup.
pub(super) fn enable(path: &Path, controllers: Controllers) -> Result<(), CgroupError> {
    let path = path.join("cgroup.subtree_control");
    proc_file::write(CWD, &path, controllers.signed('+')).map_err(|errno| CgroupError {
        action: "writing",
        path,
        errno,
    })
}

/// Takes controllers from the children of a cgroup. The kernel keeps those that are in use.
pub(super) fn disable(path: &Path, controllers: Controllers) {
    if controllers.any() {
        let _ = proc_file::write(CWD, path.join("cgroup.subtree_control"), controllers.signed('-'));
    }
}

/// One that is left from a server that was killed is as good as new.
pub(super) fn create(directory: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    match rustix::fs::mkdirat(directory, path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// The remains of a killed server; the kernel keeps those that are in use.
pub(super) fn remove_empty_children(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        // Files of a cgroup can't be removed, and need not be.
        let _ = std::fs::remove_dir(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_read_and_enabled() {
        let controllers = Controllers::parse("cpuset cpu io memory hugetlb pids rdma\n");
        assert_eq!(controllers, Controllers { memory: true, cpu: true, pids: true });
        assert_eq!(controllers.signed('+'), "+memory +cpu +pids");
        assert_eq!(Controllers::parse("cpuset io\n"), Controllers::default());
        assert_eq!(Controllers::parse("pids").signed('-'), "-pids");
        assert_eq!(controllers.without(Controllers::parse("cpu pids")).signed('-'), "-memory");
    }

    #[test]
    fn the_mount_of_the_whole_hierarchy_is_found() {
        let mountinfo = "\
            25 1 0:23 / /proc rw,nosuid - proc proc rw\n\
            30 1 0:26 /part /sys/fs/part rw - cgroup2 cgroup2 rw\n\
            31 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mountinfo), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(mount_point("25 1 0:23 / /proc rw - proc proc rw\n"), None);
    }
}
