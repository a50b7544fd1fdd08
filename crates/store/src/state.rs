//! The state file: how the last server ended, and up to when everything had reached the disk.

use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::disk::{fsync, openat, unlinkat};
use crate::root::write_synced;

const FIRST_LINE: &str = "actiond state 1";
/// More than a state file has.
const BYTES_MAX: usize = 256;
/// A checkpoint is recorded this much earlier than it began: change times come from a clock that
/// ticks every few milliseconds, and a publication that is under way has its time already.
const CHECKPOINT_MARGIN_SECONDS: i64 = 2;

/// Identifies one run of the machine; see `random(4)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootId(pub(crate) Option<String>);

impl BootId {
    /// That of the running machine.
    pub(crate) fn current() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Self(text.ok().and_then(|text| Self::parse(text.trim_end())))
    }

    fn parse(text: &str) -> Option<String> {
        let is_id = (8..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_id.then(|| text.to_owned())
    }
}

/// The content of the state file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateFile {
    pub(crate) boot: BootId,
    pub(crate) clean: bool,
    /// In seconds since the epoch: everything that changed before had reached the disk.
    pub(crate) checkpoint: i64,
}

/// The work that the last server's end leaves for this start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Everything is on the disk.
    Nothing,
    /// Files changed since then, in seconds since the epoch, may be torn.
    Verify {
        /// The last checkpoint.
        since: i64,
    },
}

impl StateFile {
    /// Reads the state file; `None` if there is none that can be understood.
    pub(crate) fn read(root: &OwnedFd) -> Option<Self> {
        let mut content = Vec::with_capacity(BYTES_MAX);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(root, "state", flags, Mode::empty()).ok()?;
        rustix::io::read(&file, rustix::buffer::spare_capacity(&mut content)).ok()?;
        Self::parse(str::from_utf8(&content).ok()?)
    }

    /// Replaces the state file, on the disk when this returns.
    pub(crate) fn write(&self, temporary: &OwnedFd, root: &OwnedFd) -> rustix::io::Result<()> {
        write_synced(temporary, "state", root, self.format().as_bytes())
    }

    /// Removes the state file, on the disk when this returns.
    pub(crate) fn remove(root: &OwnedFd) -> rustix::io::Result<()> {
        match unlinkat(root, "state", AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => fsync(root),
            Err(e) => Err(e),
        }
    }

    /// The work of a server that starts now, in seconds since the epoch.
    ///
    /// That the machine still runs does not help: a device that was unplugged, or a file system that
    /// was mounted anew after an error, loses what was not synced just as well. And what a server
    /// stores between two checkpoints is hashed in a moment.
    pub(crate) fn recovery(last: Option<&Self>, now: i64) -> Recovery {
        match last {
            Some(state) if state.clean => Recovery::Nothing,
            // One in the future is of a clock that was set back: what is older is not known.
            Some(state) if state.checkpoint <= now => Recovery::Verify { since: state.checkpoint },
            _ => Recovery::Verify { since: i64::MIN },
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let boot = field("boot")?;
        let clean = field("clean")?;
        let checkpoint = field("checkpoint")?.parse().ok()?;
        let boot = BootId(match boot {
            "-" => None,
            id => Some(BootId::parse(id)?),
        });
        let clean = match clean {
            "yes" => true,
            "no" => false,
            _ => return None,
        };
        lines.next().is_none().then_some(Self { boot, clean, checkpoint })
    }

    fn format(&self) -> String {
        format!(
            "{FIRST_LINE}\nboot {}\nclean {}\ncheckpoint {}\n",
            self.boot.0.as_deref().unwrap_or("-"),
            if self.clean { "yes" } else { "no" },
            self.checkpoint,
        )
    }
}

/// The time in seconds since the epoch.
pub(crate) fn seconds_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 makes everything look young, which is the safe side.
    now.map_or(0, |since| since.as_secs() as i64)
}

/// The time to record for a checkpoint that begins now.
pub(crate) fn checkpoint_now() -> i64 {
    seconds_now() - CHECKPOINT_MARGIN_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(boot: Option<&str>, clean: bool) -> StateFile {
        StateFile { boot: BootId(boot.map(str::to_owned)), clean, checkpoint: 1_700_000_000 }
    }

    #[test]
    fn the_file_round_trips() {
        for boot in [None, Some("0a230aa0-17c8-452c-ba5b-ecdff9f2e548")] {
            for clean in [false, true] {
                let state = state(boot, clean);
                assert_eq!(StateFile::parse(&state.format()), Some(state));
            }
        }
    }

    #[test]
    fn a_file_that_is_torn_or_foreign_is_no_state() {
        let whole = state(Some("0a230aa0-17c8"), true).format();
        for end in 0..whole.len() {
            assert_eq!(StateFile::parse(&whole[..end]), None, "cut at {end}");
        }
        for text in [
            whole.replace("state 1", "state 2"),
            whole.replace("yes", "maybe"),
            whole.replace("0a23", "0a/3"),
            format!("{whole}more\n"),
            whole.replace("1700000000", "soon"),
        ] {
            assert_eq!(StateFile::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn only_an_end_in_order_makes_nothing_suspect() {
        let since = 1_700_000_000;
        let everything = Recovery::Verify { since: i64::MIN };
        for (last, now, expected) in [
            (Some(state(Some("bbbbbbbb"), true)), since, Recovery::Nothing),
            (Some(state(Some("bbbbbbbb"), true)), since - 1, Recovery::Nothing),
            (Some(state(Some("aaaaaaaa"), false)), since, Recovery::Verify { since }),
            (Some(state(None, false)), since + 1, Recovery::Verify { since }),
            (Some(state(None, false)), since - 1, everything),
            (None, since, everything),
        ] {
            assert_eq!(StateFile::recovery(last.as_ref(), now), expected, "{last:?}");
        }
    }
}
