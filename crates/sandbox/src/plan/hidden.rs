//! Entries of `/proc` that are covered.
//!
//! A sandbox's `/proc` is one of its own, and the processes in it are the action's. Beside them it shows
//! the kernel, which is the host's. Most of that is needed by programs (`cpuinfo`, `meminfo`, `stat`,
//! `sys` …) or closed to the action by its mode (`kcore`, `kmsg`, `timer_list`, `slabinfo` …), and where
//! it has addresses the kernel shows zeros to a process without rights (`kallsyms`, `iomem`, `ioports`).
//!
//! A cover is a mount in each action's namespace and costs some 12 µs, 1.5 % of an action. So there are
//! covers only for words that somebody may have meant to keep: the parameters that the host was started
//! with, and the descriptions of keys. What the kernel counts stays, for much of it is in `stat` and
//! `vmstat` too; `docs/decisions` has the record.

use std::ffi::CStr;

/// The file that covers an entry and reads as empty. Every sandbox's root has it.
pub(crate) const COVER: &CStr = c"/dev/null";

/// The files that are covered where they exist and their mode shows them to an action.
pub(crate) const HIDDEN: [&CStr; 2] = [
    // May hold passwords and tokens.
    c"/proc/cmdline",
    // Users are shared between sandboxes, and so are the keys of the action's user.
    c"/proc/keys",
];

/// Whether a file of root's with these permission bits can be read by an action.
pub(crate) fn is_open(mode: u32) -> bool {
    const OTHERS_READ: u32 = 0o004;
    mode & OTHERS_READ != 0
}
