//! The refused system calls, by name.
//!
//! Kept out of the list on purpose:
//! - ptrace and process_vm_readv: debuggers and LeakSanitizer trace their own
//!   children in tests. The kernel lets them only at processes of the same user
//!   in the same user namespace, and of those the sandbox has just its own.
//! - seccomp and landlock: they can only take more away.
//! - memfd_secret, name_to_handle_at, kcmp: harmless without privileges.

/// The kernel's answer to a call.
#[derive(Debug)]
pub(super) enum Rule {
    /// It is made.
    Allow,
    /// It fails with this errno.
    Refuse(u16),
    /// It depends on an argument.
    When { argument: u8, test: Test, then: &'static Rule, otherwise: &'static Rule },
}

/// A question about an argument. The kernel itself looks only at the lower 32 bits
/// of all those that are asked about, but for pointers.
#[derive(Debug)]
pub(super) enum Test {
    /// Is it one of these?
    OneOf(&'static [u32]),
    /// Is any of these bits set?
    AnyBit(u32),
    /// Is it a null pointer, all 64 bits of it?
    Null,
}

/// The last call that this policy allows, open_tree_attr of Linux 6.15: newer ones are absent until
/// they were reviewed. The next two, file_getattr and file_setattr, are FS_IOC_FSSETXATTR
/// in another form and stay absent. All architectures number new calls alike. The x32 ABI, which shares
/// x86_64's audit number, is far above.
pub(super) const LAST_REVIEWED: u32 = 467;

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;
const EPROTONOSUPPORT: u16 = 93;
const ESOCKTNOSUPPORT: u16 = 94;
const EOPNOTSUPP: u16 = 95;
const EAFNOSUPPORT: u16 = 97;

pub(super) static ALLOW: Rule = Rule::Allow;
static FORBIDDEN: Rule = Rule::Refuse(EPERM);
/// For what programs do without when a kernel lacks it.
pub(super) static ABSENT: Rule = Rule::Refuse(ENOSYS);

/// CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NEW_NAMESPACES: u32 = 0x80
    | 0x0002_0000
    | 0x0200_0000
    | 0x0400_0000
    | 0x0800_0000
    | 0x1000_0000
    | 0x2000_0000
    | 0x4000_0000;

/// The lowest byte of clone's flags is the exit signal, not CLONE_NEWTIME.
static CLONE: Rule = Rule::When {
    argument: 0,
    test: Test::AnyBit(NEW_NAMESPACES & !0xff),
    then: &FORBIDDEN,
    otherwise: &ALLOW,
};
static UNSHARE: Rule = Rule::When {
    argument: 0,
    test: Test::AnyBit(NEW_NAMESPACES),
    then: &FORBIDDEN,
    otherwise: &ALLOW,
};

/// PER_LINUX and PER_LINUX32, with or without UNAME26 and ADDR_NO_RANDOMIZE, and
/// the question which one it is. READ_IMPLIES_EXEC and the emulations are out.
static PERSONALITY: Rule = Rule::When {
    argument: 0,
    test: Test::OneOf(&[
        0,
        0x8,
        0x2_0000,
        0x2_0008,
        0x4_0000,
        0x4_0008,
        0x6_0000,
        0x6_0008,
        0xffff_ffff,
    ]),
    then: &ALLOW,
    otherwise: &FORBIDDEN,
};

/// TIOCSTI and TIOCLINUX write into the input of a terminal's reader; TIOCSETD loads line disciplines;
/// FS_IOC_FSSETXATTR gives files properties that a blob would keep and that adopting it does not look
/// for; the others reach VLANs (SIOCGIFVLAN, SIOCSIFVLAN) and bridges (SIOCBRADDBR, SIOCBRDELBR).
static IOCTL: Rule = Rule::When {
    argument: 1,
    test: Test::OneOf(&[0x5412, 0x541c, 0x5423, 0x401c_5820, 0x8982, 0x8983, 0x89a0, 0x89a1]),
    then: &FORBIDDEN,
    otherwise: &ALLOW,
};

const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;

static SOCKET: Rule = Rule::When {
    argument: 0,
    test: Test::OneOf(&[AF_UNIX]),
    then: &ALLOW,
    otherwise: &SOCKET_INET,
};
static SOCKET_INET: Rule = Rule::When {
    argument: 0,
    test: Test::OneOf(&[AF_INET, AF_INET6]),
    then: &INET_TYPE,
    otherwise: &SOCKET_NETLINK,
};
/// SOCK_STREAM, SOCK_DGRAM and SOCK_RAW are 1 to 3. With protocol 0 the others stand for SCTP
/// (SOCK_SEQPACKET), DCCP and packet sockets.
static INET_TYPE: Rule =
    Rule::When { argument: 1, test: Test::AnyBit(0xc), then: &NO_TYPE, otherwise: &INET_PROTOCOL };
static NO_TYPE: Rule = Rule::Refuse(ESOCKTNOSUPPORT);
/// if_nameindex(3) and getaddrinfo(3) ask NETLINK_ROUTE (0) for addresses.
static SOCKET_NETLINK: Rule = Rule::When {
    argument: 0,
    test: Test::OneOf(&[AF_NETLINK]),
    then: &NETLINK_PROTOCOL,
    otherwise: &NO_FAMILY,
};
/// The default one, ICMP, TCP, UDP, ICMPv6: no SCTP, DCCP, MPTCP, L2TP, SMC.
static INET_PROTOCOL: Rule = Rule::When {
    argument: 2,
    test: Test::OneOf(&[0, 1, 6, 17, 58]),
    then: &ALLOW,
    otherwise: &NO_PROTOCOL,
};
static NETLINK_PROTOCOL: Rule =
    Rule::When { argument: 2, test: Test::OneOf(&[0]), then: &ALLOW, otherwise: &NO_PROTOCOL };
static NO_FAMILY: Rule = Rule::Refuse(EAFNOSUPPORT);
static NO_PROTOCOL: Rule = Rule::Refuse(EPROTONOSUPPORT);

static SOCKETPAIR: Rule =
    Rule::When { argument: 0, test: Test::OneOf(&[AF_UNIX]), then: &ALLOW, otherwise: &NO_FAMILY };

const SOL_SOCKET: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_IPV6: u32 = 41;

/// Done without doing anything.
static NOTHING: Rule = Rule::Refuse(0);

/// A core file's limit stays as it is, which is the one value that starts no handler
/// of the host's. A program that lowers it wants no core file, and gets none.
const RLIMIT_CORE: u32 = 4;
static SETRLIMIT: Rule = Rule::When {
    argument: 0,
    test: Test::OneOf(&[RLIMIT_CORE]),
    then: &NOTHING,
    otherwise: &ALLOW,
};
static PRLIMIT: Rule = Rule::When {
    argument: 1,
    test: Test::OneOf(&[RLIMIT_CORE]),
    then: &PRLIMIT_OF_CORE,
    otherwise: &ALLOW,
};
static PRLIMIT_OF_CORE: Rule =
    Rule::When { argument: 2, test: Test::Null, then: &ALLOW, otherwise: &NOTHING };

static SETSOCKOPT: Rule = Rule::When {
    argument: 1,
    test: Test::OneOf(&[SOL_SOCKET]),
    then: &SOCKET_OPTION,
    otherwise: &SETSOCKOPT_TCP,
};
static SETSOCKOPT_TCP: Rule = Rule::When {
    argument: 1,
    test: Test::OneOf(&[IPPROTO_TCP]),
    then: &TCP_OPTION,
    otherwise: &SETSOCKOPT_UDP,
};
static SETSOCKOPT_UDP: Rule = Rule::When {
    argument: 1,
    test: Test::OneOf(&[IPPROTO_UDP]),
    then: &UDP_OPTION,
    otherwise: &SETSOCKOPT_IPV6,
};
static SETSOCKOPT_IPV6: Rule = Rule::When {
    argument: 1,
    test: Test::OneOf(&[IPPROTO_IPV6]),
    then: &IPV6_OPTION,
    otherwise: &ALLOW,
};
/// IPV6_FLOWLABEL_MGR: the kernel has 4096 labels for all network namespaces, and keeps a label for up to a
/// minute after its socket.
static IPV6_OPTION: Rule =
    Rule::When { argument: 2, test: Test::OneOf(&[32]), then: &FORBIDDEN, otherwise: &ALLOW };
/// UDP_ENCAP: IPsec and L2TP.
static UDP_OPTION: Rule =
    Rule::When { argument: 2, test: Test::OneOf(&[100]), then: &FORBIDDEN, otherwise: &ALLOW };
/// Out-of-band data, of Unix sockets too.
const MSG_OOB: u32 = 1;
static FLAGS_THIRD: Rule = Rule::When {
    argument: 2,
    test: Test::AnyBit(MSG_OOB),
    then: &NOT_SUPPORTED,
    otherwise: &ALLOW,
};
static FLAGS_FOURTH: Rule = Rule::When {
    argument: 3,
    test: Test::AnyBit(MSG_OOB),
    then: &NOT_SUPPORTED,
    otherwise: &ALLOW,
};
static NOT_SUPPORTED: Rule = Rule::Refuse(EOPNOTSUPP);
/// TCP_ULP: TLS in the kernel, which every library does without.
static TCP_OPTION: Rule =
    Rule::When { argument: 2, test: Test::OneOf(&[31]), then: &FORBIDDEN, otherwise: &ALLOW };
/// SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_CBPF and _EBPF.
static SOCKET_OPTION: Rule = Rule::When {
    argument: 2,
    test: Test::OneOf(&[26, 50, 51, 52]),
    then: &FORBIDDEN,
    otherwise: &ALLOW,
};

/// Calls that a sandbox is made with: they are refused to actions, and left to the helper and PID 1, which have
/// capabilities for them in their own user namespace alone.
pub(super) static SET_UP: &[(&str, &Rule)] = &[
    // Mounts and roots.
    ("mount", &FORBIDDEN),
    ("umount", &FORBIDDEN),
    ("umount2", &FORBIDDEN),
    ("pivot_root", &FORBIDDEN),
    ("chroot", &FORBIDDEN),
    ("open_tree", &FORBIDDEN),
    ("open_tree_attr", &FORBIDDEN),
    ("move_mount", &FORBIDDEN),
    ("fsopen", &FORBIDDEN),
    ("fsconfig", &FORBIDDEN),
    ("fsmount", &FORBIDDEN),
    ("fspick", &FORBIDDEN),
    ("mount_setattr", &FORBIDDEN),
    // Namespaces. clone3 hides its flags in memory; C libraries fall back.
    ("clone", &CLONE),
    ("clone3", &ABSENT),
    ("unshare", &UNSHARE),
    ("setns", &FORBIDDEN),
];

/// Every other call that is not simply allowed, to the helper neither.
pub(super) static POLICY: &[(&str, &Rule)] = &[
    // Programs in the kernel, and windows into it.
    ("bpf", &FORBIDDEN),
    ("perf_event_open", &FORBIDDEN),
    ("io_uring_setup", &ABSENT),
    ("io_uring_enter", &ABSENT),
    ("io_uring_register", &ABSENT),
    ("userfaultfd", &FORBIDDEN),
    ("lookup_dcookie", &FORBIDDEN),
    ("syslog", &FORBIDDEN),
    // Keys belong to users, and users are shared between sandboxes.
    ("add_key", &ABSENT),
    ("request_key", &ABSENT),
    ("keyctl", &ABSENT),
    // Files by handle, past every directory's permissions; watches on mounts.
    ("open_by_handle_at", &FORBIDDEN),
    ("fanotify_init", &FORBIDDEN),
    ("fanotify_mark", &FORBIDDEN),
    // The machine.
    ("kexec_load", &FORBIDDEN),
    ("kexec_file_load", &FORBIDDEN),
    ("create_module", &FORBIDDEN),
    ("init_module", &FORBIDDEN),
    ("finit_module", &FORBIDDEN),
    ("delete_module", &FORBIDDEN),
    ("reboot", &FORBIDDEN),
    ("swapon", &FORBIDDEN),
    ("swapoff", &FORBIDDEN),
    ("acct", &FORBIDDEN),
    ("quotactl", &FORBIDDEN),
    ("quotactl_fd", &FORBIDDEN),
    ("sethostname", &FORBIDDEN),
    ("setdomainname", &FORBIDDEN),
    ("settimeofday", &FORBIDDEN),
    ("stime", &FORBIDDEN),
    ("clock_settime", &FORBIDDEN),
    ("clock_settime64", &FORBIDDEN),
    ("vhangup", &FORBIDDEN),
    ("nfsservctl", &FORBIDDEN),
    // Old and odd x86.
    ("iopl", &FORBIDDEN),
    ("ioperm", &FORBIDDEN),
    ("modify_ldt", &ABSENT),
    ("vm86", &ABSENT),
    ("vm86old", &ABSENT),
    ("uselib", &ABSENT),
    // Its contexts are counted for the whole machine (fs.aio-max-nr).
    ("io_setup", &ABSENT),
    // They write what everybody has changed, and an action's disk is thrown away.
    ("sync", &NOTHING),
    ("syncfs", &NOTHING),
    // Arguments decide.
    ("sendto", &FLAGS_FOURTH),
    ("sendmsg", &FLAGS_THIRD),
    ("sendmmsg", &FLAGS_FOURTH),
    ("recvfrom", &FLAGS_FOURTH),
    ("recvmsg", &FLAGS_THIRD),
    ("recvmmsg", &FLAGS_FOURTH),
    ("recvmmsg_time64", &FLAGS_FOURTH),
    ("personality", &PERSONALITY),
    ("ioctl", &IOCTL),
    ("socket", &SOCKET),
    ("socketpair", &SOCKETPAIR),
    ("socketcall", &ABSENT),
    ("setsockopt", &SETSOCKOPT),
    ("setrlimit", &SETRLIMIT),
    ("prlimit64", &PRLIMIT),
];
