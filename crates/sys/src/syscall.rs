//! System calls without a C library between: what a process may make that
//! shares its memory, and therefore its thread-local `errno`, with another.
//!
//! Not for general use: everything that runs in an ordinary thread goes through
//! rustix. The errors come back in the register, so nothing is written anywhere.

use core::arch::asm;

use rustix::io::Errno;

/// Makes one system call; unused arguments are passed as zero.
///
/// # Safety
/// As for the call made: pointers among the arguments must be valid for what the
/// kernel does with them, for as long as it does it.
pub(crate) unsafe fn syscall(number: usize, arguments: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's contract; the registers are those of the kernel's
    // convention and everything that the kernel changes is named in it.
    let value = unsafe { trap(number, arguments) };
    errno_of(value)
}

/// Splits the kernel's return register: -4095..=-1 are errors.
pub(crate) fn errno_of(value: isize) -> Result<usize, Errno> {
    match value {
        -4095..=-1 => Err(Errno::from_raw_os_error(value.wrapping_neg() as i32)),
        _ => Ok(value as usize),
    }
}

/// # Safety
/// See [`syscall`].
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn trap(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let value: isize;
    // SAFETY: rax, rdi.. r9 carry the call, rcx and r11 are overwritten by the
    // instruction itself, all other registers are kept by the kernel.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => value,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    value
}

/// # Safety
/// See [`syscall`].
#[cfg(target_arch = "aarch64")]
#[inline]
unsafe fn trap(number: usize, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let value: isize;
    // SAFETY: x8 and x0..x5 carry the call, x0 the answer; the kernel keeps all
    // other registers.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a as isize => value,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
            options(nostack),
        );
    }
    value
}
