//! Entries of `/proc` that are covered.
//!
//! A sandbox's `/proc` is one of its own, and the processes in it are the action's. Beside them it shows
//! the kernel, which is the host's. Most of that is needed by programs (`cpuinfo`, `meminfo`, `stat`,
//! `sys` …) or closed to the action by its mode (`kcore`, `kmsg`, `timer_list`, `slabinfo` …), and where
//! it has addresses the kernel shows zeros to a process without rights (`kallsyms`, `iomem`, `ioports`).
//!
//! A cover is a mount in each action's namespace, and costs time before each action. So there are covers for
//! words that somebody may have meant to keep and for counters of devices, by which an action could watch its
//! neighbours; `docs/decisions` has the record with the figures.
//!
//! Each entry is there from the boot on or not at all: one that came with a module could go with it, and then no
//! action could be prepared.

use std::ffi::CStr;

use rustix::fs::FileType;

/// The file that covers a file and reads as empty. Every sandbox's root has it.
pub(crate) const FILE_COVER: &CStr = c"/dev/null";

/// The directory that covers a directory: the mount point of the input root, which is empty and read-only.
/// Later mounts there do not appear at the cover.
pub(crate) const DIRECTORY_COVER: &CStr = c"/execroot";

/// The entries that are covered where they exist and their mode shows them to an action.
pub(crate) const HIDDEN: [&CStr; 7] = [
    // The parameters of the boot may hold passwords and tokens.
    c"/proc/cmdline",
    c"/proc/bootconfig",
    // Users are shared between sandboxes, and so are the keys of the action's user.
    c"/proc/keys",
    // Counters of each device: they tell when a key is pressed, a packet comes or a disk is read.
    c"/proc/interrupts",
    c"/proc/diskstats",
    // The host's disks and the options that they are mounted with, servers of its network file systems, its devices.
    c"/proc/fs",
    c"/proc/bus",
];

/// An entry and what covers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) path: &'static CStr,
    pub(crate) cover: &'static CStr,
}

impl Hidden {
    /// The entry at `path` that has `mode`. `None` for what an action could not read anyway.
    pub(crate) fn new(path: &'static CStr, mode: u32) -> Option<Self> {
        const OTHERS_READ: u32 = 0o004;
        let cover = match FileType::from_raw_mode(mode) {
            FileType::Directory => DIRECTORY_COVER,
            _ => FILE_COVER,
        };
        (mode & OTHERS_READ != 0).then_some(Self { path, cover })
    }
}
