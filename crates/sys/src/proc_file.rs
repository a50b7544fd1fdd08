//! Small files of `/proc`, `/sys` and cgroup file systems.
//!
//! The kernel makes their content when they are read, and takes a value in a single write(2).

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::str::FromStr;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// The most bytes that are read. Settings have a line; `mountinfo` of a busy container host has some
/// hundred KiB.
const MAX_BYTES: u64 = 4 << 20;

/// Reads a file to its end; `path` is relative to `directory`, or absolute.
///
/// # Errors
/// Of openat(2) and read(2); EFBIG for more than 4 MiB.
pub fn read(directory: impl AsFd, path: impl Arg) -> Result<String, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, path, flags, Mode::empty())?);
    let mut content = Vec::with_capacity(4096);
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut content);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    if content.len() as u64 > MAX_BYTES {
        return Err(Errno::FBIG);
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// Reads a file that has a single value, such as a number.
///
/// # Errors
/// As [`read`]; EBADMSG for anything but a value.
pub fn parse<T: FromStr>(directory: impl AsFd, path: impl Arg) -> Result<T, Errno> {
    read(directory, path)?.trim().parse().map_err(|_| Errno::BADMSG)
}

/// Writes a value.
///
/// # Errors
/// Of openat(2) and write(2).
pub fn write(directory: impl AsFd, path: impl Arg, value: impl AsRef<[u8]>) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, path, flags, Mode::empty())?;
    rustix::io::write(file, value.as_ref()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;

    #[test]
    fn values_are_read_and_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write(CWD, file.path(), "17\n").unwrap();
        assert_eq!(read(CWD, file.path()).unwrap(), "17\n");
        assert_eq!(parse::<u32>(CWD, file.path()), Ok(17));
        write(CWD, file.path(), "x").unwrap();
        assert_eq!(parse::<u32>(CWD, file.path()), Err(Errno::BADMSG));
        assert_eq!(read(CWD, "/proc/nothing"), Err(Errno::NOENT));
    }

    #[test]
    fn an_endless_file_is_too_big() {
        assert_eq!(read(CWD, "/dev/zero"), Err(Errno::FBIG));
    }
}
