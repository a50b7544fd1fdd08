//! The table of mounts that PID 1 makes before it looks for disks.

use std::ffi::CStr;

use rustix::io::Errno;
use rustix::mount::MountFlags;

/// One file system.
#[derive(Debug, Clone, Copy)]
pub struct Mount {
    /// The file system's name, and what it is mounted from.
    pub kind: &'static CStr,
    /// Where; the directory is in the initramfs or on an earlier line.
    pub target: &'static CStr,
    /// Mount flags.
    pub flags: MountFlags,
    /// Options of the file system.
    pub options: &'static CStr,
}

const STRICT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// In this order. Every tmpfs has bounds: memory is what the guest has least of, and what is left in
/// one is lost to actions.
pub const MOUNTS: [Mount; 6] = [
    Mount { kind: c"proc", target: c"/proc", flags: STRICT, options: c"hidepid=2" },
    Mount { kind: c"sysfs", target: c"/sys", flags: STRICT, options: c"" },
    Mount {
        kind: c"cgroup2",
        target: c"/sys/fs/cgroup",
        flags: STRICT,
        options: c"nsdelegate,memory_recursiveprot",
    },
    // Device nodes are what it is for.
    Mount {
        kind: c"devtmpfs",
        target: c"/dev",
        flags: MountFlags::NOSUID.union(MountFlags::NOEXEC),
        options: c"mode=0755",
    },
    // Nothing of ours writes here; libraries may.
    Mount {
        kind: c"tmpfs",
        target: c"/tmp",
        flags: STRICT,
        options: c"mode=1777,size=16m,nr_inodes=1024",
    },
    Mount {
        kind: c"tmpfs",
        target: c"/work",
        flags: STRICT,
        options: c"mode=0700,size=16m,nr_inodes=1024",
    },
];

/// Files under `/proc/sys` and what is written to them.
pub const SYSCTLS: [(&str, &str); 9] = [
    // The sandbox's strict inputs rely on it: nobody links to a file that is not theirs.
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    // Actions learn nothing about the kernel that they could use against it.
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    // No crash of an action is worth a line on the serial console.
    ("kernel/print-fatal-signals", "0"),
    ("fs/file-max", "1048576"),
    // Small guests keep caches, which is what makes them fast, until an action needs the memory.
    ("vm/vfs_cache_pressure", "50"),
];

/// Makes `/` a mount that is not the kernel's first one, which has no parent: pivot_root(2), by which
/// a sandbox gets its root, can't leave that. And read-only, as nothing has to be written there.
///
/// # Errors
/// Of the call that is named.
pub fn leave_the_first_mount() -> Result<(), (&'static CStr, Errno)> {
    // Any directory does; it is hidden for a moment only.
    const ASIDE: &CStr = c"/tmp";
    rustix::mount::mount_bind(c"/", ASIDE).map_err(|errno| (c"a copy of /", errno))?;
    rustix::process::chdir(ASIDE).map_err(|errno| (ASIDE, errno))?;
    rustix::mount::mount_move(c".", c"/").map_err(|errno| (c"/ again", errno))?;
    rustix::process::chroot(c".").map_err(|errno| (c"the new /", errno))?;
    let read_only = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID;
    rustix::mount::mount_remount(c"/", read_only, c"").map_err(|errno| (c"/ read-only", errno))
}

/// Mounts the table.
///
/// # Errors
/// The first that fails, with its target.
pub fn mount_all() -> Result<(), (&'static CStr, Errno)> {
    MOUNTS.iter().try_for_each(|mount| {
        let Mount { kind, target, flags, options } = *mount;
        match rustix::mount::mount(kind, target, kind, flags, options) {
            // The kernel has mounted devtmpfs already (CONFIG_DEVTMPFS_MOUNT).
            Ok(()) | Err(Errno::BUSY) => Ok(()),
            Err(errno) => Err((target, errno)),
        }
    })
}

/// Sets the sysctls. One that this kernel lacks is told and passed over: none of them is what keeps
/// an action in its sandbox, but the first, which `inputroot` checks for itself.
pub fn set_sysctls() {
    for (name, value) in SYSCTLS {
        if let Err(error) = std::fs::write(format!("/proc/sys/{name}"), value) {
            eprintln!("init: sysctl {name}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parent_is_mounted_before_its_child() {
        let targets: Vec<_> = MOUNTS.iter().map(|mount| mount.target.to_str().unwrap()).collect();
        for (index, target) in targets.iter().enumerate() {
            assert!(target.starts_with('/'));
            let later = &targets[index + 1..];
            assert!(!later.contains(target), "{target} twice");
            let hidden = |later: &&&str| target.starts_with(&format!("{later}/"));
            assert!(!later.iter().any(|later| hidden(&later)), "{target} would be hidden");
        }
    }

    #[test]
    fn nothing_gives_rights_and_only_dev_has_devices() {
        for mount in &MOUNTS {
            assert!(mount.flags.contains(MountFlags::NOSUID), "{:?}", mount.target);
            let devices = mount.target == c"/dev";
            assert_eq!(mount.flags.contains(MountFlags::NODEV), !devices, "{:?}", mount.target);
        }
    }

    #[test]
    fn memory_file_systems_are_bounded() {
        for mount in MOUNTS.iter().filter(|mount| mount.kind == c"tmpfs") {
            let options = mount.options.to_str().unwrap();
            assert!(options.contains("size=") && options.contains("nr_inodes="), "{options}");
        }
    }

    /// The tables against a real kernel, as far as a test may: nothing is attached anywhere.
    #[test]
    fn the_kernel_takes_the_options_of_every_tmpfs() {
        for mount in MOUNTS.iter().filter(|mount| mount.kind == c"tmpfs") {
            let context = sys::mount::FsContext::open("tmpfs").unwrap();
            for option in mount.options.to_str().unwrap().split(',') {
                let (key, value) = option.split_once('=').unwrap();
                context.string(key, value).unwrap();
            }
        }
    }
}
