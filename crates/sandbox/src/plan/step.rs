//! The steps of a sandbox's life, as data.
//!
//! A step says what to do, not how: `lower` turns steps into system calls. There is one type per
//! process and phase, so that a step cannot end up in the wrong one, and every match over them is
//! exhaustive: a new step does not compile before each of them handles it. [`StepName`] is what an
//! error tells of a step.

use std::fmt;

use serde::{Deserialize, Serialize};
use sys::strings::Strings;

use crate::plan::hidden::Hidden;

/// A step of PID 1 before the action is known, with privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitPreparation {
    /// Makes the present cgroup the root of the cgroups that the action sees.
    NewCgroupNamespace,
    /// Mounts the `/proc` of the new PID namespace.
    MountProc,
    /// Covers an entry of `/proc`.
    Hide(Hidden),
    /// Mounts `/tmp`, to which `/var/tmp` points.
    MountTmp(TmpfsSize),
    /// Mounts `/dev/shm`.
    MountShm(TmpfsSize),
}

/// The steps of the action's process before the action is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActionPreparation {
    /// Starts a session without a terminal.
    NewSession,
    /// Leaves all supplementary groups.
    DropGroups,
    /// Becomes the action's group.
    SetGroup,
    /// Becomes the action's user.
    SetUser,
    /// Empties all capability sets.
    DropCapabilities,
    /// Rules out that an execve(2) gains privileges.
    NoNewPrivileges,
    /// Installs the part of the system call filter that is not inherited.
    Filter,
}

/// A step of PID 1 for one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InitStep {
    /// Attaches the input root at `/execroot`; the action waits for it.
    AttachInputRoot,
    /// Puts another mount of the input root on top of it. The server does not see mounts below that
    /// one, nor changes of it: it reads outputs from the one that it attached.
    CoverInputRoot,
    /// Closes directories of the input root for writes, and leaves others in them open. Absolute paths,
    /// each before those below it, and for each of them whether it is closed.
    CloseSubtrees { paths: Strings, are_closed: Vec<bool> },
    /// Makes the input root, which is attached, the root of all processes in the sandbox, with the
    /// sandbox's own `/dev`, `/proc` and `/tmp` in it.
    EnterInputRoot,
    /// Gives up capabilities and descriptors, once the action can start.
    Confine,
}

/// The steps of the action's process for one action, after its preparation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ActionStep {
    /// Limits the processes and threads of the action's user in this sandbox.
    LimitProcesses(u64),
    /// Limits the address space of each process, in bytes.
    LimitAddressSpace(u64),
    /// Stays on these CPUs: one bit each, 64 a word.
    RunOn { mask: Vec<u64> },
    /// Takes the standard streams, and closes every descriptor above them.
    Streams,
    /// Makes standard input, which is a terminal, the terminal of the session.
    Terminal,
    /// Enters the working directory, an absolute path.
    EnterDirectory { path: Strings },
}

/// The last step: the execve(2) that makes the action's process the action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Execute {
    /// Paths to try, relative to the working directory or absolute.
    pub(crate) candidates: Strings,
    /// argv.
    pub(crate) arguments: Strings,
    /// `NAME=value` each.
    pub(crate) environment: Strings,
}

/// The bounds of a tmpfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TmpfsSize {
    pub(crate) bytes: u64,
    /// Files, directories and everything else with an inode.
    pub(crate) inodes: u64,
}

impl InitPreparation {
    pub(crate) fn name(self) -> StepName {
        match self {
            Self::NewCgroupNamespace => StepName::NewCgroupNamespace,
            Self::MountProc => StepName::MountProc,
            Self::Hide(_) => StepName::Hide,
            Self::MountTmp(_) => StepName::MountTmp,
            Self::MountShm(_) => StepName::MountShm,
        }
    }
}

impl ActionPreparation {
    pub(crate) fn name(self) -> StepName {
        match self {
            Self::NewSession => StepName::NewSession,
            Self::DropGroups => StepName::DropGroups,
            Self::SetGroup => StepName::SetGroup,
            Self::SetUser => StepName::SetUser,
            Self::DropCapabilities => StepName::DropCapabilities,
            Self::NoNewPrivileges => StepName::NoNewPrivileges,
            Self::Filter => StepName::Filter,
        }
    }
}

impl InitStep {
    pub(crate) fn name(&self) -> StepName {
        match self {
            Self::AttachInputRoot => StepName::AttachInputRoot,
            Self::CoverInputRoot => StepName::CoverInputRoot,
            Self::CloseSubtrees { .. } => StepName::CloseSubtrees,
            Self::EnterInputRoot => StepName::EnterInputRoot,
            Self::Confine => StepName::ConfineInit,
        }
    }
}

impl ActionStep {
    pub(crate) fn name(&self) -> StepName {
        match self {
            Self::LimitProcesses(_) | Self::LimitAddressSpace(_) => StepName::Limit,
            Self::RunOn { .. } => StepName::RunOn,
            Self::Streams => StepName::Streams,
            Self::Terminal => StepName::Terminal,
            Self::EnterDirectory { .. } => StepName::EnterDirectory,
        }
    }
}

macro_rules! step_names {
    ($($(#[$doc:meta])* $name:ident, $words:literal;)*) => {
        /// The step at which a sandbox failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[repr(u16)]
        pub enum StepName {
            $($(#[$doc])* $name,)*
        }

        impl StepName {
            const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for StepName {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $words,)*
                })
            }
        }
    };
}

step_names! {
    /// PID 1: clones the action's process and waits for it.
    Init, "run PID 1";
    /// PID 1: makes its cgroup the root of what the action sees.
    NewCgroupNamespace, "create a cgroup namespace";
    /// PID 1: mounts `/proc`.
    MountProc, "mount /proc";
    /// PID 1: covers entries of `/proc`.
    Hide, "hide entries of /proc";
    /// PID 1: mounts `/tmp`.
    MountTmp, "mount /tmp";
    /// PID 1: mounts `/dev/shm`.
    MountShm, "mount /dev/shm";
    /// Action: starts a session.
    NewSession, "create a session";
    /// Action: leaves all supplementary groups.
    DropGroups, "drop supplementary groups";
    /// Action: sets its group.
    SetGroup, "set the group";
    /// Action: sets its user.
    SetUser, "set the user";
    /// Action: empties its capability sets.
    DropCapabilities, "drop capabilities";
    /// Action: rules out new privileges.
    NoNewPrivileges, "set no_new_privs";
    /// Helper or action: installs a system call filter.
    Filter, "install the system call filter";
    /// PID 1: attaches the input root.
    AttachInputRoot, "attach the input root";
    /// PID 1: mounts the input root a second time.
    CoverInputRoot, "mount the input root a second time";
    /// PID 1: makes directories of the input root read-only.
    CloseSubtrees, "mount directories of the input root read-only";
    /// PID 1: makes the input root the root.
    EnterInputRoot, "enter the input root";
    /// PID 1: gives up its privileges.
    ConfineInit, "drop the privileges of PID 1";
    /// Action: sets a resource limit.
    Limit, "set a resource limit";
    /// Action: sets its CPU affinity.
    RunOn, "set the CPU affinity";
    /// Action: takes its standard streams.
    Streams, "set up standard streams";
    /// Action: takes its terminal.
    Terminal, "take the terminal";
    /// Action: enters its working directory.
    EnterDirectory, "enter the working directory";
    /// Action: executes its program.
    Execute, "execve";
    /// Daemon: creates pipes and the packet for an action, and sends it.
    Request, "send the action to the sandbox helper";
    /// Daemon: creates the detached mounts of a root file system.
    CloneView, "clone a mount of the root file system";
    /// Daemon: copies the helper's program to sealed memory.
    SealHelper, "copy the sandbox helper to sealed memory";
    /// Daemon: starts the helper.
    Spawn, "start the sandbox helper";
    /// Daemon: creates a cgroup for the action.
    Cgroup, "create a cgroup";
    /// Daemon: ends an action; a process that survives hangs in the kernel.
    Kill, "kill the action";
    /// Helper: sets the attributes that all its processes inherit.
    Isolate, "isolate the sandbox helper";
    /// Helper: creates its own namespaces.
    Namespaces, "create namespaces";
    /// Helper: creates the user namespace of its actions.
    UserNamespace, "create the user namespace";
    /// Helper: creates a network with nothing but a loopback.
    Network, "set up the network namespace";
    /// Helper: creates the tmpfs that is the root.
    TemplateRoot, "create the root";
    /// Helper: creates device nodes.
    Devices, "create /dev";
    /// Helper: creates the files and symlinks of the root file system.
    Files, "create the root's files";
    /// Helper: attaches the mounts of the root file system.
    ViewMounts, "attach the root file system";
    /// Helper: makes the new root its root.
    PivotRoot, "enter the root";
    /// Helper: clones PID 1.
    Clone, "clone PID 1";
    /// Helper: PID 1 ended before it got an action.
    Prepare, "prepare PID 1";
    /// Helper or daemon: received a packet that makes no sense.
    Protocol, "understand the peer";
}

impl StepName {
    /// The number that labels a step in a program.
    pub(crate) fn number(self) -> u16 {
        self as u16
    }

    /// The step that [`Self::number`] labelled.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether it fails because of what the command asks for.
    pub fn is_about_command(self) -> bool {
        matches!(self, Self::EnterDirectory | Self::Execute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_its_step() {
        for name in StepName::ALL {
            assert_eq!(StepName::from_number(name.number()), Some(*name));
        }
        assert_eq!(StepName::from_number(StepName::ALL.len() as u16), None);
    }
}
