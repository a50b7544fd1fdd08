//! Owners, modes and times of inputs: what an action sees, and what it may do to its inputs.
//!
//! Modes are those of local execution: 0755 for directories and executables, 0644 for other files,
//! so that the owner of a copy can change it. Directories and symlinks belong to the action: it can
//! make, move, replace and remove *names* in its own view. *Files* belong to root in strict mode, so
//! the action cannot open them for writing or change their attributes.
//!
//! No blob is at risk in either mode: contents come from a layer that nothing can write, and a
//! change of a name goes to the action's own staging directory. The reasons are in
//! `docs/decisions/2026-11-29-names-are-the-actions-own.md`.

use model::ACTION_ID;

/// Modification time of everything in an input root: 2000-01-01T00:00:00Z, in seconds since 1970.
///
/// A fixed time keeps results from depending on when an action ran, and a plausible one keeps tools
/// that refuse dates before 1980 (zip) working.
pub(crate) const MODIFIED_SECONDS: u64 = 946_684_800;

/// Permission bits of every directory.
pub(crate) const DIRECTORY_MODE: u16 = 0o755;

/// The rights of an action over the contents of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Input files belong to root: the action can read, execute, move and remove them, but not
    /// write to them.
    Strict,
    /// Input files belong to the action. Changes stay in its own view.
    Mutable,
}

impl Access {
    pub(crate) fn new(mutable: bool) -> Self {
        if mutable { Self::Mutable } else { Self::Strict }
    }

    /// Owner (user and group) of every input file. Directories and symlinks are the action's.
    pub(crate) const fn file_owner(self) -> u32 {
        match self {
            Self::Strict => 0,
            Self::Mutable => ACTION_ID,
        }
    }
}

/// Permission bits of an input file.
pub(crate) const fn file_mode(executable: bool) -> u16 {
    if executable { 0o755 } else { 0o644 }
}

/// Permission bits of a file below a mount, which nobody sees. No input has them.
pub(crate) const PLACEHOLDER_MODE: u32 = 0o600;
