//! The steps of a sandbox's life, as data.
//!
//! A [`Step`] says what is to be done, not how: `lower` turns it into system
//! calls, `wire` into bytes. [`StepName`] is what is left of a step in an error.

use std::fmt;

use sys::call::Resource;
use sys::strings::Strings;

/// Who carries a step out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// PID 1 of the sandbox, with privileges.
    Init,
    /// PID 1 once the action can start, to give its privileges up.
    InitAfterwards,
    /// The process that becomes the action.
    Action,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the present cgroup the root of what the action sees of cgroups.
    NewCgroupNamespace,
    /// A `/proc` of the new PID namespace.
    MountProc,
    /// `/tmp` (to which `/var/tmp` points): so many bytes and inodes at most.
    MountTmp {
        /// Bytes.
        bytes: u64,
        /// Files, directories and everything else with an inode.
        inodes: u64,
    },
    /// `/dev/shm`, likewise.
    MountShm {
        /// Bytes.
        bytes: u64,
        /// Inodes.
        inodes: u64,
    },
    /// A session without a terminal.
    NewSession,
    /// No supplementary groups.
    DropGroups,
    /// The action's group.
    SetGroup,
    /// The action's user.
    SetUser,
    /// All capability sets empty.
    DropCapabilities,
    /// No execve(2) may gain anything.
    NoNewPrivileges,
    /// The system call filter.
    Filter,
    /// The input root at `/execroot`.
    AttachInputRoot,
    /// PID 1 has no use for its capabilities and descriptors any more.
    ConfineInit,
    /// A resource limit, soft and hard.
    Limit {
        /// Of what.
        resource: Resource,
        /// In the resource's own unit.
        value: u64,
    },
    /// Run on these CPUs only: one bit each, 64 a word.
    RunOn {
        /// The words.
        mask: Vec<u64>,
    },
    /// Standard output and error, and no other descriptor above standard input.
    Streams,
    /// The working directory, an absolute path.
    EnterDirectory {
        /// One string.
        path: Strings,
    },
    /// Become the action.
    Execute {
        /// Paths to try, relative to the working directory or absolute.
        candidates: Strings,
        /// argv.
        arguments: Strings,
        /// `NAME=value` each.
        environment: Strings,
    },
}

impl Step {
    /// Who carries it out.
    pub fn actor(&self) -> Actor {
        match self {
            Self::NewCgroupNamespace
            | Self::MountProc
            | Self::MountTmp { .. }
            | Self::MountShm { .. }
            | Self::AttachInputRoot => Actor::Init,
            Self::ConfineInit => Actor::InitAfterwards,
            _ => Actor::Action,
        }
    }

    /// Its name in errors.
    pub fn name(&self) -> StepName {
        match self {
            Self::NewCgroupNamespace => StepName::NewCgroupNamespace,
            Self::MountProc => StepName::MountProc,
            Self::MountTmp { .. } => StepName::MountTmp,
            Self::MountShm { .. } => StepName::MountShm,
            Self::NewSession => StepName::NewSession,
            Self::DropGroups => StepName::DropGroups,
            Self::SetGroup => StepName::SetGroup,
            Self::SetUser => StepName::SetUser,
            Self::DropCapabilities => StepName::DropCapabilities,
            Self::NoNewPrivileges => StepName::NoNewPrivileges,
            Self::Filter => StepName::Filter,
            Self::AttachInputRoot => StepName::AttachInputRoot,
            Self::ConfineInit => StepName::ConfineInit,
            Self::Limit { .. } => StepName::Limit,
            Self::RunOn { .. } => StepName::RunOn,
            Self::Streams => StepName::Streams,
            Self::EnterDirectory { .. } => StepName::EnterDirectory,
            Self::Execute { .. } => StepName::Execute,
        }
    }
}

macro_rules! step_names {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $words:literal;)*) => {
        /// Where a set-up stopped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum StepName {
            $($(#[$doc])* $name = $number,)*
        }

        impl StepName {
            /// Reads what [`StepName::number`] wrote.
            pub fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
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
    /// In PID 1: cloning the action's process, waiting for it.
    Init = 0, "run PID 1";
    /// [`Step::NewCgroupNamespace`]
    NewCgroupNamespace = 1, "create a cgroup namespace";
    /// [`Step::MountProc`]
    MountProc = 2, "mount /proc";
    /// [`Step::MountTmp`]
    MountTmp = 3, "mount /tmp";
    /// [`Step::MountShm`]
    MountShm = 4, "mount /dev/shm";
    /// [`Step::NewSession`]
    NewSession = 5, "create a session";
    /// [`Step::DropGroups`]
    DropGroups = 7, "drop supplementary groups";
    /// [`Step::SetGroup`]
    SetGroup = 8, "set the group";
    /// [`Step::SetUser`]
    SetUser = 9, "set the user";
    /// [`Step::DropCapabilities`]
    DropCapabilities = 11, "drop capabilities";
    /// [`Step::NoNewPrivileges`]
    NoNewPrivileges = 12, "set no_new_privs";
    /// [`Step::Filter`]
    Filter = 13, "install the system call filter";
    /// [`Step::AttachInputRoot`]
    AttachInputRoot = 14, "attach the input root";
    /// [`Step::ConfineInit`]
    ConfineInit = 15, "drop the privileges of PID 1";
    /// [`Step::Limit`]
    Limit = 16, "set a resource limit";
    /// [`Step::RunOn`]
    RunOn = 17, "set the CPU affinity";
    /// [`Step::Streams`]
    Streams = 18, "set up standard streams";
    /// [`Step::EnterDirectory`]
    EnterDirectory = 19, "enter the working directory";
    /// [`Step::Execute`]
    Execute = 20, "execve";
    /// Daemon: creating pipes or the packet for an action.
    Request = 32, "send the action to the sandbox helper";
    /// Daemon: making the detached mounts of a root view.
    CloneView = 33, "clone a mount of the root view";
    /// Daemon: starting the helper.
    Spawn = 34, "start the sandbox helper";
    /// Daemon: ending an action; what does not die hangs in the kernel.
    Kill = 36, "kill the action";
    /// Daemon: a cgroup for the action.
    Cgroup = 35, "create a cgroup";
    /// Helper: first things.
    Isolate = 64, "isolate the sandbox helper";
    /// Helper: namespaces of its own.
    Namespaces = 65, "create namespaces";
    /// Helper: the user namespace that actions join.
    UserNamespace = 66, "create the user namespace";
    /// Helper: a network with nothing but a loopback.
    Network = 67, "set up the network namespace";
    /// Helper: the tmpfs that is the root.
    TemplateRoot = 68, "create the root";
    /// Helper: device nodes.
    Devices = 69, "create /dev";
    /// Helper: files and symlinks of the root view.
    Files = 70, "create the root's files";
    /// Helper: mounts of the root view.
    ViewMounts = 71, "attach the root view";
    /// Helper: making it the root.
    PivotRoot = 72, "enter the root";
    /// Helper: cloning PID 1.
    Clone = 73, "clone PID 1";
    /// Helper: PID 1 ended before an action was given to it.
    Prepare = 74, "prepare PID 1";
    /// Helper: a packet that makes no sense.
    Protocol = 75, "understand the daemon";
}

impl StepName {
    /// The number that stands for it on the wire and in a program's labels.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Whether it fails because of what the command asks for.
    pub fn is_about_command(self) -> bool {
        matches!(self, Self::EnterDirectory | Self::Execute)
    }
}
