//! Locks for names: whoever makes or removes a file holds the lock that its name falls on.
//!
//! So a file and what is known of it in memory change together, while different names hardly ever
//! wait for each other.

use parking_lot::{Mutex, MutexGuard};

/// So many that the threads of one server hardly ever meet; a lock is one byte.
const STRIPES: usize = 256;

/// See the module.
pub(crate) struct Stripes([Mutex<()>; STRIPES]);

impl Stripes {
    pub(crate) fn new() -> Self {
        Self([const { Mutex::new(()) }; STRIPES])
    }

    /// Waits for the lock of the name that has that hash.
    pub(crate) fn lock(&self, hash: &[u8; 32]) -> MutexGuard<'_, ()> {
        self.0[usize::from(hash[0])].lock()
    }
}
