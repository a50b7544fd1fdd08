//! The cures for a sandbox that can't be made, by the step that failed.

use rustix::io::Errno;
use sandbox::{RunError, StepName};

use crate::container::Obstacles;

/// The cure, as an instruction.
pub(super) fn of(error: &RunError) -> &'static str {
    match (error.step(), error.errno()) {
        (StepName::UserNamespace, Errno::PERM) => {
            "start the server outside of chroot(8), which rules out user namespaces; otherwise set \
             kernel.unprivileged_userns_clone=1"
        }
        (StepName::UserNamespace, Errno::NOSPC | Errno::USERS) => {
            "raise the sysctl user.max_user_namespaces"
        }
        (StepName::Namespaces | StepName::Network, Errno::NOSPC | Errno::USERS) => {
            "raise the sysctls user.max_mnt_namespaces, user.max_uts_namespaces and \
             user.max_net_namespaces"
        }
        (StepName::PivotRoot | StepName::TemplateRoot, Errno::INVAL) => {
            "start the server on a mount point: outside of chroot(8) and of an initramfs"
        }
        (StepName::Spawn | StepName::Clone, Errno::AGAIN) => {
            "raise the limits of processes: ulimit -u, TasksMax= of the service, pids.max of the \
             container"
        }
        (StepName::SealHelper, Errno::ACCESS) => "set the sysctl vm.memfd_noexec to 0 or 1",
        (_, Errno::PERM | Errno::ACCESS) if !sys::user_namespace::is_initial() => {
            Obstacles::here().cure()
        }
        (_, Errno::PERM | Errno::ACCESS) => {
            "start the server as root; a container needs --privileged, a service no \
             CapabilityBoundingSet= and no SystemCallFilter="
        }
        (_, Errno::NOMEM | Errno::NOSPC) => "free memory: the kernel has none left for a sandbox",
        (_, Errno::NOSYS | Errno::INVAL) => {
            "use a kernel with all namespaces built in, version 6.5 or later"
        }
        _ => "`linux-actiond doctor` tells what this machine lacks",
    }
}
