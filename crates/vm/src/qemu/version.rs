//! QEMU's version, and what depends on it.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

/// The first whose emulator translates code with the pages locked that the code is on. Earlier ones
/// can translate code while another CPU of the guest rewrites it, and then run the old translation for
/// ever. Linux rewrites its own code when it boots: one guest in ten died of it, with "Oops: int3".
/// (QEMU commit deba78709ae8, "accel/tcg: Always lock pages before translation".)
const EMULATES_IN_PARALLEL: Version = Version(8, 1);

impl Version {
    /// Asks `program`; takes some ten milliseconds.
    ///
    /// # Errors
    /// When it does not start, or says something else.
    pub(super) fn of(program: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        let output =
            command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        Self::parse(&said).ok_or_else(|| io::Error::other("its --version tells no version"))
    }

    fn parse(said: &str) -> Option<Self> {
        let (_, version) = said.lines().next()?.split_once("version ")?;
        let mut numbers = version.split(|character: char| !character.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self(next()?, next()?))
    }

    /// Whether each of a guest's CPUs can be emulated by a thread of its own.
    pub(super) fn emulates_in_parallel(self) -> bool {
        self >= EMULATES_IN_PARALLEL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c)";
        assert_eq!(Version::parse(debian), Some(Version(7, 2)));
        assert_eq!(Version::parse("QEMU emulator version 10.0"), Some(Version(10, 0)));
        for other in ["", "version", "QEMU emulator version x.y"] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
    }

    #[test]
    fn threads_are_for_those_that_lock() {
        let parallel = |major, minor| Version(major, minor).emulates_in_parallel();
        assert!(!parallel(7, 2) && !parallel(8, 0));
        assert!(parallel(8, 1) && parallel(9, 0) && parallel(10, 0));
    }
}
