//! The rights that `serve` needs before anything else: over mounts, namespaces and other users' files.
//! Root has them. Everybody else gets them in a user namespace.

use anyhow::{Context as _, bail};
use rustix::thread::CapabilitySet;

use crate::rootless::{self, Entered};

/// The purpose of each capability; root on a plain host has them all, in
/// a container some may be gone.
const NEEDED: [(CapabilitySet, &str, &str); 7] = [
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN", "to mount and to make namespaces"),
    (CapabilitySet::SETUID, "CAP_SETUID", "to run actions as another user"),
    (CapabilitySet::SETGID, "CAP_SETGID", "to run actions as another group"),
    (CapabilitySet::MKNOD, "CAP_MKNOD", "to make an action's /dev"),
    (CapabilitySet::CHOWN, "CAP_CHOWN", "to take over an action's outputs"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE", "to read an action's outputs"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", "to give actions a loopback device"),
];

/// The way in which this process got its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Privileges {
    /// It was started with them.
    Root,
    /// It has them over a user namespace.
    UserNamespace(Entered),
}

impl Privileges {
    /// Says what is used, and what is weaker than with root.
    pub(crate) fn log(&self) {
        match self {
            Self::Root => {}
            Self::UserNamespace(Entered::TwoIds) => tracing::info!(
                "without root: in a user namespace, and actions run as a user of their own"
            ),
            Self::UserNamespace(Entered::OneId(reason)) => tracing::warn!(
                %reason,
                cure = &*reason.cure(),
                "without root: in a user namespace of one id. Actions run as this server's user: what they \
                 can't see is safe from them, and what they can see they own"
            ),
        }
    }
}

/// Gets the rights over a mount namespace of this process's own. To be called with one thread: those that
/// come are in the same namespaces. Mounts there show nowhere else, and are gone with the process however it
/// ends.
///
/// # Errors
/// Says what is missing, and how to get it.
pub(crate) fn obtain() -> anyhow::Result<Privileges> {
    let Err(lack) = check_root() else {
        sys::mount::enter_private_namespace().context("entering a mount namespace")?;
        return Ok(Privileges::Root);
    };
    let entered = rootless::enter().with_context(|| format!("{lack:#}"))?;
    sys::mount::enter_private_namespace().with_context(rootless::no_rights)?;
    Ok(Privileges::UserNamespace(entered))
}

/// Checks that this process has the rights of root.
fn check_root() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("serve without root needs a user namespace");
    }
    let held = rustix::thread::capabilities(None)?.effective;
    for (capability, name, reason) in NEEDED {
        if !held.contains(capability) {
            bail!(
                "serve needs {name} {reason}, or a user namespace. Root has it unless it was taken away: a \
                 container must be started with --privileged, a service without a CapabilityBoundingSet"
            );
        }
    }
    Ok(())
}
