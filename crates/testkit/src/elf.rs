//! A program that needs nothing: no loader, no library, no shell.
//!
//! Actions without a root file system have only their inputs, so tests of them
//! must bring a program. This one is made here, byte by byte, and ends with an
//! exit code of one's choice.

/// The image's load address: above the lowest pages, which can't be mapped.
const ADDRESS: u64 = 0x40_0000;

/// The sizes of the ELF header and of one program header (elf(5)).
const HEADERS: u64 = 64 + 56;

/// A static program for this machine that calls `exit(code)`.
pub fn exit_with(code: u8) -> Vec<u8> {
    let (machine, text) = text(code);
    let size = HEADERS + text.len() as u64;
    let mut image = Vec::new();
    // e_ident: 64 bits, little-endian, version 1.
    image.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // e_type EXEC, e_machine, e_version.
    image.extend(2_u16.to_le_bytes());
    image.extend(u16::to_le_bytes(machine));
    image.extend(1_u32.to_le_bytes());
    // e_entry, e_phoff, e_shoff.
    for value in [ADDRESS + HEADERS, 64, 0] {
        image.extend(value.to_le_bytes());
    }
    // e_flags; e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    image.extend(0_u32.to_le_bytes());
    for value in [64_u16, 56, 1, 0, 0, 0] {
        image.extend(value.to_le_bytes());
    }
    // One program header: PT_LOAD, readable and executable, the whole file.
    image.extend(1_u32.to_le_bytes());
    image.extend(5_u32.to_le_bytes());
    for value in [0, ADDRESS, ADDRESS, size, size, 0x1000] {
        image.extend(value.to_le_bytes());
    }
    image.extend(text);
    image
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

    #[test]
    fn the_program_runs() {
        let directory = tempfile::tempdir().unwrap();
        for code in [0, 1, 42, 255] {
            let program = directory.path().join(format!("exit-{code}"));
            std::fs::write(&program, exit_with(code)).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            let status = std::process::Command::new(&program).status().unwrap();
            assert_eq!(status.code(), Some(code.into()));
        }
    }
}
