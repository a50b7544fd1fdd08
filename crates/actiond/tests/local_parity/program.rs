//! The program that runs in an input root and in a plain directory, and says what it saw.
//!
//! It is this test binary, started with [`WORD`]. It makes a random sequence of system calls and runs
//! tools in between. The seed determines all of them; a step is left out where the tree would make it depend on the
//! order in which a file system lists directories, or on what is outside of the tree. For each step it prints a line
//! with the result or the errno; at the end it prints the tree.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::{
    Access, Advice, AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags,
    RenameFlags, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, IoSlice, IoSliceMut};

use crate::listing::{self, kind};
use crate::random::Random;
use crate::tools;

/// The first argument of the program.
pub(crate) const WORD: &str = "--parity-program";

/// System calls and tools of one sequence.
const STEPS: usize = 80;

/// Open files that calls can use.
const SLOTS: usize = 4;

const DIRECTORIES: [&str; 8] = ["out", "empty", "empty/deep", "d", "d/sub", "n", "out/n", "d/n"];

/// `A` and `a` differ by case only; the last but one has as many bytes as a name may have.
const NAMES: [&str; 8] = ["a", "b", "A", "in", "tool", "data", LONG, "\u{e9}\u{e0} \t"];
const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Inputs, and files that are often made: else most calls would only find that nothing is there.
const USUAL: [&str; 10] = [
    "d/in",
    "d/tool",
    "d/data",
    "d/sub/b",
    "d/sub/data",
    "out/a",
    "out/a",
    "out/b",
    "empty/a",
    "d/a",
];

/// Mostly usual ones: below a directory without permissions nothing can be seen.
const MODES: [u32; 18] = [
    0o755, 0o755, 0o755, 0o755, 0o644, 0o644, 0o700, 0o600, 0o750, 0o444, 0o2755, 0o1777, 0o4755,
    0o6711, 0o111, 0o222, 0o7777, 0,
];

/// The arguments of the program after [`WORD`].
#[derive(Debug, Clone)]
pub(crate) struct Arguments {
    /// `None` for the calls that are known to differ.
    pub(crate) seed: Option<u64>,
    /// A directory outside of the tree.
    pub(crate) scratch: String,
    /// Whether inputs have the time and the links that they have in a plain directory. With some strategies they
    /// are files of the store.
    pub(crate) exact_inputs: bool,
}

impl Arguments {
    pub(crate) fn words(&self) -> [String; 4] {
        let seed = self.seed.map_or("-".to_owned(), |seed| seed.to_string());
        [WORD.to_owned(), seed, self.scratch.clone(), self.exact_inputs.to_string()]
    }

    fn parse(words: &[&str]) -> Option<Self> {
        let [seed, scratch, exact_inputs] = *words else { return None };
        let seed = if seed == "-" { None } else { Some(seed.parse().ok()?) };
        Some(Self { seed, scratch: scratch.to_owned(), exact_inputs: exact_inputs.parse().ok()? })
    }
}

/// Runs the program, given the arguments after [`WORD`].
pub(crate) fn main(words: &[&str]) -> ExitCode {
    let Some(arguments) = Arguments::parse(words) else {
        eprintln!("not the arguments of this program: {words:?}");
        return ExitCode::FAILURE;
    };
    rustix::process::umask(Mode::from_raw_mode(0o022));
    match arguments.seed {
        None => crate::differences::run(),
        Some(seed) => {
            let mut sequence = Sequence {
                random: Random::new(seed),
                files: [const { None }; SLOTS],
                scratch: arguments.scratch,
                exact_inputs: arguments.exact_inputs,
            };
            for step in 0..STEPS {
                println!("{step} {}", sequence.step());
            }
        }
    }
    listing::print(arguments.exact_inputs);
    ExitCode::SUCCESS
}

struct Sequence {
    random: Random,
    files: [Option<OwnedFd>; SLOTS],
    scratch: String,
    exact_inputs: bool,
}

/// The words for a result.
fn told<T>(result: Result<T, Errno>, value: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(given) => value(given),
        Err(errno) => shown_errno(errno),
    }
}

pub(crate) fn shown_errno(errno: Errno) -> String {
    format!("errno {}", errno.raw_os_error())
}

fn is_at_the_top(path: &str) -> bool {
    !path.contains('/')
}

/// Whether the symlink `path`, if it is one, leads out of the tree once it is called `name`.
fn leads_out(path: &str, name: &str) -> bool {
    let goes_up = || {
        let target = rustix::fs::readlink(path, Vec::new());
        target.is_ok_and(|target| target.as_bytes().starts_with(b".."))
    };
    is_at_the_top(name) && goes_up()
}

/// Removed directories have different link counts; the kernel marks their names alike.
fn is_removed_directory(file: BorrowedFd<'_>) -> bool {
    let is_directory = rustix::fs::fstat(file).is_ok_and(|stat| kind(&stat) == "directory");
    let name = rustix::fs::readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new());
    is_directory && name.is_ok_and(|name| name.as_bytes().ends_with(b" (deleted)"))
}

fn has_set_id(file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_mode & 0o6000 != 0)
}

fn done(result: Result<(), Errno>) -> String {
    told(result, |()| "done".to_owned())
}

fn number<T: ToString>(result: Result<T, Errno>) -> String {
    told(result, |value| value.to_string())
}

impl Sequence {
    fn step(&mut self) -> String {
        match self.random.below(16) {
            0..=3 => self.names(),
            4..=6 => self.attributes(),
            7..=11 => self.contents(),
            12 => self.lookups(),
            _ => {
                let script = self.script();
                tools::run(&script, &self.scratch)
            }
        }
    }

    fn directory(&mut self) -> &'static str {
        self.random.of(&DIRECTORIES)
    }

    fn path(&mut self) -> String {
        let (directory, name) = (self.directory(), self.random.of(&NAMES));
        let usual = self.random.of(&USUAL);
        match self.random.below(40) {
            0 => format!("{directory}/{name}/"),
            1 => format!("{directory}/../{directory}//./{name}"),
            2 => format!("link/{name}"),
            3 => format!("{directory}/{name}x{LONG}"),
            4 => String::new(),
            5 => "link".to_owned(),
            6..20 => format!("{directory}/{name}"),
            _ => usual.to_owned(),
        }
    }

    /// A file or a directory.
    fn any(&mut self) -> String {
        if self.random.below(3) == 0 { self.directory().to_owned() } else { self.path() }
    }

    fn mode(&mut self) -> Mode {
        Mode::from_raw_mode(self.random.of(&MODES))
    }

    fn script(&mut self) -> String {
        let template = self.random.of(&tools::SCRIPTS);
        let (one, other) = (self.directory(), self.directory());
        let choice = self.random.of(&[("out", "d"), ("d", "empty"), ("empty", "out")]);
        let (one, other) = if tools::overlap(one, other) { choice } else { (one, other) };
        if tools::overlap(one, other) {
            return format!("# {one} and {other} overlap");
        }
        let file = |random: &mut Random, directory: &str| {
            format!("{directory}/{}", random.of(&["a", "b", "A", "tool", "in", "data"]))
        };
        let (f, g) = (self.directory(), self.directory());
        let (f, g) = (file(&mut self.random, f), file(&mut self.random, g));
        let mode = format!("{:o}", self.random.of(&MODES));
        let replaced = template.replace("{d}", one).replace("{e}", other).replace("{m}", &mode);
        replaced.replace("{f}", &f).replace("{g}", &g)
    }

    /// Calls that make, move and remove names.
    fn names(&mut self) -> String {
        let (one, other) = (self.any(), self.any());
        let (directory, mode) = (self.directory(), self.mode());
        let call = self.random.below(15);
        if leads_out(&one, &other) || leads_out(&other, &one) {
            return format!("# {one} at {other}, or the reverse, leads out of the tree");
        }
        match call {
            0 | 1 => {
                let made = rustix::fs::mkdir(directory, mode);
                format!("mkdir {directory} {mode:?}: {}", done(made))
            }
            2 => format!("mkdir {one}: {}", done(rustix::fs::mkdir(&one, mode))),
            3 => format!("rmdir {one}: {}", done(rustix::fs::rmdir(&one))),
            4 => format!("unlink {one}: {}", done(rustix::fs::unlink(&one))),
            5 | 6 => format!("rename {one} {other}: {}", done(rustix::fs::rename(&one, &other))),
            7 => self.rename_with(RenameFlags::NOREPLACE, &one, &other),
            8 => self.rename_with(RenameFlags::EXCHANGE, &one, &other),
            9 => self.rename_with(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE, &one, &other),
            10 => format!("link {one} {other}: {}", done(rustix::fs::link(&one, &other))),
            11 => {
                let flags = AtFlags::SYMLINK_FOLLOW;
                let linked = rustix::fs::linkat(CWD, &one, CWD, &other, flags);
                format!("linkat {one} {other} follow: {}", done(linked))
            }
            12 => {
                // None out of the tree: tools that follow it would copy the machine.
                let target = self.random.of(&["d/data", "../d", "nowhere", "../out/a", LONG, "a"]);
                let target = if is_at_the_top(&other) { "out" } else { target };
                let made = rustix::fs::symlink(target, &other);
                format!("symlink {target} {other}: {}", done(made))
            }
            13 => self.special(&one, mode),
            _ => {
                let removed = rustix::fs::unlinkat(CWD, &one, AtFlags::REMOVEDIR);
                format!("unlinkat {one} dir: {}", done(removed))
            }
        }
    }

    fn rename_with(&self, flags: RenameFlags, one: &str, other: &str) -> String {
        let renamed = rustix::fs::renameat_with(CWD, one, CWD, other, flags);
        format!("renameat2 {one} {other} {flags:?}: {}", done(renamed))
    }

    /// A pipe is removed at once: a tool that opens it waits.
    fn special(&mut self, path: &str, mode: Mode) -> String {
        let kind = self.random.of(&[
            FileType::Fifo,
            FileType::Socket,
            FileType::RegularFile,
            FileType::CharacterDevice,
            FileType::BlockDevice,
            FileType::Directory,
        ]);
        let device = rustix::fs::makedev(1, 3);
        let made = rustix::fs::mknodat(CWD, path, kind, mode, device);
        if made.is_ok() && kind == FileType::Fifo {
            let _ = rustix::fs::unlink(path);
        }
        format!("mknod {path} {kind:?}: {}", done(made))
    }

    /// Calls that read and change attributes.
    fn attributes(&mut self) -> String {
        let (path, mode, slot) = (self.any(), self.mode(), self.random.below(SLOTS));
        let follow = self.random.of(&[AtFlags::empty(), AtFlags::SYMLINK_NOFOLLOW]);
        let time = self.time();
        match self.random.below(16) {
            0 | 1 => format!("chmod {path} {mode:?}: {}", done(rustix::fs::chmod(&path, mode))),
            2 => {
                let changed = rustix::fs::chmodat(CWD, &path, mode, AtFlags::SYMLINK_NOFOLLOW);
                format!("fchmodat2 {path} {mode:?}: {}", done(changed))
            }
            3 => self.on_named(slot, "fchmod", |file| done(rustix::fs::fchmod(file, mode))),
            4 => {
                let id = self.random.of(&[65534, 0]);
                let (user, group) = (Some(Uid::from_raw(id)), Some(Gid::from_raw(id)));
                let changed = rustix::fs::chownat(CWD, &path, user, group, follow);
                format!("fchownat {path} {id}: {}", done(changed))
            }
            5 => self.on_named(slot, "fchown", |file| done(rustix::fs::fchown(file, None, None))),
            6 | 7 => {
                let changed = rustix::fs::utimensat(CWD, &path, &time, follow);
                format!("utimensat {path} {follow:?}: {}", done(changed))
            }
            8 => self.on_named(slot, "futimens", |file| done(rustix::fs::futimens(file, &time))),
            9 => {
                let name = self.attribute();
                let flags =
                    self.random.of(&[XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE]);
                let set = rustix::fs::setxattr(&path, name, b"value", flags);
                format!("setxattr {path} {name} {flags:?}: {}", done(set))
            }
            10 => {
                let name = self.attribute();
                let mut value = [0; 64];
                let read = rustix::fs::getxattr(&path, name, &mut value);
                format!("getxattr {path} {name}: {}", number(read))
            }
            11 => {
                let name = self.attribute();
                let removed = rustix::fs::removexattr(&path, name);
                format!("removexattr {path} {name}: {}", done(removed))
            }
            12 => format!("lstat {path}: {}", self.shown(rustix::fs::lstat(&path))),
            13 => format!("stat {path}: {}", self.shown(rustix::fs::stat(&path))),
            14 => {
                let wanted = self.random.of(&[
                    Access::EXISTS,
                    Access::READ_OK,
                    Access::WRITE_OK,
                    Access::EXEC_OK,
                ]);
                let allowed = rustix::fs::access(&path, wanted);
                format!("access {path} {wanted:?}: {}", done(allowed))
            }
            _ => self.on(slot, "fstat", |file| {
                // The link count of an open input that was removed is undefined; see `differences`.
                let stat = rustix::fs::fstat(file).map(|stat| (stat.st_uid == 0, stat));
                told(
                    stat,
                    |(is_input, stat)| {
                        if is_input { kind(&stat).to_owned() } else { self.shown(Ok(stat)) }
                    },
                )
            }),
        }
    }

    fn attribute(&mut self) -> &'static str {
        self.random.of(&[
            "user.a",
            "user.a",
            "user.b",
            "user.overlay.opaque",
            "trusted.a",
            "security.a",
            "nonsense",
        ])
    }

    fn time(&mut self) -> Timestamps {
        const NOW: i64 = 0x3fff_ffff;
        const OMIT: i64 = 0x3fff_fffe;
        let of = |random: &mut Random| Timespec {
            tv_sec: random.below(1000) as i64 + 1,
            tv_nsec: random.of(&[0, 0, 0, 999_999_999, NOW, OMIT]),
        };
        Timestamps { last_access: of(&mut self.random), last_modification: of(&mut self.random) }
    }

    /// Calls on open files.
    fn contents(&mut self) -> String {
        let (slot, other) = (self.random.below(SLOTS), self.random.below(SLOTS));
        let (path, mode) = (self.any(), self.mode());
        let offset = self.random.of(&[0, 1, 4096, 5000, 65536, 70_001]);
        let length = self.random.of(&[1, 4096, 8192, 100_000]);
        let text: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        match self.random.below(34) {
            0..=6 | 30.. => self.open(slot, &path, mode),
            7 => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                let directory = self.directory();
                let opened = rustix::fs::open(directory, flags, mode);
                self.keep(slot, &format!("open {directory} tmpfile"), opened)
            }
            8 => {
                let name = format!("/proc/self/fd/{}", self.raw(slot));
                let linked = rustix::fs::linkat(CWD, name, CWD, &path, AtFlags::SYMLINK_FOLLOW);
                format!("linkat of file {slot} to {path}: {}", done(linked))
            }
            9 => self.open_beneath(slot, &path),
            10 | 11 => self.on(slot, "write", |file| number(rustix::io::write(file, &text))),
            12 => self.on(slot, "pwrite", |file| number(rustix::io::pwrite(file, &text, offset))),
            13 => self.on(slot, "writev", |file| {
                let pieces = [IoSlice::new(&text), IoSlice::new(b"end")];
                number(rustix::io::writev(file, &pieces))
            }),
            14 => self.on(slot, "read", |file| {
                let mut bytes = vec![0; 70_000];
                let read = rustix::io::read(file, &mut bytes[..]);
                told(read, |count| listing::hash(&bytes[..count]))
            }),
            15 => self.on(slot, "preadv", |file| {
                let mut bytes = vec![0; 5000];
                let read = rustix::io::preadv(file, &mut [IoSliceMut::new(&mut bytes)], offset);
                told(read, |count| listing::hash(&bytes[..count]))
            }),
            16 => {
                let to = self.random.of(&[
                    SeekFrom::Start(offset),
                    SeekFrom::End(0),
                    SeekFrom::Current(-1),
                    SeekFrom::Hole(0),
                    SeekFrom::Data(4096),
                ]);
                self.on(slot, "lseek", |file| {
                    // Each file system numbers the entries of a directory its own way.
                    let stat = rustix::fs::fstat(file);
                    if stat.is_ok_and(|stat| kind(&stat) == "directory") {
                        return "a directory".to_owned();
                    }
                    number(rustix::fs::seek(file, to))
                })
            }
            17 => self.on(slot, "ftruncate", |file| done(rustix::fs::ftruncate(file, offset))),
            18 | 19 => {
                let flags = self.random.of(&[
                    FallocateFlags::empty(),
                    FallocateFlags::KEEP_SIZE,
                    FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE,
                    FallocateFlags::COLLAPSE_RANGE,
                    FallocateFlags::INSERT_RANGE,
                    FallocateFlags::ZERO_RANGE,
                ]);
                let (offset, length) = (offset & !4095, 4096);
                self.on_unmarked(slot, &format!("fallocate {flags:?}"), |file| {
                    done(rustix::fs::fallocate(file, flags, offset, length))
                })
            }
            20 => self.on(slot, "fsync", |file| done(rustix::fs::fsync(file))),
            21 => self.on(slot, "fdatasync", |file| done(rustix::fs::fdatasync(file))),
            22 => self.on_both(slot, other, "copy_file_range", |from, to| {
                let (mut read_at, mut write_at) = (0, offset);
                let ranges = (Some(&mut read_at), Some(&mut write_at));
                number(rustix::fs::copy_file_range(from, ranges.0, to, ranges.1, 5000))
            }),
            23 => self.on_both(slot, other, "sendfile", |from, to| {
                number(rustix::fs::sendfile(to, from, Some(&mut 0), 5000))
            }),
            24 => self.on_both(slot, other, "ioctl(FICLONE)", |from, to| {
                done(rustix::fs::ioctl_ficlone(to, from))
            }),
            25 => {
                let operation = self.random.of(&[
                    FlockOperation::NonBlockingLockExclusive,
                    FlockOperation::NonBlockingLockShared,
                    FlockOperation::Unlock,
                ]);
                self.on(slot, &format!("flock {operation:?}"), |file| {
                    done(rustix::fs::flock(file, operation))
                })
            }
            26 => {
                let operation = self.random.of(&[
                    FlockOperation::NonBlockingLockExclusive,
                    FlockOperation::NonBlockingLockShared,
                    FlockOperation::NonBlockingUnlock,
                ]);
                self.on(slot, &format!("fcntl lock {operation:?}"), |file| {
                    done(rustix::fs::fcntl_lock(file, operation))
                })
            }
            27 => {
                let advice = self.random.of(&[Advice::Sequential, Advice::DontNeed]);
                self.on(slot, "fadvise", |file| done(rustix::fs::fadvise(file, 0, None, advice)))
            }
            28 => {
                let was = self.files[slot].take().is_some();
                format!("close {slot}: {was}")
            }
            _ => self.is_same(slot, &path),
        }
    }

    fn open(&mut self, slot: usize, path: &str, mode: Mode) -> String {
        let how = self.random.of(&[
            OFlags::RDONLY,
            OFlags::RDWR,
            OFlags::WRONLY,
            OFlags::RDWR | OFlags::CREATE,
            OFlags::RDWR | OFlags::CREATE,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC,
            OFlags::RDONLY | OFlags::TRUNC,
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE,
            OFlags::RDWR | OFlags::SYNC | OFlags::CREATE,
            OFlags::RDONLY | OFlags::DIRECTORY,
            OFlags::RDONLY | OFlags::NOFOLLOW,
            OFlags::RDONLY | OFlags::NOATIME,
            OFlags::PATH,
            OFlags::PATH | OFlags::NOFOLLOW,
        ]);
        let opened = rustix::fs::open(path, how | OFlags::CLOEXEC, mode);
        self.keep(slot, &format!("open {path} {how:?} {mode:?}"), opened)
    }

    fn open_beneath(&mut self, slot: usize, path: &str) -> String {
        let resolve = self.random.of(&[
            ResolveFlags::BENEATH,
            ResolveFlags::NO_SYMLINKS,
            ResolveFlags::NO_MAGICLINKS,
            ResolveFlags::IN_ROOT,
        ]);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve);
        self.keep(slot, &format!("openat2 {path} {resolve:?}"), opened)
    }

    fn keep(&mut self, slot: usize, what: &str, opened: Result<OwnedFd, Errno>) -> String {
        let said = told(opened.as_ref().map_err(|errno| *errno), |_| "opened".to_owned());
        self.files[slot] = opened.ok();
        format!("{what} as {slot}: {said}")
    }

    fn raw(&self, slot: usize) -> i32 {
        self.files[slot].as_ref().map_or(-1, |file| file.as_raw_fd())
    }

    fn on(&self, slot: usize, what: &str, call: impl FnOnce(BorrowedFd<'_>) -> String) -> String {
        let said =
            self.files[slot].as_ref().map_or("not open".to_owned(), |file| call(file.as_fd()));
        format!("{what} of {slot}: {said}")
    }

    /// A call that may take the set-id bits away, though it fails; see `differences`.
    fn on_unmarked(
        &self,
        slot: usize,
        what: &str,
        call: impl FnOnce(BorrowedFd<'_>) -> String,
    ) -> String {
        self.on(
            slot,
            what,
            |file| {
                if has_set_id(file) { "set-id bits".to_owned() } else { call(file) }
            },
        )
    }

    /// A call that changes attributes, of no directory that was removed; see `differences`.
    fn on_named(
        &self,
        slot: usize,
        what: &str,
        call: impl FnOnce(BorrowedFd<'_>) -> String,
    ) -> String {
        self.on(slot, what, |file| {
            if is_removed_directory(file) { "a removed directory".to_owned() } else { call(file) }
        })
    }

    fn on_both(
        &self,
        from: usize,
        to: usize,
        what: &str,
        call: impl FnOnce(BorrowedFd<'_>, BorrowedFd<'_>) -> String,
    ) -> String {
        let said = match (&self.files[from], &self.files[to]) {
            (Some(_), Some(to)) if has_set_id(to) => "set-id bits".to_owned(),
            (Some(from), Some(to)) => call(from.as_fd(), to.as_fd()),
            _ => "not open".to_owned(),
        };
        format!("{what} of {from} to {to}: {said}")
    }

    /// The comparison that `cp` and `tail -F` make.
    fn is_same(&self, slot: usize, path: &str) -> String {
        self.on(slot, &format!("is {path} the file"), |file| {
            let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
            let named = rustix::fs::stat(path).map(identity);
            told(rustix::fs::fstat(file).map(identity), |open| (named == Ok(open)).to_string())
        })
    }

    /// Calls that look names up.
    fn lookups(&mut self) -> String {
        let (path, directory) = (self.any(), self.directory());
        match self.random.below(5) {
            0 => format!(
                "getdents {directory}: {}",
                told(listing::names(directory), |names| names.join(" "))
            ),
            1 => {
                let target = rustix::fs::readlink(&path, Vec::new());
                format!("readlink {path}: {}", told(target, |target| format!("{target:?}")))
            }
            2 => {
                // There and back, by two ways.
                let back = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
                let went = rustix::process::chdir(directory);
                let exists = rustix::fs::lstat("a").map(drop);
                let returned = back.and_then(rustix::process::fchdir);
                format!("chdir {directory}: {} {} {}", done(went), done(exists), done(returned))
            }
            3 => {
                let mut names = [0; 256];
                let listed = rustix::fs::listxattr(&path, &mut names);
                format!(
                    "listxattr {path}: {}",
                    told(listed, |length| listing::xattrs(&names[..length]))
                )
            }
            _ => {
                let opened =
                    rustix::fs::open(directory, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                let synced = opened.and_then(rustix::fs::fsync);
                format!("fsync {directory}: {}", done(synced))
            }
        }
    }

    /// The fields of stat(2) that are the same on all file systems.
    fn shown(&self, stat: Result<Stat, Errno>) -> String {
        told(stat, |stat| {
            let (mode, links) = (stat.st_mode & 0o7777, listing::links(&stat, self.exact_inputs));
            let size = if kind(&stat) == "file" { stat.st_size } else { 0 };
            format!("{} {mode:o} {} {} {size}{links}", kind(&stat), stat.st_uid, stat.st_gid)
        })
    }
}
