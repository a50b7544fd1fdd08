//! The options of a container without which `serve` can't make sandboxes in it.
//!
//! Docker and Podman filter system calls and mount over parts of `/proc`. The filter refuses namespaces, and the
//! kernel gives a fresh `/proc` only to those who can see all of one.

use rustix::fs::CWD;
use sys::proc_file;

/// An obstacle to sandboxes in a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Obstacles {
    /// System calls are filtered.
    has_filter: bool,
    /// Something is mounted over a part of `/proc`.
    has_covered_proc: bool,
}

impl Obstacles {
    /// Those of this process.
    pub(crate) fn here() -> Self {
        let read = |path| proc_file::read(CWD, path).unwrap_or_default();
        Self::of(&read("/proc/self/status"), &read("/proc/self/mountinfo"))
    }

    fn of(status: &str, mountinfo: &str) -> Self {
        let filter = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        Self {
            has_filter: filter.is_some_and(|mode| mode.trim() == "2"),
            has_covered_proc: mountinfo.lines().any(covers_proc),
        }
    }

    /// The cure, as an instruction.
    pub(crate) fn cure(self) -> &'static str {
        match (self.has_filter, self.has_covered_proc) {
            (true, true) => {
                "a container needs --security-opt seccomp=unconfined, and Podman --security-opt unmask=ALL, Docker \
                 --security-opt systempaths=unconfined; a service no SystemCallFilter= and no ProtectKernelTunables=, \
                 ProtectKernelLogs= or ProtectProc="
            }
            (true, false) => {
                "a container needs --security-opt seccomp=unconfined, a service no SystemCallFilter="
            }
            (false, true) => {
                "a container needs all of /proc: --security-opt unmask=ALL for Podman, --security-opt \
                 systempaths=unconfined for Docker; a service no ProtectKernelTunables=, ProtectKernelLogs= or \
                 ProtectProc="
            }
            (false, false) => {
                "a security module restricts this user namespace; a container needs --privileged"
            }
        }
    }
}

/// Whether a line of mountinfo is a mount over a part of `/proc`. That of binfmt_misc is on every system, over a
/// directory that is always empty.
fn covers_proc(line: &str) -> bool {
    let place = line.split(' ').nth(4).unwrap_or_default();
    place.starts_with("/proc/") && place != "/proc/sys/fs/binfmt_misc"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_names_the_options_that_are_missing() {
        let host = "30 1 0:26 / /proc rw,nosuid - proc proc rw\n\
                    31 30 0:27 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n\
                    32 1 0:28 / /process rw - tmpfs tmpfs rw\n";
        let podman = "99 98 0:46 / /proc rw - proc proc rw\n\
                      113 99 0:6 /null /proc/keys ro - devtmpfs devtmpfs rw\n";
        let (open, filtered) = ("Name:\ta\nSeccomp:\t0\n", "Seccomp:\t2\nSeccomp_filters:\t1\n");
        for (status, mountinfo, has_filter, has_covered_proc) in [
            (open, host, false, false),
            (filtered, host, true, false),
            (open, podman, false, true),
            (filtered, podman, true, true),
        ] {
            let obstacles = Obstacles::of(status, mountinfo);
            assert_eq!(obstacles, Obstacles { has_filter, has_covered_proc });
            let cure = obstacles.cure();
            assert_eq!(cure.contains("seccomp=unconfined"), has_filter, "{cure}");
            assert_eq!(cure.contains("unmask=ALL"), has_covered_proc, "{cure}");
            assert_eq!(cure.contains("systempaths=unconfined"), has_covered_proc, "{cure}");
        }
    }
}
