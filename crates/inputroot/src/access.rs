//! What an action may do to its inputs, as owners and modes.
//!
//! Strict mode needs no code of its own in the kernel's way: the action is uid 65534, everything
//! belongs to root, and directories are sticky and world-writable, so an action can create files
//! beside its inputs everywhere but can neither write, replace, rename nor remove an input.
//! (actiondfs refuses all that by itself, whatever owners and modes say.)

use model::ACTION_ID;

/// What an action may do to its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Inputs are root's and read-only; new files can be created beside them.
    Strict,
    /// Inputs are the action's own; changes stay in its own view.
    Mutable,
}

impl Access {
    pub(crate) fn new(mutable: bool) -> Self {
        if mutable { Self::Mutable } else { Self::Strict }
    }

    /// Owner (user and group) of every input.
    pub(crate) const fn owner(self) -> u32 {
        match self {
            Self::Strict => 0,
            Self::Mutable => ACTION_ID,
        }
    }

    /// Permission bits of an input directory.
    pub(crate) const fn directory_mode(self) -> u16 {
        match self {
            Self::Strict => 0o1777,
            Self::Mutable => 0o755,
        }
    }

    /// Permission bits of an input file.
    pub(crate) const fn file_mode(self, executable: bool) -> u16 {
        match (self, executable) {
            (Self::Strict, false) => 0o444,
            (Self::Strict, true) => 0o555,
            (Self::Mutable, false) => 0o644,
            (Self::Mutable, true) => 0o755,
        }
    }
}
