//! A user namespace for a daemon that was not started as root.
//!
//! ```text
//! the daemon                              a child, in the namespace that the daemon was started in
//! forks it           ──────────────────►  waits
//! unshare(CLONE_NEWUSER)
//! says so            ──────────────────►  maps ids, as it may:
//!                                         two  0 -> the user, 65534 -> another    by itself, or by newuidmap
//! maps one id itself ◄──────────────────  one  0 -> the user
//! ```
//!
//! With two ids, actions run as a user of their own, as in root mode. With one, they run as the user who
//! started the daemon, and what keeps them from its files and processes is what they can see.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context as _, bail};
use model::ACTION_ID;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, UnshareFlags};
use sys::proc_file;

/// The result of entering a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entered {
    /// Actions have a user of their own.
    TwoIds,
    /// They have the daemon's, for this reason.
    OneId(OneId),
}

/// The reason why there is one id only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum OneId {
    /// `/etc/subuid` or `/etc/subgid` has no ids for this user.
    NoSubordinateIds = 1,
    /// The programs that map subordinate ids are not installed.
    NoProgram = 2,
    /// They failed.
    Refused = 3,
}

impl fmt::Display for OneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSubordinateIds => "/etc/subuid and /etc/subgid have no ids for this user",
            Self::NoProgram => "newuidmap and newgidmap are not installed",
            Self::Refused => "newuidmap and newgidmap refused to map the subordinate ids",
        })
    }
}

impl OneId {
    /// The cure, as an instruction.
    pub(crate) fn cure(self) -> Cow<'static, str> {
        match self {
            Self::NoSubordinateIds => {
                let read = |file| std::fs::read_to_string(file).unwrap_or_default();
                let first = free_range(&[read("/etc/subuid"), read("/etc/subgid")]);
                let range = format!("{first}-{}", first + (RANGE_IDS - 1));
                format!("sudo usermod --add-subuids {range} --add-subgids {range} $USER").into()
            }
            Self::NoProgram => "sudo apt-get install uidmap (shadow-utils on Fedora)".into(),
            Self::Refused => {
                "see their message above, and check /etc/subuid and /etc/subgid".into()
            }
        }
    }
}

/// Enters a user namespace and becomes root in it. To be called with one thread.
///
/// # Errors
/// When the machine allows none, with the cure.
pub(crate) fn enter() -> anyhow::Result<Entered> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let may_map_root = held.is_ok_and(|held| held.contains(CapabilitySet::SETFCAP));
    let (mapper_reads, daemon_writes) = rustix::pipe::pipe().context("making a pipe")?;
    let daemon = rustix::process::getpid();
    let mapper = sys::process::fork(|| match is_wanted(daemon, &mapper_reads) {
        Ok(true) => map_two(daemon, user, group).map_or_else(|reason| reason as i32, |()| 0),
        _ => UNWANTED,
    })
    .context("starting a process that maps ids")?;
    let unshared = sys::process::unshare_namespaces(UnshareFlags::NEWUSER);
    let is_made = u8::from(unshared.is_ok());
    rustix::io::write(&daemon_writes, &[is_made]).context("writing to a pipe")?;
    let code = exit_code(mapper)?;
    unshared.map_err(|errno| anyhow::Error::new(errno).context(no_namespace(errno)))?;
    let reason = match code {
        0 => return Ok(Entered::TwoIds),
        1 => OneId::NoSubordinateIds,
        2 => OneId::NoProgram,
        3 => OneId::Refused,
        _ => bail!("the process that maps ids ended with {code}"),
    };
    map_one(user, group).map_err(|errno| {
        // capabilities(7): a namespace in which root is mapped could give files rights outside.
        let is_root_alone = user == 0 && !may_map_root;
        let reason = if is_root_alone { NO_SETFCAP.to_owned() } else { no_rights() };
        anyhow::Error::new(errno).context(reason)
    })?;
    Ok(Entered::OneId(reason))
}

/// The exit code of a mapper that was not needed.
const UNWANTED: i32 = 64;

/// In the child: waits until the daemon says whether it has a namespace.
fn is_wanted(daemon: Pid, reader: &OwnedFd) -> Result<bool, Errno> {
    // The child has a copy of the daemon's end too, and would wait for itself.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(daemon) {
        return Ok(false);
    }
    let mut is_made = [0];
    rustix::io::retry_on_intr(|| rustix::io::read(reader, &mut is_made))?;
    Ok(is_made == [1])
}

fn exit_code(child: Pid) -> anyhow::Result<i32> {
    let wait = || rustix::process::waitpid(Some(child), WaitOptions::empty());
    let ended = rustix::io::retry_on_intr(wait).context("waiting for the process that maps ids")?;
    let code = ended.and_then(|(_, status)| status.exit_status());
    code.context("the process that maps ids was killed")
}

/// In the child: maps a second id, as far as this machine lets it.
fn map_two(daemon: Pid, user: u32, group: u32) -> Result<(), OneId> {
    if map_by_right(daemon, user, group) {
        return Ok(());
    }
    let user_range = first_subordinate("/etc/subuid", user).ok_or(OneId::NoSubordinateIds)?;
    let group_range = first_subordinate("/etc/subgid", user).ok_or(OneId::NoSubordinateIds)?;
    // Groups first: as long as no user is mapped, one id can be mapped instead.
    run_mapper("newgidmap", daemon, group, group_range)?;
    run_mapper("newuidmap", daemon, user, user_range)
}

/// Maps the action's id to itself, for a process that has the right to change to it, such as root in a
/// container.
fn map_by_right(daemon: Pid, user: u32, group: u32) -> bool {
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    if !held.is_ok_and(|held| held.contains(needed)) || [user, group].contains(&ACTION_ID) {
        return false;
    }
    let daemon = daemon.as_raw_nonzero();
    let write = |file: &str, id: u32| {
        let map = format!("0 {id} 1\n{ACTION_ID} {ACTION_ID} 1\n");
        proc_file::write(CWD, format!("/proc/{daemon}/{file}"), map)
    };
    write("gid_map", group).is_ok() && write("uid_map", user).is_ok()
}

/// The first id that a file such as `/etc/subuid` gives to a user.
fn first_subordinate(file: &str, user: u32) -> Option<u32> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let text = std::fs::read_to_string(file).ok()?;
    first_in(&text, user, name_in(&passwd, user))
}

/// The number of subordinate ids that a user gets, as useradd(8) gives them out.
const RANGE_IDS: u64 = 65_536;

/// The first of some ids that nobody has, above those that the files give to users: two users with the same ids could
/// reach each other's files.
fn free_range(files: &[String]) -> u64 {
    const FIRST: u64 = 100_000;
    let end = |line: &str| {
        let mut fields = line.split(':').skip(1);
        let first: u64 = fields.next()?.parse().ok()?;
        first.checked_add(fields.next()?.trim().parse().ok()?)
    };
    let ends = files.iter().flat_map(|text| text.lines()).filter_map(end);
    ends.filter(|end| u32::try_from(end + RANGE_IDS).is_ok()).max().unwrap_or(FIRST).max(FIRST)
}

fn name_in(passwd: &str, user: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>() == Ok(user)).then_some(name)
    })
}

/// Lines have the form `NAME-OR-UID:FIRST:COUNT`.
fn first_in(text: &str, user: u32, name: Option<&str>) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let is_ours = Some(owner) == name || owner.parse::<u32>() == Ok(user);
        let first: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        (is_ours && count > 0).then_some(first)
    })
}

fn run_mapper(program: &str, daemon: Pid, own: u32, subordinate: u32) -> Result<(), OneId> {
    let ids = [0, own, 1, ACTION_ID, subordinate, 1].map(|id| id.to_string());
    let status = Command::new(program)
        .arg(daemon.as_raw_nonzero().to_string())
        .args(ids.map(OsString::from))
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(OneId::Refused),
        Err(_) => Err(OneId::NoProgram),
    }
}

/// Without a right to more, a process may map itself, once it can't change its groups any more.
fn map_one(user: u32, group: u32) -> Result<(), Errno> {
    match proc_file::write(CWD, "/proc/self/gid_map", format!("0 {group} 1\n")) {
        // The child has mapped groups, and failed later.
        Ok(()) => {}
        Err(Errno::PERM) => {
            proc_file::write(CWD, "/proc/self/setgroups", "deny")?;
            proc_file::write(CWD, "/proc/self/gid_map", format!("0 {group} 1\n"))?;
        }
        Err(errno) => return Err(errno),
    }
    proc_file::write(CWD, "/proc/self/uid_map", format!("0 {user} 1\n"))
}

/// Why the kernel refuses a user namespace, and the cure.
fn no_namespace(errno: Errno) -> String {
    let cure = match errno {
        Errno::NOSPC | Errno::USERS => MAX_NAMESPACES.1,
        Errno::PERM if is_off(CLONE_SWITCH) => ORDINARY_USERS.1,
        Errno::PERM => {
            "a container needs --security-opt seccomp=unconfined; in a chroot there are none"
        }
        _ => "use a kernel with CONFIG_USER_NS, as distributions ship it",
    };
    format!("this machine makes no user namespace ({cure})")
}

/// The namespace was made, and gives no rights.
pub(crate) fn no_rights() -> String {
    let cure = if is_restricted() { APPARMOR.1 } else { "a security module restricts them" };
    format!("user namespaces have no rights here ({cure})")
}

/// A setting that keeps ordinary users from having user namespaces with rights, and its cure.
pub(crate) fn switched_off() -> Option<(&'static str, &'static str)> {
    if is_off("/proc/sys/user/max_user_namespaces") {
        Some(MAX_NAMESPACES)
    } else if is_off(CLONE_SWITCH) {
        Some(ORDINARY_USERS)
    } else if is_restricted() {
        Some(APPARMOR)
    } else {
        None
    }
}

const NO_SETFCAP: &str = "root without CAP_SETFCAP has no rights in a user namespace (a container needs \
                          --cap-add=SETFCAP, or another user: --user 1000)";
const MAX_NAMESPACES: (&str, &str) =
    ("user.max_user_namespaces is too low", "sudo sysctl user.max_user_namespaces=15000");
const ORDINARY_USERS: (&str, &str) =
    ("kernel.unprivileged_userns_clone is 0", "sudo sysctl kernel.unprivileged_userns_clone=1");
const APPARMOR: (&str, &str) = (
    "AppArmor restricts them",
    "install the package, whose profile allows them to this program, or \
     sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
);

/// Debian's switch.
const CLONE_SWITCH: &str = "/proc/sys/kernel/unprivileged_userns_clone";
/// Ubuntu's switch, from 24.04 on.
const APPARMOR_SWITCH: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

fn is_restricted() -> bool {
    proc_file::read(CWD, APPARMOR_SWITCH).is_ok_and(|value| value.trim() == "1")
}

fn is_off(switch: &str) -> bool {
    proc_file::read(CWD, switch).is_ok_and(|value| value.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_belong_to_a_name_or_a_number() {
        let check = |text: &str, name: Option<&str>, expected: Option<u32>| {
            assert_eq!(first_in(text, 1000, name), expected, "{text:?} for {name:?}");
        };
        check("me:100000:65536\n", Some("me"), Some(100_000));
        check("other:100000:65536\nme:165536:65536\n", Some("me"), Some(165_536));
        check("1000:200000:1\n", None, Some(200_000));
        check("me:100000:65536\n", None, None);
        check("me:100000:0\nme:300000:5\n", Some("me"), Some(300_000));
        check("me:x:65536\nme\n\n# me:1:2\n", Some("me"), None);
    }

    #[test]
    fn a_free_range_is_nobodys() {
        let check = |texts: &[&str], expected: u64| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(free_range(&texts), expected, "{texts:?}");
        };
        check(&["", ""], 100_000);
        check(&["other:1000:10\n", "broken\n\nother:x:1\n"], 100_000);
        check(&["other:100000:65536\n", "other:100000:65536\n"], 165_536);
        check(&["a:100000:65536\nb:231072:65536\n", "a:100000:65536\n"], 296_608);
        // The ids of directory services, up to the end.
        check(&["a:100000:65536\nb:4294901760:65535\n", ""], 165_536);
        check(&["a:100000:18446744073709551615\n"], 100_000);
    }

    #[test]
    fn a_user_has_the_name_that_the_list_says() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:100::/home/me:/bin/sh\nbroken\n";
        assert_eq!(name_in(passwd, 1000), Some("me"));
        assert_eq!(name_in(passwd, 100), None);
    }
}
