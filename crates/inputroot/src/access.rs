//! Owners and modes of inputs: what an action sees, and what it may do to its inputs.
//!
//! Modes are those of local execution: 0755 for directories and executables, 0644 for other files,
//! so that a copy of an input is its owner's to change. Directories and symlinks belong to the
//! action, which can therefore do to the *names* in its own view what it likes: make, move, replace
//! and remove them. The *files* belong to root in strict mode, so the action cannot open them for
//! writing nor change their attributes.
//!
//! No blob is at risk in either mode: contents come from a layer that nothing can write, and a
//! change of a name goes to the action's own staging directory. Why names are free:
//! `docs/decisions/2026-11-29-names-are-the-actions-own.md`.

use model::ACTION_ID;

/// Permission bits of every directory.
pub(crate) const DIRECTORY_MODE: u16 = 0o755;

/// What an action may do to the contents of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Input files are root's: they can be read, executed, moved and removed, but not written.
    Strict,
    /// Input files are the action's own; changes stay in its own view.
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

/// Permission bits of a file that another one is mounted over, which nobody sees. No input has them.
pub(crate) const PLACEHOLDER_MODE: u32 = 0o600;
