//! A program that needs nothing: no loader, no library, no shell.
//!
//! Actions without a root file system have only their inputs, so tests of them
//! must bring a program. This one is made here, byte by byte, and ends with an
//! exit code of one's choice. Another one needs a loader of one's choice.

/// The image's load address: above the lowest pages, which can't be mapped.
const ADDRESS: u64 = 0x40_0000;

/// The sizes of the ELF header and of one program header (elf(5)).
const HEADER: u64 = 64;
const SEGMENT: u64 = 56;

/// Types of segments.
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;

/// A static program for this machine that calls `exit(code)`.
pub fn exit_with(code: u8) -> Vec<u8> {
    let (machine, text) = text(code);
    let size = HEADER + SEGMENT + text.len() as u64;
    let mut image = header(machine, ADDRESS + HEADER + SEGMENT, 1);
    image.extend(segment(PT_LOAD, 0, size));
    image.extend(text);
    image
}

/// A program for this machine that is dynamically linked: `loader` is to load it.
pub fn dynamic(loader: &str) -> Vec<u8> {
    let (machine, text) = text(0);
    let path_at = HEADER + 2 * SEGMENT;
    let path_bytes = loader.len() as u64 + 1;
    let text_at = path_at + path_bytes;
    let mut image = header(machine, ADDRESS + text_at, 2);
    image.extend(segment(PT_INTERP, path_at, path_bytes));
    image.extend(segment(PT_LOAD, 0, text_at + text.len() as u64));
    image.extend(loader.as_bytes());
    image.push(0);
    image.extend(text);
    image
}

fn header(machine: u16, entry: u64, segments: u16) -> Vec<u8> {
    // e_ident: 64 bits, little-endian, version 1.
    let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // e_type EXEC, e_machine, e_version.
    header.extend(2_u16.to_le_bytes());
    header.extend(machine.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    // e_entry, e_phoff, e_shoff.
    for value in [entry, HEADER, 0] {
        header.extend(value.to_le_bytes());
    }
    // e_flags; e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    header.extend(0_u32.to_le_bytes());
    for value in [HEADER as u16, SEGMENT as u16, segments, 0, 0, 0] {
        header.extend(value.to_le_bytes());
    }
    header
}

/// A program header: `size` bytes of the file from `offset` on, readable and executable.
fn segment(kind: u32, offset: u64, size: u64) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(kind.to_le_bytes());
    segment.extend(5_u32.to_le_bytes());
    for value in [offset, ADDRESS + offset, ADDRESS + offset, size, size, 0x1000] {
        segment.extend(value.to_le_bytes());
    }
    segment
}

/// The machine's number, and its instructions for `exit(code)`.
fn text(code: u8) -> (u16, Vec<u8>) {
    if cfg!(target_arch = "x86_64") {
        // mov edi, code; mov eax, 60; syscall
        (62, [&[0xbf, code, 0, 0, 0], &[0xb8, 60, 0, 0, 0], &[0x0f, 0x05][..]].concat())
    } else {
        // AArch64: mov x0, #code; mov x8, #93; svc #0
        let mov_x0 = 0xd280_0000_u32 | u32::from(code) << 5;
        let mov_x8 = 0xd280_0008_u32 | 93 << 5;
        (183, [mov_x0, mov_x8, 0xd400_0001].into_iter().flat_map(u32::to_le_bytes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Runs a program that was just written. A child of another test may still have it open for writing, as it has
    /// every descriptor between fork and exec.
    fn run(program: &std::path::Path) -> std::io::Result<std::process::ExitStatus> {
        loop {
            match std::process::Command::new(program).status() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                ended => return ended,
            }
        }
    }

    #[test]
    fn the_program_runs() {
        let directory = tempfile::tempdir().unwrap();
        for code in [0, 1, 42, 255] {
            let program = directory.path().join(format!("exit-{code}"));
            std::fs::write(&program, exit_with(code)).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            let status = run(&program).unwrap();
            assert_eq!(status.code(), Some(code.into()));
        }
    }

    #[test]
    fn a_dynamic_program_needs_its_loader() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        let error_with = |loader: &str| {
            std::fs::write(&program, dynamic(loader)).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            run(&program).unwrap_err().kind()
        };
        assert_eq!(error_with("/nowhere/ld.so"), std::io::ErrorKind::NotFound);
        assert_eq!(error_with("/etc/passwd"), std::io::ErrorKind::PermissionDenied);
    }
}
