//! The handling of everything that a process inherits from the place where it is started.
//!
//! A shell, a service manager or a container runtime can leave a daemon with ignored signals, limits
//! and open files that break it hours later. Everything that can be put right is put right here, once
//! and first. `sandbox` does the same for actions, which see nothing of the surroundings.
//!
//! Left as they are: the nice value and the cgroup, by which an operator says what the server may take;
//! the session, so that Ctrl-C reaches a server on a terminal; an ignored SIGHUP, which is `nohup`.

use anyhow::Context as _;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Limits whose soft value a login or a test harness sets for small programs. The daemon reads and
/// writes files of any size for years, and has a descriptor for each connection, blob and mount.
const RAISED: [Resource; 5] =
    [Resource::Nofile, Resource::Fsize, Resource::Cpu, Resource::As, Resource::Data];

/// Must be called first: with one thread, and before anything is opened.
///
/// # Errors
/// Of close_range(2) and setrlimit(2).
pub(crate) fn take_in_hand() -> anyhow::Result<()> {
    sys::process::settle_daemon_signals();
    // Other programs' descriptors: a pipe that one waits for the end of, a lock, a secret. The
    // sockets that systemd hands over are for this process, and stay open.
    sys::process::close_inherited_files(access::inherited_count())
        .context("closing inherited descriptors")?;
    umask(Mode::WGRP | Mode::WOTH);
    for resource in RAISED {
        let Rlimit { maximum, .. } = getrlimit(resource);
        setrlimit(resource, Rlimit { current: maximum, maximum })
            .with_context(|| format!("raising the soft limit {resource:?} to the hard one"))?;
    }
    Ok(())
}
