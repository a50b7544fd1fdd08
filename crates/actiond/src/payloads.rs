//! The artifacts that an executable carries in itself, as a VM boots them.

use std::path::Path;

use embedded::{FindError, Payload, find};
use vm::artifact::Source;
use vm::serve::Payloads;

/// What the executable at `path` carries, found and not yet read.
///
/// # Errors
/// When it is no executable, or a damaged one.
pub fn of(path: &Path) -> Result<Payloads, FindError> {
    let source = |payload| {
        let section = find(path, payload)?;
        Ok(section.map(|section| Source::part(path, section.offset, section.size_bytes)))
    };
    Ok(Payloads {
        kernel: source(Payload::Kernel)?,
        initramfs: source(Payload::Initramfs)?,
        runtimes: source(Payload::Runtimes)?,
    })
}
