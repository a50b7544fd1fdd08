//! Executables, ELF and Mach-O, in which payloads are looked for: a section that is found lies in the file.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use embedded::{Payload, find};
use libfuzzer_sys::fuzz_target;
use vm::qemu::Architecture;

/// The one file of this process.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("fuzz-executable-{}", std::process::id())));

fuzz_target!(|input: &[u8]| {
    std::fs::write(&*FILE, input).expect("the file can be written");
    for payload in Payload::ALL {
        if let Ok(Some(section)) = find(&FILE, payload) {
            let end = section.offset.checked_add(section.size_bytes).expect("no overflow");
            assert!(section.size_bytes > 0 && end <= input.len() as u64, "{section:?}");
        }
    }
    let _ = Architecture::of_kernel(&FILE);
});
