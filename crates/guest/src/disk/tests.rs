use std::os::unix::fs::FileExt;
use std::process::Command;

use super::format::{FormatError, format};
use super::template::{self, BLOCK_BYTES as BLOCK, BLOCKS};
use super::*;

const MIB: u64 = 1 << 20;

/// A sparse file of that size in place of a disk.
fn disk(bytes: u64) -> (tempfile::NamedTempFile, File) {
    let named = tempfile::NamedTempFile::new().unwrap();
    named.as_file().set_len(bytes).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(named.path()).unwrap();
    (named, file)
}

#[test]
fn a_blank_disk_gets_a_file_system() {
    let (named, mut file) = disk(300 * MIB);
    assert_eq!(Superblock::of(named.path()).unwrap(), None);
    format(&mut file).unwrap();
    assert_eq!(Superblock::of(named.path()).unwrap(), Some(Superblock { blocks: BLOCKS }));
    let check = Command::new("e2fsck").arg("-fn").arg(named.path()).output();
    let Ok(check) = check else {
        eprintln!("not checked with e2fsck, which is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{text}");
}

#[test]
fn a_disk_with_anything_on_it_is_not_touched() {
    let ends = [0, 1024, 65_536 + 64, 4 * MIB - 1, 296 * MIB, 300 * MIB - 512];
    for offset in ends {
        let (_named, mut file) = disk(300 * MIB);
        file.write_all_at(b"!", offset).unwrap();
        let error = format(&mut file).unwrap_err();
        let block = offset / BLOCK as u64;
        assert!(
            matches!(error, FormatError::NotBlank { block: found } if found == block),
            "{error}"
        );
        let mut first = vec![0; 1 << 20];
        file.read_exact_at(&mut first, 0).unwrap();
        let others =
            first.iter().enumerate().filter(|(at, byte)| **byte != 0 && *at as u64 != offset);
        assert_eq!(others.count(), 0);
    }
}

#[test]
fn an_interrupted_formatting_is_finished() {
    let (named, mut file) = disk(300 * MIB);
    let template = template::blocks().unwrap();
    for block in &template[1..template.len() / 2] {
        file.write_all_at(&block.bytes, block.number * BLOCK as u64).unwrap();
    }
    format(&mut file).unwrap();
    assert!(Superblock::of(named.path()).unwrap().is_some());
}

#[test]
fn a_small_disk_is_refused() {
    let (_named, mut file) = disk(255 * MIB);
    assert!(matches!(format(&mut file), Err(FormatError::TooSmall { .. })));
}

#[test]
fn the_template_begins_with_the_superblock() {
    let template = template::blocks().unwrap();
    assert_eq!(template[0].number, 0);
    assert!(template.iter().all(|block| block.number < BLOCKS && block.bytes.len() == BLOCK));
    assert!(template.is_sorted_by_key(|block| block.number));
}

#[test]
fn disks_are_told_apart_by_their_being_read_only() {
    let sys = tempfile::tempdir().unwrap();
    for (name, read_only) in [("vdb", "0\n"), ("vda", "1\n"), ("loop0", "0\n"), ("zram0", "0\n")] {
        fs::create_dir(sys.path().join(name)).unwrap();
        fs::write(sys.path().join(name).join("ro"), read_only).unwrap();
    }
    let disks = disks_in(sys.path(), Path::new("/dev"));
    let disk = |device: &str, read_only| Disk { device: device.into(), read_only };
    assert_eq!(disks, [disk("/dev/vda", true), disk("/dev/vdb", false)]);
    assert_eq!(disks_in(Path::new("/nowhere"), Path::new("/dev")), []);
}
