//! Owners, modes and times of inputs: what an action sees, and what it may do to its inputs.
//!
//! Modes are those of local execution: 0755 for directories and executables, 0644 for other files,
//! so that the owner of a copy can change it. Directories and symlinks belong to the action: it can
//! make, move, replace and remove *names* in its own view. *Files* belong to root in strict mode, so
//! the action cannot open them for writing or change their attributes.
//!
//! In a user namespace with one id, the action's user is the server's, and inputs belong to it. In
//! strict mode their modes are 0444 and 0555 then: an action that means to change a file has to change
//! its mode first, and changes a copy in its own view.
//!
//! No blob is at risk in any mode: contents come from a layer that nothing can write, and a
//! change of a name goes to the action's own staging directory. The reasons are in
//! `docs/decisions/2026-11-29-names-are-the-actions-own.md`.

use std::os::fd::BorrowedFd;
use std::sync::LazyLock;

use model::{ACTION_ID, Mtime, NodeProperties};

/// Modification time of everything in an input root: 2000-01-01T00:00:00Z, in seconds since 1970.
///
/// A fixed time keeps results from depending on when an action ran, and a plausible one keeps tools
/// that refuse dates before 1980 (zip) working.
pub(crate) const MODIFIED_SECONDS: u64 = 946_684_800;

/// [`MODIFIED_SECONDS`] as a node property.
const MODIFIED: Mtime = Mtime { seconds: MODIFIED_SECONDS as i64, nanos: 0 };

/// Permission bits of every directory.
pub(crate) const DIRECTORY_MODE: u16 = 0o755;

static HAS_OWN_USER: LazyLock<bool> = LazyLock::new(|| sys::user_namespace::maps(ACTION_ID));

/// Whether actions have a user of their own. It never changes: a process enters its user namespace
/// before it makes input roots.
pub(crate) fn has_own_user() -> bool {
    *HAS_OWN_USER
}

/// The id by which this process knows the user and the group of actions.
pub(crate) fn action_id() -> u32 {
    if has_own_user() { ACTION_ID } else { 0 }
}

/// A user and group of the host that stand for 65534 in one sandbox, and in no other that runs at the same time.
#[derive(Debug, Clone, Copy)]
pub struct HostUser<'a> {
    /// The id of both on the host.
    pub id: u32,
    /// A user namespace that maps 0 to 0 and 65534 to `id`, for users and groups.
    pub namespace: BorrowedFd<'a>,
}

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
    pub(crate) fn file_owner(self) -> u32 {
        match self {
            Self::Strict => 0,
            Self::Mutable => action_id(),
        }
    }
}

/// Permission bits of an input file without node properties, if root owns it or it may be changed.
pub(crate) const fn file_mode(executable: bool) -> u16 {
    if executable { 0o755 } else { 0o644 }
}

/// Permission bits and group of an input file. A mode that the client gave is kept but for the
/// set-user-ID, set-group-ID and sticky bits, which mean nothing in a sandbox.
///
/// In strict mode the action does not own the file, and is to read and execute what its owner may, and to
/// write nothing. So it becomes one of the others or one of the group, as whichever of them the mode lets
/// it do that. Where neither fits, the others are given the owner's rights. Where it has no user of its own,
/// it is the owner, and nobody may write.
pub(crate) fn file_rights(
    executable: bool,
    properties: &NodeProperties,
    access: Access,
) -> (u16, u32) {
    if !has_own_user() {
        let mode = properties.unix_mode.map_or(file_mode(executable), |mode| mode & 0o777);
        return (if access == Access::Mutable { mode } else { mode & 0o555 }, 0);
    }
    let Some(mode) = properties.unix_mode else {
        return (file_mode(executable), access.file_owner());
    };
    let mode = mode & 0o777;
    if access == Access::Mutable {
        return (mode, ACTION_ID);
    }
    let owner = mode >> 6 & 0o5;
    let fits = |rights: u16| rights & 0o7 == owner;
    match mode {
        mode if fits(mode) => (mode, 0),
        mode if fits(mode >> 3) => (mode, ACTION_ID),
        mode => (mode & 0o770 | owner, 0),
    }
}

/// Permission bits of a directory, which belongs to the action.
pub(crate) fn directory_mode_of(properties: &NodeProperties) -> u16 {
    properties.unix_mode.map_or(DIRECTORY_MODE, |mode| mode & 0o777)
}

/// The time of modification of anything in an input root.
pub(crate) fn modified(properties: &NodeProperties) -> Mtime {
    properties.mtime.unwrap_or(MODIFIED)
}

/// Permission bits of a file below a mount, which nobody sees. No input has them.
pub(crate) const PLACEHOLDER_MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_clients_give() {
        let check = |unix_mode, strict, mutable| {
            let properties = NodeProperties { unix_mode: Some(unix_mode), mtime: None };
            assert_eq!(file_rights(false, &properties, Access::Strict), strict, "{unix_mode:o}");
            let rights = file_rights(false, &properties, Access::Mutable);
            assert_eq!(rights, (mutable, ACTION_ID), "{unix_mode:o}");
            assert_eq!(directory_mode_of(&properties), mutable);
        };
        check(0o644, (0o644, 0), 0o644);
        check(0o555, (0o555, 0), 0o555);
        check(0o664, (0o664, 0), 0o664);
        check(0o751, (0o751, ACTION_ID), 0o751);
        check(0o640, (0o640, ACTION_ID), 0o640);
        check(0o600, (0o604, 0), 0o600);
        check(0o700, (0o705, 0), 0o700);
        // An input is not written to, and nobody becomes root.
        check(0o666, (0o664, 0), 0o666);
        check(0o4755, (0o755, 0), 0o755);
        check(0, (0, 0), 0);
    }
}
