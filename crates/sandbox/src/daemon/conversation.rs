//! The streams of an action that someone talks to: a pseudoterminal for a person, pipes for a script.
//!
//! The pseudoterminal is the only one in a devpts(5) that is mounted nowhere: no process of the host finds it by a
//! path, and the action gets descriptors of it and nothing else of that file system. The system call filter keeps the
//! action from putting words into the terminal's input (TIOCSTI) and from loading line disciplines (TIOCSETD), as it
//! does for the pseudoterminals in an action's own `/dev/pts`.
//!
//! A script gets no terminal: that would take some bytes of it for keys, such as Ctrl-C, echo it, and lose its end
//! when a shell changes the modes.

use std::os::fd::{AsFd, OwnedFd};

use model::ACTION_ID;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use sys::mount::{FsContext, MountAttributes, MountError};

use crate::plan::Ids;

/// Both ends of the streams.
#[derive(Debug)]
pub struct Conversation {
    /// The end that gives the action its input; it does not block. To close it ends the input, unless that is a
    /// terminal.
    pub input: OwnedFd,
    /// The end at which the output of the action comes; it does not block.
    pub output: OwnedFd,
    /// The ends of the action, for [`Spec::conversation`](crate::Spec::conversation).
    pub of_action: ActionStreams,
}

/// The action's ends of its streams.
#[derive(Debug)]
pub struct ActionStreams {
    pub(crate) input: OwnedFd,
    /// Standard output and error, in one order.
    pub(crate) output: OwnedFd,
    /// Whether both are one terminal.
    pub(crate) is_terminal: bool,
}

impl ActionStreams {
    /// Gives the streams to the action's user on the host, so that it may open what its descriptors are. Without one of
    /// its own they stay 65534's.
    pub(crate) fn give_to(&self, owner: Option<u32>) -> Result<(), Errno> {
        let Some(id) = owner.filter(|id| *id != ACTION_ID) else { return Ok(()) };
        let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
        for stream in [&self.input, &self.output] {
            rustix::fs::fchown(stream, Some(user), Some(group))?;
        }
        Ok(())
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// Errors of making the streams.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// The terminal's file system can't be made.
    #[error("mounting a devpts for the terminal")]
    Mount(#[source] MountError),
    /// The terminal can't be opened, such as when the machine has no more of them (kernel.pty.max).
    #[error("opening the terminal")]
    Terminal(#[source] Errno),
    /// The pipes can't be made.
    #[error("making pipes for the streams")]
    Pipes(#[source] Errno),
}

impl Conversation {
    /// A terminal of that size.
    ///
    /// # Errors
    /// [`ConversationError`]: the kernel refused it.
    pub fn on_terminal(size: TerminalSize) -> Result<Self, ConversationError> {
        let mount = file_system(Ids::of_this_process()).map_err(ConversationError::Mount)?;
        terminal(&mount, size).map_err(ConversationError::Terminal)
    }

    /// A pipe in each direction.
    ///
    /// # Errors
    /// [`ConversationError`]: the kernel refused it.
    pub fn through_pipes() -> Result<Self, ConversationError> {
        pipes(Ids::of_this_process()).map_err(ConversationError::Pipes)
    }
}

/// Tells a terminal, by its end that is not the action's, that its window has another size.
///
/// # Errors
/// When that is no terminal.
pub fn resize(input: impl AsFd, size: TerminalSize) -> Result<(), Errno> {
    let TerminalSize { rows, columns } = size;
    tcsetwinsize(input, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
}

fn file_system(ids: Ids) -> Result<OwnedFd, MountError> {
    let context = FsContext::open("devpts")?;
    let action = ACTION_ID.to_string();
    for (key, value) in [("ptmxmode", "0600"), ("mode", "0600"), ("max", "1")] {
        context.string(key, value)?;
    }
    if ids.has_action {
        // The action may open what its descriptors are, as /dev/stdin.
        context.string("uid", &action)?;
        context.string("gid", &action)?;
    }
    context.mount(MountAttributes::MOUNT_ATTR_NOSUID | MountAttributes::MOUNT_ATTR_NOEXEC)
}

fn terminal(mount: &OwnedFd, size: TerminalSize) -> Result<Conversation, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let ours = rustix::fs::openat(mount, c"ptmx", flags, Mode::empty())?;
    unlockpt(&ours)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    let mut modes = tcgetattr(&theirs)?;
    // A character that is erased is one of UTF-8.
    modes.input_modes |= InputModes::IUTF8;
    tcsetattr(&theirs, OptionalActions::Now, &modes)?;
    resize(&ours, size)?;
    let [input, output] = [&ours, &theirs].map(|end| rustix::io::fcntl_dupfd_cloexec(end, 0));
    Ok(Conversation {
        input: input?,
        output: ours,
        of_action: ActionStreams { input: theirs, output: output?, is_terminal: true },
    })
}

fn pipes(ids: Ids) -> Result<Conversation, Errno> {
    let (their_input, input) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (output, their_output) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    for ours in [&input, &output] {
        rustix::fs::fcntl_setfl(ours, OFlags::NONBLOCK)?;
    }
    if ids.has_action {
        // As for the terminal.
        let (user, group) = (Uid::from_raw(ACTION_ID), Gid::from_raw(ACTION_ID));
        for theirs in [&their_input, &their_output] {
            rustix::fs::fchown(theirs, Some(user), Some(group))?;
        }
    }
    let of_action = ActionStreams { input: their_input, output: their_output, is_terminal: false };
    Ok(Conversation { input, output, of_action })
}
