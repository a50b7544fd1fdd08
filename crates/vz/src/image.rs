//! Checks of the files for the framework.
//!
//! A wrong file makes a machine that starts and says nothing, or an error without the file's name.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::plan::{Content, Plan};

/// The offset of the magic number in an arm64 `Image` (Documentation/arch/arm64/booting.rst).
const MAGIC_OFFSET: usize = 56;
const MAGIC: &[u8] = b"ARM\x64";

/// A disk image has whole blocks.
const BLOCK_BYTES: u64 = 512;

/// Errors of a file that a machine cannot use.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It can't be read.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The kernel is for another processor, or compressed in a way that we don't undo.
    #[error("the kernel {} is no arm64 Image, the one format that macOS boots", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
    },
    /// A disk that ends within a block.
    #[error("the {} {} has {size_bytes} bytes, no multiple of 512", content.name(), path.display())]
    PartOfABlock {
        /// The content of the disk.
        content: Content,
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
}

/// Checks the files of a plan.
///
/// # Errors
/// See [`ImageError`].
pub fn check(plan: &Plan) -> Result<(), ImageError> {
    check_kernel(&plan.kernel)?;
    File::open(&plan.initramfs).map_err(|source| failed(&plan.initramfs, source))?;
    plan.disks.iter().try_for_each(|disk| check_disk(&disk.path, disk.content))
}

fn check_kernel(path: &Path) -> Result<(), ImageError> {
    let mut head = Vec::new();
    let end = (MAGIC_OFFSET + MAGIC.len()) as u64;
    let read = File::open(path).and_then(|file| file.take(end).read_to_end(&mut head));
    read.map_err(|source| failed(path, source))?;
    match head.get(MAGIC_OFFSET..) {
        Some(MAGIC) => Ok(()),
        _ => Err(ImageError::NotAnImage { path: path.to_owned() }),
    }
}

fn check_disk(path: &Path, content: Content) -> Result<(), ImageError> {
    // The end rather than the metadata: a block device has no size there.
    let end = File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0)));
    let size_bytes = end.map_err(|source| failed(path, source))?;
    if size_bytes.is_multiple_of(BLOCK_BYTES) {
        return Ok(());
    }
    Err(ImageError::PartOfABlock { content, path: path.to_owned(), size_bytes })
}

fn failed(path: &Path, source: io::Error) -> ImageError {
    ImageError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Disk;

    /// The verdict on a machine with a kernel and a runtime image of those contents.
    fn check(kernel: &[u8], runtimes: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let plan = Plan {
            kernel: file("kernel", kernel),
            initramfs: file("initramfs", b"070701"),
            command_line: String::new(),
            cpus: 1,
            memory_bytes: 1 << 29,
            disks: vec![Disk { path: file("sqfs", runtimes), content: Content::Runtimes }],
        };
        super::check(&plan).map_or_else(|error| error.to_string(), |()| "good".to_owned())
    }

    fn image() -> Vec<u8> {
        let mut image = vec![0; 4096];
        image[MAGIC_OFFSET..MAGIC_OFFSET + MAGIC.len()].copy_from_slice(MAGIC);
        image
    }

    #[test]
    fn an_image_and_whole_blocks_are_good() {
        assert_eq!(check(&image(), &[0; 1024]), "good");
        assert_eq!(check(&image()[..60], b""), "good");
    }

    #[test]
    fn other_kernels_are_named() {
        for kernel in [&b""[..], b"\x1f\x8b", &image()[..59], &[0; 4096]] {
            assert!(check(kernel, b"").ends_with("the one format that macOS boots"));
        }
    }

    #[test]
    fn a_cut_disk_is_named() {
        let said = check(&image(), &[0; 1000]);
        assert!(said.starts_with("the runtime image "), "{said}");
        assert!(said.ends_with("has 1000 bytes, no multiple of 512"), "{said}");
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = check_disk(Path::new("/nowhere"), Content::Store).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere");
    }
}
