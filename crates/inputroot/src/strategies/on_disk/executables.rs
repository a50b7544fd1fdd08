//! Executable copies of blobs, hard-linked into input roots.
//!
//! A blob belongs to root and has mode 0444. A copy of root's with mode 0755 is as safe: an action can
//! run it but not write to it, and can only remove its own link. Links in input roots outlive the
//! copy.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::{Digest, NodeProperties};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::files::{copy, make_file};
use super::walk::{c_string, failed};
use crate::access::{Access, file_rights};
use crate::error::PresentError;

/// The disk that copies may take: room for the tools of some toolchains.
const MAX_BYTES: u64 = 4 << 30;

/// The copies used last.
#[derive(Debug)]
pub(crate) struct Executables {
    directory: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each was used last, on a clock that counts uses.
    used: HashMap<Digest, u64>,
    bytes: u64,
    clock: u64,
}

impl Executables {
    /// `directory` is empty, and on one file system with the input roots.
    pub(crate) fn new(directory: OwnedFd) -> Self {
        Self { directory, state: Mutex::default() }
    }

    /// Links an executable copy of a blob to `name`.
    ///
    /// Copies are made one at a time, so that the second of two actions with the same compiler finds
    /// the copy of the first.
    pub(super) fn link(
        &self,
        blobs: &OwnedFd,
        digest: &Digest,
        into: BorrowedFd<'_>,
        name: &CStr,
    ) -> Result<(), PresentError> {
        let mut state = self.state.lock();
        state.clock += 1;
        let used = state.clock;
        let copy_name = copy_name(digest);
        let link =
            || rustix::fs::linkat(&self.directory, &*copy_name, into, name, AtFlags::empty());
        if state.used.insert(*digest, used).is_some() {
            match link() {
                // The copy has all the links that a file can have: the next one starts anew.
                Err(Errno::MLINK) => {}
                done => return done.map_err(failed("link", name)),
            }
        } else {
            state.bytes += digest.size_bytes();
        }
        let made = self.make(blobs, digest, &copy_name).and_then(|()| link());
        if made.is_err() {
            self.forget(&mut state, digest);
        }
        self.evict(&mut state);
        made.map_err(failed("make the executable", name))
    }

    fn make(&self, blobs: &OwnedFd, digest: &Digest, name: &CStr) -> Result<(), Errno> {
        let file = make_file(&self.directory, name)?;
        copy(blobs, digest, &file)?;
        let (mode, _) = file_rights(true, &NodeProperties::default(), Access::Strict);
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode.into()))
    }

    /// Deletes those not used for longest until the rest is small enough.
    fn evict(&self, state: &mut State) {
        while state.bytes > MAX_BYTES {
            let oldest = state.used.iter().min_by_key(|(_, used)| **used);
            let Some(oldest) = oldest.map(|(digest, _)| *digest) else { return };
            self.forget(state, &oldest);
        }
    }

    fn forget(&self, state: &mut State, digest: &Digest) {
        if state.used.remove(digest).is_some() {
            state.bytes -= digest.size_bytes();
        }
        let removed =
            rustix::fs::unlinkat(self.directory.as_fd(), &*copy_name(digest), AtFlags::empty());
        if let Err(errno) = removed
            && errno != Errno::NOENT
        {
            tracing::warn!(%digest, %errno, "the executable copy of a blob could not be deleted");
        }
    }
}

fn copy_name(digest: &Digest) -> CString {
    c_string(format!("{}-{}", digest.function().name(), digest.hex()).as_bytes())
}
