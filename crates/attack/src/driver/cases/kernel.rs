//! The kernel's settings, and its rarely used doors.

use crate::case::{Case, calls};

/// A setting that can't be written, or that this kernel lacks.
const CLOSED: &str = "EACCES|EPERM|EROFS|ENOENT";
/// The same, for what is written after it was opened.
const CLOSED_OR_REFUSED: &str = "EACCES|EPERM|EROFS|EBADF|EINVAL";

pub(super) const CASES: &[Case] = &[
    calls("set-the-core-pattern", "openat AT '/proc/sys/kernel/core_pattern' WRONLY").fails(CLOSED),
    calls("set-the-modprobe-program", "openat AT '/proc/sys/kernel/modprobe' WRONLY").fails(CLOSED),
    calls("set-the-host-name-by-file", "openat AT '/proc/sys/kernel/hostname' WRONLY")
        .fails(CLOSED),
    calls("allow-user-namespaces", "openat AT '/proc/sys/user/max_user_namespaces' WRONLY")
        .fails(CLOSED),
    calls("set-shared-memory-bounds", "openat AT '/proc/sys/kernel/shmmax' WRONLY").fails(CLOSED),
    calls("forward-packets", "openat AT '/proc/sys/net/ipv4/ip_forward' WRONLY").fails(CLOSED),
    calls("unprotect-links", "openat AT '/proc/sys/fs/protected_hardlinks' WRONLY").fails(CLOSED),
    calls("drop-caches", "openat AT '/proc/sys/vm/drop_caches' WRONLY").fails(CLOSED),
    calls("press-magic-keys", "openat AT '/proc/sysrq-trigger' WRONLY").fails(CLOSED),
    calls("register-a-binary-format", "openat AT '/proc/sys/fs/binfmt_misc/register' WRONLY")
        .fails(CLOSED),
    calls("read-the-kernels-memory", "openat AT '/proc/kcore' RDONLY").fails(CLOSED),
    calls("read-the-kernels-log", "openat AT '/proc/kmsg' RDONLY").fails(CLOSED),
    calls("read-the-slabs", "openat AT '/proc/slabinfo' RDONLY").fails(CLOSED),
    calls("read-page-flags", "openat AT '/proc/kpageflags' RDONLY").fails(CLOSED),
    calls("route-interrupts", "openat AT '/proc/irq/default_smp_affinity' WRONLY").fails(CLOSED),
    calls("set-memory-types", "openat AT '/proc/mtrr' WRONLY").fails(CLOSED),
    calls("spare-pid-1-from-oom", "openat AT '/proc/1/oom_score_adj' WRONLY").fails(CLOSED),
    calls("shift-time", "openat AT '/proc/self/timens_offsets' WRONLY ; write $1 '1 1 1' 5")
        .fails(CLOSED_OR_REFUSED),
    calls("set-the-login-user", "openat AT '/proc/self/loginuid' WRONLY ; write $1 '0' 1")
        .fails(CLOSED_OR_REFUSED),
    calls("load-a-bpf-program", "bpf 5 &128 128").fails("EPERM"),
    calls("make-a-bpf-map", "bpf 0 #0100000004000000040000000100000000000000 20").fails("EPERM"),
    calls("watch-performance", "perf_event_open &128 0 -1 -1 0").fails("EPERM"),
    calls("set-up-io-uring", "io_uring_setup 8 &120").fails("ENOSYS"),
    calls("handle-page-faults", "userfaultfd 1").fails("EPERM"),
    calls("get-a-keyring", "keyctl 0 -4 1").fails("ENOSYS"),
    calls("add-a-key", "add_key 'user' 'left' 'secret' 6 -4").fails("ENOSYS"),
    calls("request-a-key", "request_key 'user' 'left' 0 0").fails("ENOSYS"),
    calls("watch-all-files", "fanotify_init 0 0").fails("EPERM"),
    calls("load-another-kernel", "kexec_load 0 0 0 0").fails("EPERM"),
    calls("load-a-module", "init_module &64 64 ''").fails("EPERM"),
    calls("load-a-module-by-descriptor", "finit_module 0 '' 0").fails("EPERM"),
    calls("unload-a-module", "delete_module 'ext4' 0x800").fails("EPERM"),
    // CAD_OFF: were it allowed, the keys Ctrl-Alt-Del would do less, no more.
    calls("reboot", "reboot 0xfee1dead 0x28121969 0 0").fails("EPERM"),
    calls("swap-to-a-file", "swapon '/execroot/input' 0").fails("EPERM"),
    calls("account-processes", "acct '/execroot/accounts'").fails("EPERM"),
    calls("read-the-log-buffer", "syslog 3 &64 64").fails("EPERM"),
    calls("set-the-time", "clock_settime 0 &16").fails("EPERM"),
    calls("set-the-time-of-day", "settimeofday &16 0").fails("EPERM"),
    calls("set-the-host-name", "sethostname 'pwned' 5").fails("EPERM"),
    calls("set-the-domain-name", "setdomainname 'pwned' 5").fails("EPERM"),
    calls("set-quotas", "quotactl 0x800007 0 0 0").fails("EPERM"),
    calls("hang-up-terminals", "vhangup").fails("EPERM"),
    calls("contexts-of-asynchronous-input", "io_setup 1 &8").fails("ENOSYS"),
    // file_getattr, file_setattr and what comes after them.
    calls("a-system-call-that-nobody-has-reviewed", "468 AT '/tmp' &24 24 0").fails("ENOSYS"),
    calls("change-flags-by-a-new-system-call", "469 AT '/tmp' &24 24 0").fails("ENOSYS"),
    calls("a-system-call-of-the-future", "600 0 0 0 0 0 0").fails("ENOSYS"),
    calls("load-a-line-discipline", "openat AT '/dev/ptmx' RDWR ; ioctl $1 0x5423 #03000000")
        .fails("EPERM"),
    calls("select-on-a-console", "openat AT '/dev/ptmx' RDWR ; ioctl $1 0x541c #0200000000000000")
        .fails("EPERM"),
    calls("type-into-a-terminal", "openat AT '/dev/ptmx' RDWR ; ioctl $1 0x5412 'x'")
        .fails("EPERM"),
];
