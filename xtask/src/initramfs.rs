//! `cargo xtask initramfs`: the file system that a guest boots into.
//!
//! One static program as `/init`, the folders it mounts things on, and the device nodes that it
//! needs before devtmpfs is there. Written as a `newc` cpio archive, the one format that Linux
//! unpacks, and compressed with zstd. The same program gives the same bytes: nothing in the archive
//! tells when or by whom it was made.
//!
//! A `newc` entry is a header of 110 bytes, which is `070701` and thirteen numbers of eight
//! hexadecimal digits, then the name with a NUL, then the content, both padded to four bytes. The
//! name `TRAILER!!!` ends the archive. (Documentation/driver-api/early-userspace/buffer-format.rst
//! in the kernel's source.)

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{arch::Arch, guest_program};

/// The mount points of the guest (see `crates/guest`).
const FOLDERS: [&str; 9] =
    ["dev", "proc", "sys", "sys/fs", "sys/fs/cgroup", "tmp", "work", "cas", "runtimes"];

/// The kernel opens the console for `/init` before anything is mounted.
const DEVICES: [Device; 3] = [
    Device { name: "dev/console", mode: 0o600, major: 5, minor: 1 },
    Device { name: "dev/null", mode: 0o666, major: 1, minor: 3 },
    Device { name: "dev/zero", mode: 0o666, major: 1, minor: 5 },
];

/// The archive is built seldom and unpacked at every boot.
const COMPRESSION_LEVEL: i32 = 19;

const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The machine the guest runs on.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    arch: Arch,
    /// A statically linked guest binary [default: it is built].
    #[arg(long)]
    guest: Option<PathBuf>,
    /// The archive to write.
    #[arg(long)]
    output: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let guest = match &arguments.guest {
        Some(guest) => guest.clone(),
        None => guest_program::build(arguments.arch)?,
    };
    let size = write(&guest, &[], &arguments.output)?;
    println!("initramfs: {} ({size} bytes)", arguments.output.display());
    Ok(())
}

/// Writes the archive with the program `init`, and `more` files (name and path), to `output`, and
/// gives its size in bytes.
pub(crate) fn write(init: &Path, more: &[(&str, &Path)], output: &Path) -> Result<usize> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let program = read(init)?;
    let more: Vec<_> =
        more.iter().map(|(name, path)| Ok((*name, read(path)?))).collect::<Result<_>>()?;
    let packed = zstd::bulk::compress(&archive(&program, &more), COMPRESSION_LEVEL)
        .context("cannot compress the initramfs")?;
    fs::write(output, &packed).with_context(|| format!("cannot write {}", output.display()))?;
    Ok(packed.len())
}

struct Device {
    name: &'static str,
    mode: u32,
    major: u32,
    minor: u32,
}

fn archive(init: &[u8], more: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Newc::default();
    for folder in FOLDERS {
        archive.add(folder, &Entry { mode: S_IFDIR | 0o755, links: 2, ..Entry::default() });
    }
    for device in &DEVICES {
        archive.add(
            device.name,
            &Entry {
                mode: S_IFCHR | device.mode,
                device: (device.major, device.minor),
                ..Entry::default()
            },
        );
    }
    archive.add("init", &Entry { mode: S_IFREG | 0o755, content: init, ..Entry::default() });
    for (name, content) in more {
        archive.add(name, &Entry { mode: S_IFREG | 0o644, content, ..Entry::default() });
    }
    archive.finish()
}

/// The text about a file beside its name.
struct Entry<'a> {
    mode: u32,
    links: u32,
    /// Major and minor number of a device node.
    device: (u32, u32),
    content: &'a [u8],
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Self { mode: 0, links: 1, device: (0, 0), content: &[] }
    }
}

/// An archive under construction.
#[derive(Default)]
struct Newc {
    bytes: Vec<u8>,
    entries: u32,
}

impl Newc {
    fn add(&mut self, name: &str, entry: &Entry<'_>) {
        self.entries += 1;
        let length = u32::try_from(entry.content.len()).expect("a guest binary is below 4 GiB");
        let name_length = u32::try_from(name.len() + 1).expect("names are short");
        let numbers = [
            self.entries, // inode number
            entry.mode,
            0, // owner
            0, // group
            entry.links,
            0, // time of the last change
            length,
            0, // device that the archive was made from, major
            0, // and minor
            entry.device.0,
            entry.device.1,
            name_length,
            0, // checksum: none in this variant
        ];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(entry.content);
        self.pad();
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", &Entry::default());
        self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back as "name mode length", one entry a line.
    fn listing(archive: &[u8]) -> String {
        let (mut at, mut lines) = (0, Vec::new());
        loop {
            let header = &archive[at..at + 110];
            assert_eq!(&header[..6], b"070701");
            let number = |index: usize| {
                let digits = std::str::from_utf8(&header[6 + index * 8..14 + index * 8]).unwrap();
                usize::try_from(u32::from_str_radix(digits, 16).unwrap()).unwrap()
            };
            let (mode, length, name_length) = (number(1), number(6), number(11));
            let name = std::str::from_utf8(&archive[at + 110..at + 109 + name_length]).unwrap();
            at = (at + 110 + name_length).next_multiple_of(4);
            at = (at + length).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(at, archive.len());
                return lines.join("\n");
            }
            lines.push(format!("{name} {mode:o} {length}"));
        }
    }

    #[test]
    fn an_archive_holds_folders_devices_and_one_program() {
        let expected = "dev 40755 0\nproc 40755 0\nsys 40755 0\nsys/fs 40755 0\n\
                        sys/fs/cgroup 40755 0\ntmp 40755 0\nwork 40755 0\ncas 40755 0\n\
                        runtimes 40755 0\ndev/console 20600 0\ndev/null 20666 0\n\
                        dev/zero 20666 0\ninit 100755 5";
        assert_eq!(listing(&archive(b"guest", &[])), expected);
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        for (index, folder) in FOLDERS.iter().enumerate() {
            if let Some((parent, _)) = folder.rsplit_once('/') {
                assert!(FOLDERS[..index].contains(&parent), "{parent} must come before {folder}");
            }
        }
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        assert_eq!(archive(b"guest", &[]), archive(b"guest", &[]));
    }
}
