//! The program that an executable file names for the kernel to start in its place: the interpreter in the
//! `#!` line of a script, the loader of a dynamically linked program.
//!
//! Reads as the kernel does (fs/binfmt_script.c, fs/binfmt_elf.c). The caller may share its memory with
//! others: nothing here allocates or panics, and every offset in a file is checked by reading there.

use std::ffi::CStr;

use crate::syscall::syscall;

/// The longest name that is kept, with its terminator: that of the kernel for a `#!` line. No loader has
/// a longer one.
pub(super) const NAME_BYTES: usize = 256;

/// The processor that this program was built for, as `e_machine` has it (elf(5)).
#[cfg(target_arch = "x86_64")]
pub(super) const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
pub(super) const MACHINE: u16 = 183;

/// `p_type` of the segment with the loader's path.
const PT_INTERP: u32 = 3;

/// Segments that are looked at. Programs have a dozen.
const MAX_SEGMENTS: u16 = 128;

/// A path with its terminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name([u8; NAME_BYTES]);

impl Default for Name {
    fn default() -> Self {
        Self([0; NAME_BYTES])
    }
}

impl Name {
    /// `None` for an empty one, and for one that is too long.
    fn new(text: &[u8]) -> Option<Self> {
        let mut name = Self::default();
        if text.is_empty() || text.len() >= NAME_BYTES {
            return None;
        }
        for (slot, byte) in name.0.iter_mut().zip(text) {
            *slot = *byte;
        }
        Some(name)
    }

    pub(super) fn path(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.0).ok()
    }

    pub(super) fn bytes(&self) -> &[u8; NAME_BYTES] {
        &self.0
    }
}

/// The kernel's next act on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It can't be read.
    Unknown,
    /// It refuses it.
    NoProgram,
    /// It starts this one with the file as argument.
    Interpreter(Name),
    /// It loads it, and the loader if there is one.
    Program { machine: u16, loader: Option<Name> },
}

/// Looks into the file at `path`.
pub(super) fn next(path: &CStr) -> Next {
    let Some(file) = File::open(path) else { return Next::Unknown };
    let mut buffer = [0; NAME_BYTES];
    let Some(head) = file.read(&mut buffer, 0) else { return Next::Unknown };
    if let Some(line) = head.strip_prefix(b"#!") {
        let is_cut = head.len() == NAME_BYTES;
        return interpreter(line, is_cut).map_or(Next::NoProgram, Next::Interpreter);
    }
    let Some(header) = Header::parse(head) else { return Next::NoProgram };
    Next::Program { machine: header.machine, loader: header.loader(&file) }
}

/// The interpreter in what follows a `#!`. If that was cut, a name that has no end may be cut too, and the
/// kernel refuses it.
fn interpreter(rest: &[u8], is_cut: bool) -> Option<Name> {
    let is_end = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0);
    let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    let rest = rest.get(start..)?;
    if is_cut && !rest.iter().any(is_end) {
        return None;
    }
    Name::new(rest.split(is_end).next()?)
}

/// The parts of an ELF header that lead to the loader.
#[derive(Clone, Copy, Debug)]
struct Header {
    is_64_bit: bool,
    is_little_endian: bool,
    machine: u16,
    segments_at: u64,
    segment_bytes: u16,
    segments: u16,
}

impl Header {
    /// Offsets as in elf(5): `Elf32_Ehdr`, `Elf64_Ehdr`.
    fn parse(head: &[u8]) -> Option<Self> {
        let [0x7f, b'E', b'L', b'F', class @ 1..=2, data @ 1..=2, ..] = head else { return None };
        let (is_64_bit, is_little_endian) = (*class == 2, *data == 1);
        let number = |at, bytes| number(head, at, bytes, is_little_endian);
        let (segments_at, segment_bytes, segments) = if is_64_bit {
            (number(32, 8)?, number(54, 2)?, number(56, 2)?)
        } else {
            (number(28, 4)?, number(42, 2)?, number(44, 2)?)
        };
        Some(Self {
            is_64_bit,
            is_little_endian,
            machine: number(18, 2)? as u16,
            segments_at,
            segment_bytes: segment_bytes as u16,
            segments: segments as u16,
        })
    }

    fn loader(&self, file: &File) -> Option<Name> {
        let mut at = self.segments_at;
        for _ in 0..self.segments.min(MAX_SEGMENTS) {
            let mut buffer = [0; 56];
            let segment = file.read(&mut buffer, at)?;
            let number = |at, bytes| number(segment, at, bytes, self.is_little_endian);
            if number(0, 4)? == u64::from(PT_INTERP) {
                let path_at = if self.is_64_bit { number(8, 8)? } else { number(4, 4)? };
                let mut buffer = [0; NAME_BYTES];
                let path = file.read(&mut buffer, path_at)?;
                return Name::new(path.split(|byte| *byte == 0).next()?);
            }
            at = at.checked_add(u64::from(self.segment_bytes))?;
        }
        None
    }
}

fn number(bytes: &[u8], at: usize, length: usize, is_little_endian: bool) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    Some(if is_little_endian { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
}

/// An open file.
struct File(usize);

impl File {
    fn open(path: &CStr) -> Option<Self> {
        // Never waits for the other end of a pipe that has taken the file's place.
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
        let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize, 0, 0, 0];
        // SAFETY: a terminated string; nothing is written.
        unsafe { syscall(libc::SYS_openat as usize, arguments) }.ok().map(Self)
    }

    /// The bytes at an offset, fewer at the end of the file.
    fn read<'a>(&self, buffer: &'a mut [u8], at: u64) -> Option<&'a [u8]> {
        let arguments =
            [self.0, buffer.as_mut_ptr() as usize, buffer.len(), usize::try_from(at).ok()?, 0, 0];
        // SAFETY: the kernel writes at most so many bytes into the buffer as it has.
        let read = unsafe { syscall(libc::SYS_pread64 as usize, arguments) }.ok()?;
        buffer.get(..read)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this guard's own.
        let _ = unsafe { syscall(libc::SYS_close as usize, [self.0, 0, 0, 0, 0, 0]) };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::ffi::CString;
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    /// The first bytes of a dynamically linked program: a header, one segment, a path behind a gap.
    pub(in crate::init) fn dynamic(loader: &str, machine: u16) -> Vec<u8> {
        const PATH_AT: u64 = 5000;
        let mut program = b"\x7fELF\x02\x01\x01".to_vec();
        program.resize(18, 0);
        program.extend(machine.to_le_bytes());
        program.resize(32, 0);
        program.extend(64_u64.to_le_bytes());
        program.resize(54, 0);
        program.extend(56_u16.to_le_bytes());
        program.extend(2_u16.to_le_bytes());
        // A segment of another type, then the one that counts.
        program.resize(64 + 56, 1);
        program.extend(PT_INTERP.to_le_bytes());
        program.extend(4_u32.to_le_bytes());
        program.extend(PATH_AT.to_le_bytes());
        program.resize(PATH_AT as usize, 0);
        program.extend(loader.as_bytes());
        program.push(0);
        program
    }

    fn look(content: &[u8]) -> Next {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        next(&CString::new(file.path().as_os_str().as_bytes()).unwrap())
    }

    #[test]
    fn interpreters() {
        let check = |content: &str, expected: Option<&str>| {
            let expected = expected.and_then(|name| Name::new(name.as_bytes()));
            let expected = expected.map_or(Next::NoProgram, Next::Interpreter);
            assert_eq!(look(content.as_bytes()), expected, "{content:?}");
        };
        check("#!/bin/sh\n", Some("/bin/sh"));
        check("#!/bin/sh -e\n", Some("/bin/sh"));
        check("#!  \t tool\tx\n", Some("tool"));
        check("#!/bin/sh\r\n", Some("/bin/sh\r"));
        check("#!/bin/sh", Some("/bin/sh"));
        check("#!", None);
        check("#!  \n/bin/sh", None);
        check(&format!("#!/{}\n", "x".repeat(252)), Some(&format!("/{}", "x".repeat(252))));
        check(&format!("#!/{}\n", "x".repeat(253)), None);
        check("text", None);
        check("", None);
    }

    #[test]
    fn loaders() {
        let loader = Name::new(b"/lib/ld.so.1");
        assert_eq!(look(&dynamic("/lib/ld.so.1", 62)), Next::Program { machine: 62, loader });
        let own = std::env::current_exe().unwrap();
        let own = next(&CString::new(own.as_os_str().as_bytes()).unwrap());
        assert!(matches!(own, Next::Program { machine: MACHINE, .. }), "{own:?}");
        let long = dynamic(&"x".repeat(NAME_BYTES), 62);
        assert_eq!(look(&long), Next::Program { machine: 62, loader: None });
    }

    #[test]
    fn headers_of_other_classes() {
        let mut arm = b"\x7fELF\x01\x02".to_vec();
        arm.resize(18, 0);
        arm.extend(40_u16.to_be_bytes());
        arm.resize(52, 0);
        assert_eq!(look(&arm), Next::Program { machine: 40, loader: None });
    }

    #[test]
    fn a_file_that_was_cut_anywhere_does_no_harm() {
        let program = dynamic("/lib/ld.so.1", 62);
        for length in (0..200).chain([5000, 5003]) {
            let found = look(&program[..length]);
            let is_cut = !matches!(found, Next::Program { loader: Some(name), .. }
                if name == Name::new(b"/lib/ld.so.1").unwrap());
            assert!(is_cut, "{length}: {found:?}");
        }
        let mut hostile = program;
        hostile[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        hostile[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(look(&hostile), Next::Program { machine: 62, loader: None });
    }
}
