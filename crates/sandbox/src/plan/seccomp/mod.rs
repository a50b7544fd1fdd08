//! The system call filter of every action: what no build needs is refused, all
//! else passes.
//!
//! Namespaces, users and capabilities already keep an action in; the filter takes
//! kernel code away from it that has been exploited before and that no compiler or
//! test calls. Refusals are errnos and not kills, so that programs take the path
//! they have for old kernels.
//!
//! [`policy`] says what is refused, [`table`] knows the numbers of each
//! architecture, [`assemble`] makes a search tree of it, so that a call costs a
//! few instructions and an installation little.
//!
//! There are two filters, because the kernel compiles each one anew for each process that installs it, which took
//! 90 µs of an action's millisecond. The helper installs what neither it nor PID 1 needs once, and all that it starts
//! inherits it. An action adds the small rest: the calls that a sandbox is made with.
//!
//! A 32-bit x86 program on a 64-bit kernel goes through a table of its own, and
//! is refused what would hide arguments from it (socketcall). The x32 ABI and
//! 32-bit Arm are not there at all.

mod assemble;
#[cfg(test)]
mod interpret;
mod policy;
mod table;

use std::sync::{Arc, OnceLock};

use sys::call::Instruction;

use self::assemble::Part;
use self::table::Architecture;

/// The filter of the helper, and so of all that it starts.
pub(crate) fn inherited() -> Arc<[Instruction]> {
    assemble::filter(Part::Inherited, Architecture::native()).into()
}

/// The rest of the filter of an action; assembled once.
pub(crate) fn own() -> Arc<[Instruction]> {
    static OWN: OnceLock<Arc<[Instruction]>> = OnceLock::new();
    Arc::clone(OWN.get_or_init(|| assemble::filter(Part::Own, Architecture::native()).into()))
}

#[cfg(test)]
mod tests;
