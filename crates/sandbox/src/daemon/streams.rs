//! Standard output and error on their way from the action to the caller.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Gid, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

/// Takes what an action writes.
pub trait OutputSink {
    /// Takes the next bytes; `Break` stops the action, and nothing more comes.
    fn write(&mut self, bytes: &[u8]) -> ControlFlow<()>;
}

/// Keeps everything. Only for callers who know that it is little.
impl OutputSink for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        self.extend_from_slice(bytes);
        ControlFlow::Continue(())
    }
}

/// The destination of an action's output.
pub struct Streams<'a> {
    /// Descriptor 1.
    pub stdout: &'a mut dyn OutputSink,
    /// Descriptor 2.
    pub stderr: &'a mut dyn OutputSink,
}

/// Bytes read at once: what a pipe holds by default.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// Our end of a pipe, and who gets what comes out of it.
pub(crate) struct Stream<'a> {
    pipe: Option<OwnedFd>,
    sink: &'a mut dyn OutputSink,
    refused: bool,
}

impl<'a> Stream<'a> {
    /// Returns the end for the action beside it. That is given to `owner`, the action's
    /// user, so that it can be opened as `/dev/stdout`.
    pub(crate) fn new(
        sink: &'a mut dyn OutputSink,
        owner: Option<u32>,
    ) -> Result<(Self, OwnedFd), Errno> {
        let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Never wait in a read: a writer that outlives the action (in flight in a
        // socket that the kernel has not collected yet) must not hold us up.
        rustix::fs::fcntl_setfl(&ours, OFlags::NONBLOCK)?;
        if let Some(id) = owner {
            let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
            rustix::fs::fchown(&theirs, Some(user), Some(group))?;
        }
        Ok((Self { pipe: Some(ours), sink, refused: false }, theirs))
    }

    /// The event to wait for: nothing once it has ended.
    pub(crate) fn interest(&self) -> Option<PollFd<'_>> {
        self.pipe.as_ref().map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN))
    }

    /// Passes one chunk on. `Continue(true)` if there may be more at once.
    pub(crate) fn pump(&mut self, chunk: &mut [u8]) -> ControlFlow<(), bool> {
        let Some(pipe) = &self.pipe else { return ControlFlow::Continue(false) };
        match rustix::io::read(pipe, &mut *chunk) {
            Ok(0) => self.pipe = None,
            Ok(length) => {
                return self.pass(chunk.get(..length).unwrap_or_default()).map_continue(|()| true);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nothing else is documented for a pipe; it can't be read on.
            Err(_) => self.pipe = None,
        }
        ControlFlow::Continue(false)
    }

    fn pass(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        if self.refused {
            return ControlFlow::Continue(());
        }
        let flow = self.sink.write(bytes);
        self.refused = flow.is_break();
        flow
    }

    /// Passes on what is left of an action that is dead. A refusal has no
    /// consequence but that nothing more is passed on.
    pub(crate) fn drain(&mut self, chunk: &mut [u8]) -> ControlFlow<()> {
        while self.pump(chunk)? {}
        ControlFlow::Continue(())
    }
}
