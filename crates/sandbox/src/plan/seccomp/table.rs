//! System call numbers of the architectures that an action can use.

/// An ABI of system calls.
#[cfg_attr(not(test), allow(dead_code, reason = "each build runs on one machine, tests know all"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    /// 32-bit programs on x86_64.
    I386,
    Aarch64,
}

impl Architecture {
    /// The one that this code is compiled for.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn native() -> Self {
        Self::X86_64
    }

    /// The one that this code is compiled for.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn native() -> Self {
        Self::Aarch64
    }

    /// The other one whose programs the kernel may run beside it.
    pub(super) fn compatible(self) -> Option<Self> {
        (self == Self::X86_64).then_some(Self::I386)
    }

    /// `AUDIT_ARCH_*` of linux/audit.h.
    pub(super) fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of a call, if the architecture has it.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let (_, numbers) = NUMBERS.iter().find(|(known, _)| *known == name)?;
        let [x86_64, i386, aarch64] = *numbers;
        let number = match self {
            Self::X86_64 => x86_64,
            Self::I386 => i386,
            Self::Aarch64 => aarch64,
        };
        u32::try_from(number).ok()
    }
}

const NONE: i32 = -1;

/// x86_64, i386, aarch64.
pub(super) static NUMBERS: &[(&str, [i32; 3])] = &[
    ("acct", [163, 51, 89]),
    ("add_key", [248, 286, 217]),
    ("bpf", [321, 357, 280]),
    ("chroot", [161, 61, 51]),
    ("clock_settime", [227, 264, 112]),
    ("clock_settime64", [NONE, 404, NONE]),
    ("clone", [56, 120, 220]),
    ("clone3", [435, 435, 435]),
    ("create_module", [174, 127, NONE]),
    ("delete_module", [176, 129, 106]),
    ("fanotify_init", [300, 338, 262]),
    ("fanotify_mark", [301, 339, 263]),
    ("finit_module", [313, 350, 273]),
    ("fsconfig", [431, 431, 431]),
    ("fsmount", [432, 432, 432]),
    ("fsopen", [430, 430, 430]),
    ("fspick", [433, 433, 433]),
    ("init_module", [175, 128, 105]),
    ("io_uring_enter", [426, 426, 426]),
    ("io_uring_register", [427, 427, 427]),
    ("io_uring_setup", [425, 425, 425]),
    ("ioctl", [16, 54, 29]),
    ("ioperm", [173, 101, NONE]),
    ("iopl", [172, 110, NONE]),
    ("kexec_file_load", [320, NONE, 294]),
    ("kexec_load", [246, 283, 104]),
    ("keyctl", [250, 288, 219]),
    ("lookup_dcookie", [212, 253, 18]),
    ("modify_ldt", [154, 123, NONE]),
    ("mount", [165, 21, 40]),
    ("mount_setattr", [442, 442, 442]),
    ("move_mount", [429, 429, 429]),
    ("nfsservctl", [180, 169, 42]),
    ("open_by_handle_at", [304, 342, 265]),
    ("open_tree", [428, 428, 428]),
    ("open_tree_attr", [467, 467, 467]),
    ("perf_event_open", [298, 336, 241]),
    ("personality", [135, 136, 92]),
    ("pivot_root", [155, 217, 41]),
    ("prlimit64", [302, 340, 261]),
    ("quotactl", [179, 131, 60]),
    ("quotactl_fd", [443, 443, 443]),
    ("reboot", [169, 88, 142]),
    ("request_key", [249, 287, 218]),
    ("setdomainname", [171, 121, 162]),
    ("sethostname", [170, 74, 161]),
    ("setns", [308, 346, 268]),
    ("setrlimit", [160, 75, 164]),
    ("setsockopt", [54, 366, 208]),
    ("settimeofday", [164, 79, 170]),
    ("socket", [41, 359, 198]),
    ("socketcall", [NONE, 102, NONE]),
    ("socketpair", [53, 360, 199]),
    ("stime", [NONE, 25, NONE]),
    ("swapoff", [168, 115, 225]),
    ("swapon", [167, 87, 224]),
    ("syslog", [103, 103, 116]),
    ("umount", [NONE, 22, NONE]),
    ("umount2", [166, 52, 39]),
    ("unshare", [272, 310, 97]),
    ("uselib", [134, 86, NONE]),
    ("userfaultfd", [323, 374, 282]),
    ("vhangup", [153, 111, 58]),
    ("vm86", [NONE, 166, NONE]),
    ("vm86old", [NONE, 113, NONE]),
];
