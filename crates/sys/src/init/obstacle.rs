//! Why execve(2) failed, in more than an errno.
//!
//! ENOENT means that the program is not there, or the interpreter in its `#!` line, or the loader that
//! it was linked for. The action's process looks which, after its execve(2) has failed: in its own root
//! and with its own rights, so that no path of a client's is resolved with more. Like everything in that
//! process, this neither allocates nor panics. The result travels through memory, as in `outcome`.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::io::Errno;

use super::executable::{self, NAME_BYTES, Name, Next};
use crate::strings::Strings;
use crate::syscall::syscall;

/// Files that are looked at, one the interpreter of the other. The kernel follows four scripts, after
/// which a program and its loader can come.
const LEVELS: usize = 6;

/// The file that cannot be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Part {
    /// The program.
    Program,
    /// The interpreter that a `#!` line names.
    Interpreter,
    /// The dynamic loader (`PT_INTERP`).
    Loader,
}

/// Why a file cannot be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Hindrance {
    /// Its path leads nowhere; the errno says how.
    Unreachable(i32),
    /// It is a directory.
    Directory,
    /// It is a device, a pipe or a socket.
    Special,
    /// The action may not execute it; its permission bits.
    Forbidden(u16),
    /// It is no program: neither ELF nor a script with a `#!` line.
    Format,
    /// It is a program for another processor; its `e_machine` (elf(5)).
    Machine(u16),
}

/// The file that kept a program from being executed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Obstacle {
    /// The path of the program, of those that were tried.
    pub program: Vec<u8>,
    /// The file that is the obstacle.
    pub part: Part,
    /// Its path; that of `program` if it is the program.
    pub path: Vec<u8>,
    /// The problem with it.
    pub hindrance: Hindrance,
}

/// An [`Obstacle`] while it is told through memory.
#[derive(Debug)]
pub(super) struct Record {
    /// 0, or bit 63, the part from bit 52, the hindrance from bit 48, the number of the candidate from
    /// bit 32, the hindrance's number below.
    state: AtomicU64,
    /// The terminated path of an interpreter or a loader.
    path: [AtomicU8; NAME_BYTES],
}

impl Default for Record {
    fn default() -> Self {
        Self { state: AtomicU64::new(0), path: [const { AtomicU8::new(0) }; NAME_BYTES] }
    }
}

impl Record {
    /// Looks why no candidate could be executed. `blamed` is the number of the one that was there for
    /// sure, if there is one; execve(2) failed with `errno`.
    pub(super) fn find(&self, candidates: &Strings, blamed: Option<usize>, errno: Errno) {
        let is_there = |path: &CStr| mode(path).is_ok();
        let index = blamed.or_else(|| candidates.iter().position(is_there)).unwrap_or(0);
        let Some(program) = candidates.iter().nth(index) else { return };
        let mut name = Name::default();
        if let Some((part, hindrance)) = examine(program, errno, &mut name) {
            self.set(index, part, hindrance, &name);
        }
    }

    fn set(&self, index: usize, part: Part, hindrance: Hindrance, name: &Name) {
        for (slot, byte) in self.path.iter().zip(name.bytes()) {
            slot.store(*byte, Ordering::Relaxed);
        }
        let (kind, value) = match hindrance {
            Hindrance::Unreachable(errno) => (0, errno as u32),
            Hindrance::Directory => (1, 0),
            Hindrance::Special => (2, 0),
            Hindrance::Forbidden(mode) => (3, u32::from(mode)),
            Hindrance::Format => (4, 0),
            Hindrance::Machine(machine) => (5, u32::from(machine)),
        };
        let part: u64 = match part {
            Part::Program => 0,
            Part::Interpreter => 1,
            Part::Loader => 2,
        };
        let state = 1 << 63 | part << 52 | kind << 48 | (index as u64 & 0xffff) << 32;
        self.state.store(state | u64::from(value), Ordering::Release);
    }

    /// The obstacle that was found; valid when the action's process is dead.
    pub(super) fn get(&self, candidates: &Strings) -> Option<Obstacle> {
        let state = self.state.load(Ordering::Acquire);
        if state == 0 {
            return None;
        }
        let part = match state >> 52 & 0xf {
            0 => Part::Program,
            1 => Part::Interpreter,
            _ => Part::Loader,
        };
        let hindrance = match state >> 48 & 0xf {
            0 => Hindrance::Unreachable(state as u32 as i32),
            1 => Hindrance::Directory,
            2 => Hindrance::Special,
            3 => Hindrance::Forbidden(state as u16),
            4 => Hindrance::Format,
            _ => Hindrance::Machine(state as u16),
        };
        let program = candidates.iter().nth((state >> 32 & 0xffff) as usize)?.to_bytes().to_vec();
        let path = match part {
            Part::Program => program.clone(),
            Part::Interpreter | Part::Loader => {
                let path = self.path.iter().map(|byte| byte.load(Ordering::Relaxed));
                path.take_while(|byte| *byte != 0).collect()
            }
        };
        Some(Obstacle { program, part, path, hindrance })
    }
}

/// The first file that cannot be executed: `program`, or what it needs. `name` is its path then, unless
/// it is the program itself.
fn examine(program: &CStr, errno: Errno, name: &mut Name) -> Option<(Part, Hindrance)> {
    let mut part = Part::Program;
    for _ in 0..LEVELS {
        let next = {
            let path = match part {
                Part::Program => program,
                Part::Interpreter | Part::Loader => name.path()?,
            };
            if let Some(hindrance) = hindrance(path) {
                return Some((part, hindrance));
            }
            executable::next(path)
        };
        let is_malformed = errno == Errno::NOEXEC || errno == Errno::LIBBAD && part == Part::Loader;
        part = match next {
            Next::Unknown => return None,
            Next::NoProgram => return Some((part, Hindrance::Format)),
            Next::Interpreter(interpreter) => {
                *name = interpreter;
                Part::Interpreter
            }
            Next::Program { machine, .. } if is_malformed => {
                let is_ours = machine == executable::MACHINE;
                let hindrance =
                    if is_ours { Hindrance::Format } else { Hindrance::Machine(machine) };
                return Some((part, hindrance));
            }
            Next::Program { loader, .. } => {
                *name = loader?;
                Part::Loader
            }
        };
    }
    None
}

/// The reason why the caller cannot execute a file, as far as it shows without reading the file.
fn hindrance(path: &CStr) -> Option<Hindrance> {
    let mode = match mode(path) {
        Ok(mode) => mode,
        Err(errno) => return Some(Hindrance::Unreachable(errno.raw_os_error())),
    };
    match u32::from(mode) & libc::S_IFMT {
        libc::S_IFREG => {}
        libc::S_IFDIR => return Some(Hindrance::Directory),
        _ => return Some(Hindrance::Special),
    }
    let arguments = [
        libc::AT_FDCWD as usize,
        path.as_ptr() as usize,
        libc::X_OK as usize,
        libc::AT_EACCESS as usize,
        0,
        0,
    ];
    // SAFETY: a terminated string; nothing is written.
    match unsafe { syscall(libc::SYS_faccessat2 as usize, arguments) } {
        Err(Errno::ACCESS) => Some(Hindrance::Forbidden(mode & 0o7777)),
        _ => None,
    }
}

/// Type and permission bits.
fn mode(path: &CStr) -> Result<u16, Errno> {
    // SAFETY: a structure of numbers, for which zeros are valid.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let arguments = [
        libc::AT_FDCWD as usize,
        path.as_ptr() as usize,
        0,
        (libc::STATX_TYPE | libc::STATX_MODE) as usize,
        &raw mut found as usize,
        0,
    ];
    // SAFETY: a terminated string, and a structure on this stack that the kernel fills.
    unsafe { syscall(libc::SYS_statx as usize, arguments)? };
    Ok(found.stx_mode)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    /// The report on a file with this content and mode.
    fn found(content: &[u8], mode: u32, errno: Errno) -> Option<(Part, Hindrance, String)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        found_at(&path, errno)
    }

    fn found_at(path: &Path, errno: Errno) -> Option<(Part, Hindrance, String)> {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let candidates: Strings = [c"/nowhere/program", path.as_c_str()].into_iter().collect();
        let record = Record::default();
        record.find(&candidates, None, errno);
        let obstacle = record.get(&candidates)?;
        assert_eq!(obstacle.program, path.to_bytes(), "the candidate that is there");
        let name = if obstacle.part == Part::Program { Vec::new() } else { obstacle.path };
        Some((obstacle.part, obstacle.hindrance, String::from_utf8(name).unwrap()))
    }

    #[test]
    fn the_part_that_is_missing_is_named() {
        let missing = Hindrance::Unreachable(libc::ENOENT);
        let script = |text: &str| found(text.as_bytes(), 0o755, Errno::NOENT);
        let interpreter = |name: &str| Some((Part::Interpreter, missing, name.to_owned()));
        assert_eq!(script("#!/nowhere/sh\n"), interpreter("/nowhere/sh"));
        assert_eq!(script("#! \t/nowhere/sh -e x\n"), interpreter("/nowhere/sh"));
        assert_eq!(script("#!/bin/sh\r\necho\r\n"), interpreter("/bin/sh\r"));
        assert_eq!(script("#!/nowhere/sh"), interpreter("/nowhere/sh"));
        assert_eq!(script("#!/bin/sh\n"), None, "an interpreter that is there");
        let program = executable::tests::dynamic("/nowhere/ld.so", executable::MACHINE);
        let expected = Some((Part::Loader, missing, "/nowhere/ld.so".to_owned()));
        assert_eq!(found(&program, 0o755, Errno::NOENT), expected);
    }

    #[test]
    fn a_program_that_can_not_be_executed_is_described() {
        let check = |content: &[u8], mode, errno, expected| {
            let expected = Some((Part::Program, expected, String::new()));
            assert_eq!(found(content, mode, errno), expected);
        };
        check(b"text", 0o755, Errno::NOEXEC, Hindrance::Format);
        check(b"", 0o755, Errno::NOEXEC, Hindrance::Format);
        check(b"#!\n", 0o755, Errno::NOEXEC, Hindrance::Format);
        check(b"\x7fELF", 0o755, Errno::NOEXEC, Hindrance::Format);
        check(b"x", 0o644, Errno::ACCESS, Hindrance::Forbidden(0o644));
        let other = executable::tests::dynamic("/lib/ld.so", 243);
        check(&other, 0o755, Errno::NOEXEC, Hindrance::Machine(243));
        let own = executable::tests::dynamic("/lib/ld.so", executable::MACHINE);
        check(&own, 0o755, Errno::NOEXEC, Hindrance::Format);
    }

    #[test]
    fn files_that_are_no_files_are_told_apart() {
        let kind = |path: &str| found_at(Path::new(path), Errno::ACCESS).map(|it| it.1);
        assert_eq!(kind("/"), Some(Hindrance::Directory));
        assert_eq!(kind("/dev/null"), Some(Hindrance::Special));
        assert_eq!(kind("/proc/self/exe"), None);
    }

    #[test]
    fn without_any_candidate_the_first_is_what_is_missing() {
        let candidates: Strings = [c"/nowhere/a", c"/dev/null/b"].into_iter().collect();
        let record = Record::default();
        record.find(&candidates, None, Errno::NOENT);
        let obstacle = record.get(&candidates).unwrap();
        assert_eq!(obstacle.path, b"/nowhere/a");
        assert_eq!(obstacle.hindrance, Hindrance::Unreachable(libc::ENOENT));
        record.find(&candidates, Some(1), Errno::NOTDIR);
        let obstacle = record.get(&candidates).unwrap();
        assert_eq!(obstacle.hindrance, Hindrance::Unreachable(libc::ENOTDIR));
        let nothing = Record::default();
        nothing.find(&Strings::new(), None, Errno::NOENT);
        assert_eq!(nothing.get(&Strings::new()), None);
    }

    #[test]
    fn scripts_that_interpret_each_other_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        std::fs::write(&path, format!("#!{}\n", path.display())).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(found_at(&path, Errno::LOOP), None);
    }
}
