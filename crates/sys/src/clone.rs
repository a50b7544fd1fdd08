//! clone3(2) onto another stack.

use core::arch::asm;

use rustix::io::Errno;

use crate::syscall::errno_of;

/// `struct clone_args` of linux/sched.h in its third size, 88 bytes.
#[derive(Debug, Default)]
#[repr(C, align(8))]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    pub(crate) cgroup: u64,
}

impl CloneArgs {
    /// A child that is waited for like any other, on the given stack.
    pub(crate) fn new(flags: u64, stack: u64, stack_size: u64) -> Self {
        Self { flags, exit_signal: libc::SIGCHLD as u64, stack, stack_size, ..Self::default() }
    }
}

/// The function in which the child begins.
pub(crate) type Entry<T> = unsafe extern "C" fn(*const T) -> !;

/// Clones; the child calls `entry(argument)` on the stack of `args`, the parent
/// gets the child's pid.
///
/// # Safety
/// `args` names a stack that nothing else uses, and pointers that are valid to
/// write. If memory is shared: `entry` must not touch thread-local data, allocate
/// or unwind, and `argument` and the stack must live until the child is dead or
/// has executed another program.
pub(crate) unsafe fn clone_onto<T>(
    args: &CloneArgs,
    entry: Entry<T>,
    argument: *const T,
) -> Result<i32, Errno> {
    // SAFETY: the caller's contract.
    let value = unsafe { clone3(args, entry as *const (), argument.cast()) };
    errno_of(value).map(|pid| pid as i32)
}

/// # Safety
/// See [`clone_onto`]; `entry` has the signature `extern "C" fn(*const ()) -> !`.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, entry: *const (), argument: *const ()) -> isize {
    let value: isize;
    // SAFETY: the parent falls through with all registers but those named kept.
    // The child has a fresh, aligned stack, on which the call leaves the return
    // address that the calling convention expects, and it never comes back.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => value,
            in("rdi") args, in("rsi") size_of::<CloneArgs>(),
            in("r12") argument, in("r13") entry,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    value
}

/// # Safety
/// See [`clone_onto`]; `entry` has the signature `extern "C" fn(*const ()) -> !`.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &CloneArgs, entry: *const (), argument: *const ()) -> isize {
    let value: isize;
    // SAFETY: as above; frame pointer and link register are zero so that a
    // backtrace ends here.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x9",
            "blr x10",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3 as usize,
            inlateout("x0") args as *const CloneArgs as isize => value,
            in("x1") size_of::<CloneArgs>(),
            in("x9") argument, in("x10") entry,
        );
    }
    value
}
