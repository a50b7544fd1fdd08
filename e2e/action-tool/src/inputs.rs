//! Reads every byte of every input, and hashes names and contents.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The inputs that were read.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// FNV-1a over paths and contents in sorted order: equal inputs give equal outputs, and so
    /// equal digests, which is what caching is checked with.
    pub(crate) hash: u64,
}

/// Reads `inputs` in their order; `seed` goes into the hash as well.
pub(crate) fn scan(seed: &str, inputs: &[PathBuf]) -> io::Result<Seen> {
    let mut seen = Seen { hash: 0xcbf2_9ce4_8422_2325, ..Seen::default() };
    seen.mix(seed.as_bytes());
    for input in inputs {
        seen.take(input)?;
    }
    Ok(seen)
}

impl Seen {
    fn take(&mut self, path: &Path) -> io::Result<()> {
        if !fs::metadata(path).map_err(|error| named(path, &error))?.is_dir() {
            return self.take_file(path);
        }
        for child in sorted_children(path).map_err(|error| named(path, &error))? {
            self.take(&child)?;
        }
        Ok(())
    }

    fn take_file(&mut self, path: &Path) -> io::Result<()> {
        let content = fs::read(path).map_err(|error| named(path, &error))?;
        self.mix(path.as_os_str().as_encoded_bytes());
        self.mix(&content);
        self.files += 1;
        self.bytes += content.len() as u64;
        Ok(())
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn sorted_children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut children =
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    children.sort();
    Ok(children)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("input {}: {error}", path.display()))
}
