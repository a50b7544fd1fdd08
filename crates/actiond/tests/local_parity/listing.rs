//! A tree in words that are the same for equal trees on all file systems.

use std::collections::HashMap;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::program::shown_errno;

/// The file of the program itself, which is in an input root only.
pub(crate) const PROGRAM: &str = "program";

/// The time of all inputs, 2000-01-01.
const INPUT_SECONDS: i64 = 946_684_800;

/// Sequences set times below this, in seconds.
const SET_SECONDS: i64 = 2000;

/// Prints the working directory with everything in it.
pub(crate) fn print(exact_inputs: bool) {
    let mut listing = Listing { exact_inputs, first_names: HashMap::new() };
    listing.entry(".");
}

struct Listing {
    exact_inputs: bool,
    /// The first name of each file, by its device and inode: the layers of an overlay number theirs apart.
    first_names: HashMap<(u64, u64), String>,
}

impl Listing {
    fn entry(&mut self, path: &str) {
        let stat = match rustix::fs::lstat(path) {
            Ok(stat) => stat,
            Err(errno) => return println!("{path}: {}", shown_errno(errno)),
        };
        let mode = stat.st_mode & 0o7777;
        let time = self.time(&stat);
        let xattrs = attributes(path);
        let content = self.content(path, &stat);
        println!("{path} {} {mode:o} {}{time}{xattrs} {content}", kind(&stat), stat.st_uid);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            for name in names(path).unwrap_or_default() {
                self.entry(&format!("{path}/{name}"));
            }
        }
    }

    fn time(&self, stat: &Stat) -> String {
        match stat.st_mtime {
            seconds @ 0..SET_SECONDS => format!(" {seconds}.{}", stat.st_mtime_nsec),
            INPUT_SECONDS if self.exact_inputs => " input".to_owned(),
            _ => String::new(),
        }
    }

    fn content(&mut self, path: &str, stat: &Stat) -> String {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let identity = (stat.st_dev, stat.st_ino);
                let first = self.first_names.entry(identity).or_insert_with(|| path.to_owned());
                let content = std::fs::read(path);
                let content = content.map_or_else(|error| error.to_string(), |bytes| hash(&bytes));
                let links = links(stat, self.exact_inputs);
                format!("{}{links}, as {first}: {content}", stat.st_size)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlink(path, Vec::new());
                target.map_or_else(shown_errno, |target| format!("{target:?}"))
            }
            FileType::Directory => names(path).err().map_or(String::new(), shown_errno),
            _ => String::new(),
        }
    }
}

/// The links of a file, for words about it.
pub(crate) fn links(stat: &Stat, exact_inputs: bool) -> String {
    let is_known = exact_inputs || stat.st_uid != 0;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if is_file && is_known { format!(" {} links", stat.st_nlink) } else { String::new() }
}

/// Sorted.
pub(crate) fn names(path: &str) -> Result<Vec<String>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if ![".", "..", PROGRAM].contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub(crate) fn kind(stat: &Stat) -> &'static str {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Socket => "socket",
        FileType::Fifo => "pipe",
        _ => "special",
    }
}

fn attributes(path: &str) -> String {
    let mut names = [0; 1024];
    match rustix::fs::llistxattr(path, &mut names) {
        Ok(0) => String::new(),
        Ok(length) => format!(" {}", xattrs(&names[..length])),
        Err(errno) => format!(" {}", shown_errno(errno)),
    }
}

/// The names of extended attributes, as the kernel lists them, in order.
pub(crate) fn xattrs(names: &[u8]) -> String {
    let text = String::from_utf8_lossy(names).into_owned();
    // The label that SELinux puts on every file is the system's.
    let names = text.split_terminator('\0').filter(|name| *name != "security.selinux");
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.join(",")
}

/// FNV-1a, and the length.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{} bytes {hash:016x}", bytes.len())
}
