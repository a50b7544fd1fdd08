//! Ways to more rights, and to processes of others.

use crate::case::{Case, Need, calls, program};

/// The only user and group there are, and no right at all.
const NOBODY: &str = "Uid: 65534 65534 65534 65534\n\
    Gid: 65534 65534 65534 65534\n\
    Groups:\n\
    CapInh: 0000000000000000\n\
    CapPrm: 0000000000000000\n\
    CapEff: 0000000000000000\n\
    CapBnd: 0000000000000000\n\
    CapAmb: 0000000000000000\n\
    NoNewPrivs: 1\n\
    Seccomp: 2";

/// An identity that its namespace does not have is not even valid.
const NO_SUCH: &str = "EINVAL|EPERM";
/// A process that is somebody else's, or not seen at all.
const ANOTHERS: &str = "EPERM|ESRCH|EACCES";
/// Version 3 of the header (capability.h), and all capabilities in all sets.
const ALL_CAPABILITIES: &str =
    "capset #2205082000000000 #ffffffffffffffffffffffffffffffffffffffffffffffff";

pub(super) const CASES: &[Case] = &[
    program("credentials", &["credentials"]).prints(NOBODY),
    program("a-set-user-id-program-of-its-own", &["set-user-id"]).prints(NOBODY),
    calls("become-root", "setuid 0").fails(NO_SUCH),
    calls("become-another-user", "setuid 1000").fails(NO_SUCH),
    calls("become-roots-group", "setgid 0").fails(NO_SUCH),
    calls("become-root-in-all-ways", "setresuid 0 0 0").fails(NO_SUCH),
    calls("join-groups", "setgroups 1 #00000000").fails("EPERM"),
    calls("take-capabilities", ALL_CAPABILITIES).fails("EPERM"),
    calls("raise-ambient-capabilities", "prctl 47 2 21 0 0").fails("EPERM"),
    calls("unset-no-new-privileges", "prctl 39 0 0 0 0 ; prctl 38 0 0 0 0").fails("EINVAL"),
    calls("set-secure-bits", "prctl 28 0x2f 0 0 0").fails("EPERM"),
    calls("give-a-file-to-root", "openat AT '/tmp/f' RDWR|CREAT 0666 ; fchown $1 0 0").fails(NO_SUCH),
    calls(
        "make-a-file-immutable",
        "openat AT '/execroot/f' RDWR|CREAT 0666 ; ioctl $1 SETFLAGS #10000000",
    )
    .fails("EPERM|ENOTTY|EOPNOTSUPP"),
    calls("emulate-other-systems", "personality 0x400000").fails("EPERM"),
    // Processes of others. PID 1 is the only one there is. Signals of its own namespace don't reach it, even
    // where the kernel takes them because it has the action's user.
    calls("trace-pid-1", "ptrace 16 1 0 0").fails(ANOTHERS),
    calls("seize-pid-1", "ptrace 0x4206 1 0 0").fails(ANOTHERS),
    calls(
        "read-memory-of-pid-1",
        "process_vm_readv 1 #00000000000000000800000000000000 1 #00004000000000000800000000000000 1 0",
    )
    .fails(ANOTHERS),
    calls(
        "write-memory-of-pid-1",
        "process_vm_writev 1 #00000000000000000800000000000000 1 #00004000000000000800000000000000 1 0",
    )
    .fails(ANOTHERS),
    calls("kill-pid-1", "kill 1 9")
        .needs(Need::OwnUser)
        .fails(ANOTHERS),
    calls("stop-pid-1", "kill 1 19")
        .needs(Need::OwnUser)
        .fails(ANOTHERS),
    calls("kill-a-thread-of-pid-1", "tgkill 1 1 9")
        .needs(Need::OwnUser)
        .fails(ANOTHERS),
    calls("kill-everybody", "kill -1 9").fails(ANOTHERS),
    calls("forge-a-signal-to-pid-1", "rt_tgsigqueueinfo 1 1 9 &128")
        .needs(Need::OwnUser)
        .fails(ANOTHERS),
    calls("kill-pid-1-by-descriptor", "pidfd_open 1 0 ; pidfd_send_signal $1 9 0 0")
        .needs(Need::OwnUser)
        .fails("EPERM|EBADF"),
    calls("take-a-descriptor-of-pid-1", "pidfd_open 1 0 ; pidfd_getfd $1 0 0").fails("EPERM|EBADF|ESRCH"),
    calls("enter-the-namespaces-of-pid-1", "pidfd_open 1 0 ; setns $1 NEWNS|NEWNET|NEWUSER").fails("EPERM"),
    calls("limit-pid-1", "prlimit64 1 7 &16 0")
        .needs(Need::OwnUser)
        .fails(ANOTHERS),
    calls("slow-pid-1-down", "setpriority 0 1 19")
        .needs(Need::OwnUser)
        .fails(ANOTHERS),
    calls("move-pid-1-to-a-processor", "sched_setaffinity 1 8 #0100000000000000")
        .needs(Need::OwnUser)
        .fails(ANOTHERS),
    // A guest's kernel does not have it at all.
    calls("compare-with-pid-1", "kcmp 1 1 0 0 0").fails("EPERM|ESRCH|EACCES|ENOSYS"),
    calls("move-the-memory-of-pid-1", "migrate_pages 1 64 #0100000000000000 #0100000000000000")
        .fails("EPERM|ESRCH|ENOSYS|EINVAL"),
    calls("raise-its-own-limits", "prlimit64 0 6 #ffffffffffffffffffffffffffffffff 0").fails("EPERM"),
    calls("raise-its-own-priority", "setpriority 0 0 -20").fails("EACCES|EPERM"),
    calls("leave-the-killers-list", "openat AT '/proc/self/oom_score_adj' RDWR ; write $1 '-1000' 5")
        .fails("EACCES"),
    calls("go-up-on-the-killers-list", "openat AT '/proc/self/oom_score_adj' RDWR ; write $1 '499' 3")
        .needs(Need::Privileged)
        .fails("EACCES"),
    calls("run-before-everybody", "sched_setscheduler 0 1 #01000000").fails("EPERM"),
    calls("run-by-deadline", "sched_setattr 0 #300000000600000000000000000000000000000000000000404b4c00000000008096980000000000809698000000000000000000 0")
        .fails("EPERM"),
    calls("read-and-write-before-everybody", "ioprio_set 1 0 0x2000").fails("EPERM"),
    program("crash-into-a-handler-of-the-host", &["core-limit"]).prints("1 1 bytes"),
    // Other tables of system calls.
    program("the-32-bit-table", &["i386", "21:0,52:0,310:268435456,357:0,425:0,359:38"])
        .needs(Need::I386)
        .prints("21 EPERM\n52 EPERM\n310 EPERM\n357 EPERM\n425 ENOSYS\n359 EAFNOSUPPORT"),
    calls("the-x32-table", "1073741989 '/tmp' '/tmp' 0 4096 0").fails("ENOSYS"),
    calls("raise-the-port-level", "iopl 3").needs(Need::X86).fails("EPERM"),
    calls("open-all-ports", "ioperm 0 1024 1").needs(Need::X86).fails("EPERM"),
    calls("change-segments", "modify_ldt 1 &16 16").needs(Need::X86).fails("ENOSYS"),
];
