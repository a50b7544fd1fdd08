//! The checks, in the order of the report.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Context as _;
use inputroot::StrategyName;
use model::Chain;
use rustix::fs::CWD;
use rustix::process::{Resource, getrlimit};
use sandbox::Controllers;
use store::{Journal, Store, StoreOptions};
use sys::proc_file;

use super::cures;
use super::report::{Finding, Weight};
use crate::action_ids::ActionIds;
use crate::privileges::Privileges;
use crate::root_directory::is_in_memory;
use crate::rootless::{self, Entered};
use crate::{helper, runtime_source};

/// Makes every check, with trials in a new directory below `parent`.
pub(super) fn all(
    parent: &Path,
    is_root: bool,
    privileges: &anyhow::Result<Privileges>,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = vec![rights(privileges)];
    findings.extend(own_user(privileges));
    findings.extend(is_root.then(ordinary_users));
    findings.push(kernel());
    findings.extend(NAMESPACES.iter().map(namespace));
    findings.push(seccomp());
    findings.push(landlock());
    if privileges.is_ok() {
        findings.extend(trials(parent)?);
    }
    findings.push(hard_limits());
    findings.extend(controllers());
    findings.push(protected_hardlinks());
    Ok(findings)
}

fn rights(privileges: &anyhow::Result<Privileges>) -> Finding {
    Finding {
        feature: "rights to make sandboxes".to_owned(),
        state: match privileges {
            Ok(Privileges::Root) => Ok("root".to_owned()),
            Ok(Privileges::UserNamespace(_)) => Ok("in a user namespace".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        },
        weight: Weight::Needed,
        cost: "no sandbox can be made; what needs trying is left out above",
        remedy:
            "allow user namespaces as said above, or use sudo or a system service; a container \
                 needs --privileged"
                .into(),
    }
}

/// The finding about what is weaker in a user namespace of one id.
fn own_user(privileges: &anyhow::Result<Privileges>) -> Option<Finding> {
    let Ok(Privileges::UserNamespace(entered)) = privileges else { return None };
    let finding = |state, remedy: Cow<'static, str>| Finding {
        feature: "a user of their own for actions".to_owned(),
        state,
        weight: Weight::Wanted,
        cost: "actions run as the server's user: what they can't see is safe from them, and what they \
               can see they own",
        remedy,
    };
    Some(match entered {
        Entered::TwoIds => finding(Ok(String::new()), "nothing is missing".into()),
        Entered::OneId(reason) => finding(Err(reason.to_string()), reason.cure()),
    })
}

/// Whether `serve` would find a user namespace, if an ordinary user started it.
fn ordinary_users() -> Finding {
    Finding {
        feature: "user namespaces for ordinary users".to_owned(),
        state: rootless::switched_off()
            .map_or(Ok(String::new()), |(switch, _)| Err(switch.to_owned())),
        weight: Weight::Wanted,
        cost: "serve needs root here",
        remedy: rootless::switched_off().map_or("nothing is missing", |(_, cure)| cure).into(),
    }
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    Finding {
        feature: "kernel 6.5 or later".to_owned(),
        state: if is_at_least(&release, (6, 5)) { Ok(release) } else { Err(release) },
        weight: Weight::Wanted,
        cost: "overlayfs has no data-only layers: input roots need a slower strategy, if any works",
        remedy: "install a newer kernel, e.g. from the distribution's backports".into(),
    }
}

/// Compares the beginning of a release such as `6.12.43+deb13-amd64`.
fn is_at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse().ok()).unwrap_or(0);
    (next(), next()) >= wanted
}

/// The namespaces of a sandbox: name below `/proc/self/ns`, kernel option, cost.
const NAMESPACES: [(&str, &str, &str); 6] = [
    ("mnt", "namespaces", "no sandbox can be made"),
    ("pid", "CONFIG_PID_NS", "no sandbox can be made: processes would outlive their action"),
    ("net", "CONFIG_NET_NS", "no sandbox can be made: actions would reach the network"),
    ("ipc", "CONFIG_IPC_NS", "no sandbox can be made: actions would share memory"),
    ("uts", "CONFIG_UTS_NS", "no sandbox can be made: actions would see the host's name"),
    ("user", "CONFIG_USER_NS", "no sandbox can be made: process limits would be shared"),
];

fn namespace(&(name, option, cost): &(&str, &'static str, &'static str)) -> Finding {
    let here = Path::new("/proc/self/ns").join(name).exists();
    let state = if here { Ok(String::new()) } else { Err(format!("no {option}")) };
    Finding {
        feature: format!("{name} namespaces"),
        state,
        weight: Weight::Needed,
        cost,
        remedy: "use a kernel with all namespaces built in, as distributions ship it".into(),
    }
}

fn landlock() -> Finding {
    use sys::landlock::SCOPES_SINCE;
    let version = sys::landlock::version();
    let told = version.map_or_else(|| "none".to_owned(), |version| format!("version {version}"));
    let state =
        if version.is_some_and(|version| version >= SCOPES_SINCE) { Ok(told) } else { Err(told) };
    Finding {
        feature: format!("Landlock, version {SCOPES_SINCE} or later"),
        state,
        weight: Weight::Wanted,
        cost: "namespaces alone keep an action's signals and abstract sockets in",
        remedy: "use kernel 6.12 or later with landlock among its security modules".into(),
    }
}

fn seccomp() -> Finding {
    let actions = proc_file::read(CWD, "/proc/sys/kernel/seccomp/actions_avail");
    Finding {
        feature: "system call filters".to_owned(),
        state: match actions {
            Ok(actions) if actions.split_whitespace().any(|action| action == "errno") => {
                Ok(String::new())
            }
            Ok(actions) => Err(format!("only {}", actions.trim())),
            Err(error) => Err(error.to_string()),
        },
        weight: Weight::Needed,
        cost: "actions could use system calls that no build needs",
        remedy: "use a kernel with CONFIG_SECCOMP_FILTER, as distributions ship it".into(),
    }
}

/// The checks that need a trial: a store, input roots, a sandbox.
fn trials(parent: &Path) -> anyhow::Result<Vec<Finding>> {
    let directory = tempfile::Builder::new()
        .prefix(".actiond-doctor-")
        .tempdir_in(parent)
        .with_context(|| format!("making a directory in {}", parent.display()))?;
    let store = Store::open(&directory.path().join("root"), StoreOptions::default());
    let mut findings = vec![Finding {
        feature: "a store".to_owned(),
        state: store.as_ref().map(|_| parent.display().to_string()).map_err(ToString::to_string),
        weight: Weight::Needed,
        cost: "there is nowhere to keep blobs",
        remedy: "choose another --root: a writable directory on ext4, xfs or btrfs".into(),
    }];
    if let Ok(store) = store {
        findings.push(journal(is_in_memory(directory.path()), Journal::of(store.work_dirfd())));
        findings.extend(input_roots(&store));
        findings.push(host_users(&store));
        store.close().context("closing the store of the trial")?;
    }
    findings.push(sandbox());
    findings.push(runtimes(directory.path()));
    Ok(findings)
}

fn journal(is_in_memory: bool, found: Journal) -> Finding {
    let feature = "a file system that survives a power loss".to_owned();
    if is_in_memory {
        return Finding {
            feature,
            state: Err("a tmpfs".to_owned()),
            weight: Weight::Wanted,
            cost: "the store counts as memory, and is lost at the next boot",
            remedy: "choose a --root on a disk: on ext4, xfs or btrfs".into(),
        };
    }
    Finding {
        feature,
        state: match found {
            Journal::Present => Ok(String::new()),
            Journal::Unknown => Ok("not known".to_owned()),
            Journal::Absent => Err("ext4 without a journal".to_owned()),
        },
        weight: Weight::Wanted,
        cost: "a power loss can cost blobs that were stored long before, whatever --durability says",
        remedy:
            "unmount it and run `tune2fs -O has_journal` on its device, or choose another --root"
                .into(),
    }
}

fn input_roots(store: &Store) -> Vec<Finding> {
    let finding = |report: inputroot::StrategyReport| {
        Finding {
        feature: format!("input roots: {}", report.name),
        state: report.outcome.map(str::to_owned).map_err(|error| Chain(&error).to_string()),
        weight: Weight::OneOf,
        cost: "another strategy is used; the first of those that work is the fastest",
        remedy: match report.name {
            StrategyName::ActiondFs => "none is needed: only the kernel in serve-vm's VM has it",
            StrategyName::TmpfsOverlay => "Linux 6.16, and --root on a disk and not on overlayfs",
            StrategyName::LinkOverlay => "Linux 5.11, and --root on a disk and not on overlayfs",
            StrategyName::Bind => "root, or ids in /etc/subuid and /etc/subgid for this user",
            _ => {
                "root, Linux 6.12 with EROFS and overlayfs, and --root on a disk and not on overlayfs"
            }
        }
        .into(),
    }
    };
    inputroot::probe(store).into_iter().map(finding).collect()
}

/// Whether each sandbox would have a user of the host for itself, with the strategy that `serve` would choose.
fn host_users(store: &Store) -> Finding {
    let tried = || -> anyhow::Result<u32> {
        let input_roots = inputroot::choose(store, None)?;
        let config = sandbox::Config::new(helper::command()?);
        Ok(ActionIds::default().try_out(&config, &*input_roots)?)
    };
    Finding {
        feature: "a user of the host for each sandbox".to_owned(),
        state: tried().map(|first| format!("from {first} on")).map_err(|error| format!("{error:#}")),
        weight: Weight::Wanted,
        cost: "one action can use up what the kernel counts by user: pages in pipes, descriptors in flight, \
               epoll watches, queued signals; others are slowed or refused while it runs",
        remedy: "root on the host, Linux 6.15, --root on a file system with id-mapped mounts (ext4, xfs, btrfs), and \
                 another strategy than bind"
            .into(),
    }
}

fn sandbox() -> Finding {
    let command = helper::command();
    let tried =
        command.and_then(|command| sandbox::Pool::new(sandbox::Config::new(command)).try_out());
    Finding {
        feature: "a sandbox".to_owned(),
        remedy: tried.as_ref().err().map_or("nothing is missing", cures::of).into(),
        state: tried.map(|()| String::new()).map_err(|error| error.to_string()),
        weight: Weight::Needed,
        cost: "no action can run",
    }
}

fn runtimes(trials: &Path) -> Finding {
    let names = runtime_source::names_in_executable(trials);
    Finding {
        feature: "runtimes in this binary".to_owned(),
        state: match names {
            Ok(names) if names.is_empty() => Err("none".to_owned()),
            Ok(names) => Ok(names.join(", ")),
            Err(error) => Err(format!("{error:#}")),
        },
        weight: Weight::Wanted,
        cost: "actions that ask for a C library are refused, unless the server is given some",
        remedy: "use a release's binary, or --runtime-image with what `cargo xtask runtimes` makes"
            .into(),
    }
}

/// Hard limits that are too low, each with what is wanted. The soft ones are raised by `serve`.
fn hard_limits() -> Finding {
    const WANTED: [(Resource, &str, u64); 6] = [
        (Resource::Nofile, "open files (ulimit -n)", 65_536),
        (Resource::Nproc, "processes (ulimit -u)", 4096),
        (Resource::Fsize, "file size (ulimit -f)", u64::MAX),
        (Resource::As, "address space (ulimit -v)", u64::MAX),
        (Resource::Cpu, "CPU time (ulimit -t)", u64::MAX),
        (Resource::Core, "core files (ulimit -c)", 1),
    ];
    let low: Vec<_> = WANTED
        .iter()
        .filter(|(resource, _, wanted)| {
            getrlimit(*resource).maximum.is_some_and(|hard| hard < *wanted)
        })
        .map(|(_, name, _)| *name)
        .collect();
    Finding {
        feature: "resource limits".to_owned(),
        state: if low.is_empty() { Ok(String::new()) } else { Err(low.join(", ")) },
        weight: Weight::Wanted,
        cost: "uploads and actions fail that need more than the hard limit",
        remedy: "raise them where the server is started: `ulimit -H` in a shell of root, \
                 /etc/security/limits.conf for logins, LimitNOFILE=, LimitNPROC=, LimitFSIZE= and the like \
                 in a unit of systemd"
            .into(),
    }
}

/// How this process gets a cgroup with controllers.
fn delegation() -> &'static str {
    if sys::user_namespace::is_initial() {
        "on a host with cgroup v2: systemctl enable --now actiond, or systemd-run -p Delegate=yes \
         linux-actiond serve"
    } else {
        "on a host with cgroup v2: systemctl --user enable --now actiond, or systemd-run --user --scope -p \
         Delegate=yes linux-actiond serve"
    }
}

fn controllers() -> [Finding; 3] {
    let offered = Controllers::offered();
    let finding = |name: &str, here: bool, cost| Finding {
        feature: format!("cgroup v2: {name}"),
        state: if here { Ok(String::new()) } else { Err("not for this process".to_owned()) },
        weight: Weight::Wanted,
        cost,
        remedy: delegation().into(),
    };
    [
        finding(
            "memory",
            offered.memory,
            "a limit holds for each process's address space, not for the action as a whole",
        ),
        finding(
            "cpu",
            offered.cpu,
            "a limit pins the action to so many cores, which it shares with others",
        ),
        finding(
            "pids",
            offered.pids,
            "processes are counted by an rlimit, in the sandbox's own user namespace",
        ),
    ]
}

fn protected_hardlinks() -> Finding {
    let value = proc_file::read(CWD, "/proc/sys/fs/protected_hardlinks");
    Finding {
        feature: "fs.protected_hardlinks".to_owned(),
        state: match value.as_deref().map(str::trim) {
            Ok("1") => Ok(String::new()),
            Ok(other) => Err(format!("is {other}")),
            Err(error) => Err(error.to_string()),
        },
        weight: Weight::Wanted,
        cost: "an action can make hard links to its inputs; it still can't change them",
        remedy: "sysctl fs.protected_hardlinks=1".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        for release in ["6.5", "6.12.43+deb13-amd64", "10.0-rc1", "6.5.0"] {
            assert!(is_at_least(release, (6, 5)), "{release}");
        }
        for release in ["6.4.99", "5.15.0-generic", "", "six"] {
            assert!(!is_at_least(release, (6, 5)), "{release}");
        }
    }
}
