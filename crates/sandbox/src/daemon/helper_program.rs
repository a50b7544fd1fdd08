//! The program that helpers run: a sealed copy in memory, not the file that the daemon was started from.
//!
//! A helper's process becomes the action by execve(2), and until then `/proc/self/exe` is what the helper
//! was started from. An action chooses what is executed, and could name that: as its program, through a
//! symlink, in a `#!` line, in its PATH. It would run the host's file, and have it open (CVE-2019-5736).
//! So helpers are started from a memfd that nobody can write to any more, and that nobody may read or
//! execute without a capability, which an action lacks. That holds even where actions have the server's own
//! user: the owner has no right to it either.
//!
//! The copy is made once by each daemon. It holds what the kernel loads of the program, and neither its
//! debug information nor the files that it carries.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use object::{Object, ObjectSegment, ReadCache};
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;

use crate::daemon::error::RunError;
use crate::plan::step::StepName;

/// Executable at all, and by nobody but with CAP_DAC_OVERRIDE: the rights of the owner come before those
/// of the group, to which only the owner belongs.
const MODE: Mode = Mode::from_raw_mode(0o010);

/// The largest copy: it is memory that cannot be reclaimed. The daemon has some 10 MiB to load.
const MAX_BYTES: u64 = 256 << 20;

/// Copies the program at `path` to sealed memory. Where the limit of file sizes forbids it, which holds for
/// memory too, the program is opened as it is: a server that stores little is better than none.
pub(super) fn seal(path: &Path) -> Result<OwnedFd, RunError> {
    let sealed = match sealed_copy(path) {
        Err(error) if error.raw_os_error() == Some(Errno::FBIG.raw_os_error()) => {
            tracing::warn!(
                "actions can execute this server's program as theirs: the limit of file sizes is too \
                 low for a sealed copy of it"
            );
            File::open(path).map(OwnedFd::from)
        }
        sealed => sealed,
    };
    sealed.map_err(|error| {
        let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        RunError::with_detail(StepName::SealHelper, errno, format!("{}: {error}", path.display()))
    })
}

fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    let mut program = File::open(path)?;
    let length = loaded_bytes(&program)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::EXEC;
    let mut copy = File::from(rustix::fs::memfd_create(c"sandbox-helper", flags)?);
    program.rewind()?;
    let copied = io::copy(&mut program.take(length), &mut copy)?;
    if copied != length {
        return Err(io::Error::other("the program got shorter while it was copied"));
    }
    rustix::fs::fchmod(&copy, MODE)?;
    let seals = SealFlags::WRITE | SealFlags::FUTURE_WRITE | SealFlags::GROW | SealFlags::SHRINK;
    sys::memfd::add_seals(&copy, seals | SealFlags::EXEC | SealFlags::SEAL)?;
    Ok(copy.into())
}

/// Bytes from the start of an ELF file to the end of the last segment that is loaded.
fn loaded_bytes(program: &File) -> io::Result<u64> {
    let cache = ReadCache::new(program);
    let parsed = object::File::parse(&cache).map_err(io::Error::other)?;
    let ends = parsed.segments().map(|segment| {
        let (start, length) = segment.file_range();
        start.saturating_add(length)
    });
    let length = ends.max().unwrap_or(0);
    if length > MAX_BYTES {
        return Err(io::Error::other(format!("it takes more than {MAX_BYTES} bytes of memory")));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn own_program() -> OwnedFd {
        seal(&std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn nobody_can_change_the_copy() {
        let copy = own_program();
        let seals = rustix::fs::fcntl_get_seals(&copy).unwrap();
        let all = SealFlags::SEAL
            | SealFlags::SHRINK
            | SealFlags::GROW
            | SealFlags::WRITE
            | SealFlags::FUTURE_WRITE
            | SealFlags::EXEC;
        assert_eq!(seals, all);
        let file = File::from(copy);
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o010);
        assert_eq!(file.metadata().unwrap().uid(), 0);
        assert!(file.write_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
        assert!(rustix::fs::fchmod(&file, Mode::from_raw_mode(0o755)).is_err());
    }

    #[test]
    fn the_copy_runs() {
        let copy = own_program();
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let output = std::process::Command::new(path).arg("--list").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("the_copy_runs"), "{text}");
    }

    #[test]
    fn the_copy_has_what_is_loaded_only() {
        let program = File::open(std::env::current_exe().unwrap()).unwrap();
        let whole = program.metadata().unwrap().len();
        let loaded = loaded_bytes(&program).unwrap();
        assert!(loaded < whole, "{loaded} of {whole} bytes");
        assert_eq!(File::from(own_program()).metadata().unwrap().len(), loaded);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let error = seal(Path::new("/etc/passwd")).unwrap_err();
        assert_eq!(error.step(), StepName::SealHelper);
        let error = seal(Path::new("/nowhere")).unwrap_err();
        assert_eq!((error.step(), error.errno()), (StepName::SealHelper, Errno::NOENT));
    }
}
