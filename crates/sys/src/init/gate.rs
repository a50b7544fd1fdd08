//! A gate between processes that share memory: a futex(2) of one word.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::syscall::syscall;

/// Opened once; those who come later pass without waiting.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU32);

impl Gate {
    pub(super) fn open(&self) {
        self.0.store(1, Ordering::Release);
        let wake = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;
        // SAFETY: the address is only used to find the sleeper.
        let _ = unsafe {
            syscall(libc::SYS_futex as usize, [self.0.as_ptr() as usize, wake, 1, 0, 0, 0])
        };
    }

    pub(super) fn wait(&self) {
        let wait = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as usize;
        while self.0.load(Ordering::Acquire) == 0 {
            // SAFETY: reads one aligned word that we own; no timeout.
            let _ = unsafe {
                syscall(libc::SYS_futex as usize, [self.0.as_ptr() as usize, wait, 0, 0, 0, 0])
            };
        }
    }
}
