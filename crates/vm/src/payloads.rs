//! The files that a VM boots from: taken from a program or given by the user.

use std::path::{Path, PathBuf};
use std::time::Instant;

use embedded::{ExtractError, FindError, Payload, Source};

/// Kernel, initramfs and runtimes, each of which may be missing: where they are ([`Source`], found
/// and not yet read), or as files that a VMM can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payloads<Place = Source> {
    /// The kernel.
    pub kernel: Option<Place>,
    /// The initramfs.
    pub initramfs: Option<Place>,
    /// The runtimes.
    pub runtimes: Option<Place>,
}

/// None of them; a derived one would ask for a place.
impl<Place> Default for Payloads<Place> {
    fn default() -> Self {
        Self { kernel: None, initramfs: None, runtimes: None }
    }
}

impl Payloads {
    /// The payloads in the executable at `path`.
    ///
    /// # Errors
    /// When it is no executable, or a damaged one.
    pub fn of_executable(path: &Path) -> Result<Self, FindError> {
        let source = |payload| {
            let section = embedded::find(path, payload)?;
            Ok(section.map(|section| Source::section(path, section)))
        };
        Ok(Self {
            kernel: source(Payload::Kernel)?,
            initramfs: source(Payload::Initramfs)?,
            runtimes: source(Payload::Runtimes)?,
        })
    }

    /// Makes files of them, those that are none yet in directories below `root`.
    ///
    /// # Errors
    /// When one can't be read, or its file not be written.
    pub fn extract(&self, root: &Path) -> Result<Payloads<PathBuf>, ExtractError> {
        let ready = |payload, source: &Option<Source>, directory| {
            let source = source.as_ref();
            source.map(|source| extract(payload, source, &root.join(directory))).transpose()
        };
        Ok(Payloads {
            kernel: ready(Payload::Kernel, &self.kernel, "boot")?,
            initramfs: ready(Payload::Initramfs, &self.initramfs, "boot")?,
            runtimes: ready(Payload::Runtimes, &self.runtimes, "embedded")?,
        })
    }
}

fn extract(payload: Payload, source: &Source, directory: &Path) -> Result<PathBuf, ExtractError> {
    let begun = Instant::now();
    let extracted = embedded::prepare(payload, source, directory)?;
    if extracted.is_new {
        tracing::info!(
            payload = payload.name(),
            path = %extracted.path.display(),
            "extracted in {} ms",
            begun.elapsed().as_millis()
        );
    }
    Ok(extracted.path)
}
