//! Locks for names: whoever makes or removes a file holds the lock that its name falls on.
//!
//! So a file and what is known of it in memory change together, while different names hardly ever
//! wait for each other.

use parking_lot::{Mutex, MutexGuard};

/// One for each first byte of a hash: so many that the threads of one server hardly ever meet. A lock is
/// one byte.
const STRIPES: usize = 256;

/// See the module.
pub(crate) struct Stripes([Mutex<()>; STRIPES]);

impl Stripes {
    pub(crate) fn new() -> Self {
        Self([const { Mutex::new(()) }; STRIPES])
    }

    /// Waits for the lock of the name that has that hash.
    pub(crate) fn lock(&self, hash: &[u8]) -> MutexGuard<'_, ()> {
        self.lock_all_of(hash[0])
    }

    /// Waits for the lock of all names whose hashes begin with that byte: those of a directory.
    pub(crate) fn lock_all_of(&self, first_byte: u8) -> MutexGuard<'_, ()> {
        self.0[usize::from(first_byte)].lock()
    }
}
