//! What `serve` needs from the machine before anything else.

use anyhow::bail;
use rustix::thread::CapabilitySet;

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

/// Checks that sandboxes can be made at all.
///
/// # Errors
/// Says what is missing, and how to get it.
pub fn check() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "serve needs root: it makes namespaces and mounts, and runs each action as an \
             unprivileged user. Start it with sudo, or as a system service"
        );
    }
    let held = rustix::thread::capabilities(None)?.effective;
    for (capability, name, reason) in NEEDED {
        if !held.contains(capability) {
            bail!(
                "serve needs {name} {reason}. Root has it unless it was taken away: a container \
                 must be started with --privileged, a service without a CapabilityBoundingSet"
            );
        }
    }
    Ok(())
}
