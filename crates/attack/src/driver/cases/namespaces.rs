//! Ways to new mounts and to other namespaces.

use crate::case::{Case, calls};

pub(super) const CASES: &[Case] = &[
    calls("new-user-namespace", "unshare NEWUSER").fails("EPERM"),
    calls("new-mount-namespace", "unshare NEWNS").fails("EPERM"),
    calls("new-process-namespace", "unshare NEWPID").fails("EPERM"),
    calls("new-network-namespace", "unshare NEWNET").fails("EPERM"),
    calls("new-ipc-namespace", "unshare NEWIPC").fails("EPERM"),
    calls("new-uts-namespace", "unshare NEWUTS").fails("EPERM"),
    calls("new-cgroup-namespace", "unshare NEWCGROUP").fails("EPERM"),
    calls("new-time-namespace", "unshare NEWTIME").fails("EPERM"),
    calls("clone-into-a-user-namespace", "clone NEWUSER|17 0 0 0 0").fails("EPERM"),
    calls("clone-into-hidden-flags", "clone 0x110000011 0 0 0 0").fails("EPERM"),
    calls("clone3", "clone3 &88 88").fails("ENOSYS"),
    calls("enter-its-own-network", "openat AT '/proc/self/ns/net' RDONLY ; setns $1 NEWNET")
        .fails("EPERM"),
    calls("enter-its-own-users", "openat AT '/proc/self/ns/user' RDONLY ; setns $1 NEWUSER")
        .fails("EPERM"),
    calls("map-users", "openat AT '/proc/self/uid_map' WRONLY ; write $1 '0 0 1' 5")
        .fails("EPERM|EACCES|EBADF"),
    calls("mount-a-tmpfs", "mount 'none' '/tmp' 'tmpfs' 0 0").fails("EPERM"),
    calls("mount-a-disk", "mount '/dev/vda' '/tmp' 'ext4' 0 0").fails("EPERM"),
    calls("bind-a-directory", "mount '/tmp' '/execroot' 0 4096 0").fails("EPERM"),
    calls("remount-the-root-writable", "mount 0 '/' 0 4128 0").fails("EPERM"),
    calls("make-mounts-shared", "mount 0 '/' 0 0x104000 0").fails("EPERM"),
    calls("unmount-the-inputs", "umount2 '/execroot' 2").fails("EPERM"),
    calls("unmount-proc", "umount2 '/proc' 2").fails("EPERM"),
    calls("pivot-root", "pivot_root '/tmp' '/tmp'").fails("EPERM"),
    calls("change-root", "chroot '/tmp'").fails("EPERM"),
    calls("clone-a-mount", "open_tree AT '/' 1").fails("EPERM"),
    calls("move-a-mount", "move_mount AT '/proc' AT '/tmp' 0").fails("EPERM"),
    calls("open-a-file-system", "fsopen 'tmpfs' 0").fails("EPERM"),
    calls("pick-a-file-system", "fspick AT '/' 0").fails("EPERM"),
    calls("configure-a-file-system", "fsconfig 0 6 0 0 0").fails("EPERM"),
    calls("mount-a-file-system", "fsmount 0 0 0").fails("EPERM"),
    calls("change-attributes-of-mounts", "mount_setattr AT '/' 0x8000 &32 32").fails("EPERM"),
];
