//! Executables that the tests write, whole and damaged, and what is found in them.

use std::fs;
use std::path::{Path, PathBuf};

use embedded::{ExtractError, FindError, MACHO_SEGMENT, Payload, Source, extract, find, prepare};
use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const FORMATS: [BinaryFormat; 2] = [BinaryFormat::Elf, BinaryFormat::MachO];

/// A file of that format with a bit of code, and sections with these payloads.
fn executable(format: BinaryFormat, payloads: &[(Payload, &[u8])]) -> Vec<u8> {
    let mut object = Object::new(format, Architecture::Aarch64, Endianness::Little);
    let text = object.section_id(object::write::StandardSection::Text);
    object.append_section_data(text, &[0xd6; 64], 4);
    for (payload, content) in payloads {
        let (segment, name) = match format {
            BinaryFormat::MachO => (MACHO_SEGMENT.into(), payload.macho_section()),
            _ => (object.segment_name(StandardSegment::Debug).to_vec(), payload.elf_section()),
        };
        let section = object.add_section(segment, name.into(), SectionKind::Other);
        object.append_section_data(section, content, 16);
    }
    object.write().unwrap()
}

/// A directory with the file `executable` of that content.
struct Place(TempDir);

impl Place {
    fn with(content: &[u8]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.executable(), content).unwrap();
        place
    }

    fn executable(&self) -> PathBuf {
        self.0.path().join("executable")
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("embedded")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn extract(&self) -> (PathBuf, bool) {
        let extracted = extract(&self.executable(), Payload::Runtimes, &self.directory());
        let extracted = extracted.unwrap().unwrap();
        (extracted.path, extracted.is_new)
    }
}

fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect()
}

#[test]
fn each_payload_is_found_in_each_format() {
    for format in FORMATS {
        let payloads = [(Payload::Kernel, &b"a kernel"[..]), (Payload::Runtimes, b"runtimes!")];
        let bytes = executable(format, &payloads);
        let place = Place::with(&bytes);
        for (payload, content) in payloads {
            let section = find(&place.executable(), payload).unwrap().unwrap();
            let start = section.offset as usize;
            assert_eq!(&bytes[start..start + section.size_bytes as usize], content, "{format:?}");
        }
        assert_eq!(find(&place.executable(), Payload::Initramfs).unwrap(), None);
    }
}

#[test]
fn a_section_of_another_segment_is_not_ours() {
    let mut object = Object::new(BinaryFormat::MachO, Architecture::Aarch64, Endianness::Little);
    let section = object.add_section("__OTHER".into(), "__runtimes".into(), SectionKind::Other);
    object.append_section_data(section, b"other", 1);
    let place = Place::with(&object.write().unwrap());
    assert_eq!(find(&place.executable(), Payload::Runtimes).unwrap(), None);
}

#[test]
fn a_program_without_payloads_has_none() {
    let place = Place::with(b"");
    let found = extract(Path::new("/proc/self/exe"), Payload::Runtimes, &place.directory());
    assert_eq!(found.unwrap(), None);
    assert!(!place.directory().exists());
}

#[test]
fn it_is_extracted_once() {
    for format in FORMATS {
        let place = Place::with(&executable(format, &[(Payload::Runtimes, &content())]));
        let (path, is_new) = place.extract();
        assert!(is_new);
        let name = format!("runtimes.sqfs-{}", hash(&content()));
        assert_eq!(path, place.directory().join(name));
        assert!(fs::read(&path).unwrap() == content());
        assert_eq!(place.extract(), (path, false));
        assert_eq!(place.names().len(), 1, "nothing is left beside it");
    }
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[test]
fn zstd_frames_are_inflated_once() {
    let frame = |part: &[u8]| zstd::encode_all(part, 3).unwrap();
    let (first, second) = (&content()[..1000], &content()[1000..]);
    for packed in [frame(&content()), [frame(first), frame(second)].concat()] {
        let place = Place::with(&executable(BinaryFormat::Elf, &[(Payload::Runtimes, &packed)]));
        let (path, is_new) = place.extract();
        assert!(is_new && fs::read(&path).unwrap() == content());
        let name = format!("runtimes.sqfs-{}", hash(&content()));
        let link = format!("runtimes.sqfs-of-{}", hash(&packed));
        assert_eq!(place.names(), [name.clone(), link.clone()]);
        assert_eq!(fs::read_link(place.directory().join(link)).unwrap(), Path::new(&name));
        assert_eq!(place.extract(), (path, false));
    }
}

#[test]
fn other_frames_have_another_content() {
    let pack = |content: &[u8]| zstd::encode_all(content, 3).unwrap();
    let place = Place::with(b"");
    let inflate = |content: &[u8]| {
        fs::write(place.executable(), pack(content)).unwrap();
        prepare(Payload::Kernel, &Source::file(place.executable()), &place.directory()).unwrap()
    };
    for content in [b"a kernel", b"a newer!", b"a kernel"] {
        let ready = inflate(content);
        assert!(ready.is_new && fs::read(&ready.path).unwrap() == content);
        let names = [format!("kernel-{}.Image", hash(content)), link_name(&pack(content))];
        assert_eq!(place.names(), names);
    }
    let link = place.directory().join(link_name(&pack(b"a kernel")));
    for lie in ["/etc/passwd", "kernel-../../etc/passwd.Image", "kernel-", "runtimes.sqfs-00"] {
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(lie, &link).unwrap();
        let ready = inflate(b"a kernel");
        assert!(ready.is_new && fs::read(&ready.path).unwrap() == b"a kernel");
    }
}

fn link_name(frames: &[u8]) -> String {
    format!("kernel-of-{}", hash(frames))
}

#[test]
fn a_damaged_frame_is_an_error() {
    let packed = zstd::encode_all(&content()[..], 3).unwrap();
    for cut in [4, 5, 20, packed.len() - 1] {
        let bytes = executable(BinaryFormat::Elf, &[(Payload::Runtimes, &packed[..cut])]);
        let place = Place::with(&bytes);
        let error = extract(&place.executable(), Payload::Runtimes, &place.directory());
        assert!(matches!(error, Err(ExtractError::Source { .. })), "{error:?}");
        assert_eq!(place.names(), [""; 0], "nothing is left");
    }
}

/// Spoils the extracted file; the next start must mend it.
fn check_mended(spoil: impl Fn(&Path)) {
    for payload in [content(), zstd::encode_all(&content()[..], 3).unwrap()] {
        let place = Place::with(&executable(BinaryFormat::Elf, &[(Payload::Runtimes, &payload)]));
        let (path, _) = place.extract();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        spoil(&path);
        assert_eq!(place.extract(), (path.clone(), true));
        assert!(fs::read(&path).unwrap() == content());
        assert_eq!(place.extract(), (path, false));
    }
}

#[test]
fn a_file_of_another_size_is_replaced() {
    check_mended(|path| fs::write(path, "short").unwrap());
}

#[test]
fn a_file_of_another_content_is_replaced() {
    check_mended(|path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[1000] ^= 1;
        fs::write(path, bytes).unwrap();
    });
}

#[test]
fn what_is_no_file_is_replaced() {
    check_mended(|path| {
        let elsewhere = path.with_extension("elsewhere");
        fs::rename(path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, path).unwrap();
    });
    check_mended(|path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
}

#[test]
fn files_of_other_releases_go() {
    let place = Place::with(&executable(BinaryFormat::Elf, &[(Payload::Runtimes, b"new")]));
    fs::create_dir(place.directory()).unwrap();
    for name in ["runtimes.sqfs-old", "runtimes.sqfs-x.part", "kernel-old", "else"] {
        fs::write(place.directory().join(name), "").unwrap();
    }
    let (path, _) = place.extract();
    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(place.names(), ["else", "kernel-old", name]);
}

#[test]
fn a_file_of_its_own_is_used_as_it_is() {
    let place = Place::with(b"a kernel");
    let source = Source::file(place.executable());
    let ready = prepare(Payload::Kernel, &source, &place.directory()).unwrap();
    assert_eq!(ready.path, place.executable().canonicalize().unwrap());
    assert!(!ready.is_new && !place.directory().exists());
}

#[test]
fn a_compressed_file_of_its_own_is_inflated() {
    let place = Place::with(&zstd::encode_all(&b"a kernel"[..], 3).unwrap());
    let source = Source::file(place.executable());
    let ready = prepare(Payload::Kernel, &source, &place.directory()).unwrap();
    assert_eq!(fs::read(&ready.path).unwrap(), b"a kernel");
    assert!(ready.is_new);
    assert!(!prepare(Payload::Kernel, &source, &place.directory()).unwrap().is_new);
}

#[test]
fn what_is_no_regular_file_is_an_error() {
    let place = Place::with(b"");
    for path in [place.0.path(), Path::new("/nonexistent"), Path::new("/dev/null")] {
        let error = prepare(Payload::Kernel, &Source::file(path), &place.directory());
        assert!(matches!(error, Err(ExtractError::Source { .. })), "{error:?}");
    }
}

#[test]
fn what_is_no_executable_is_an_error() {
    for content in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", b"\xcf\xfa\xed\xfe", &[0; 4096]] {
        let place = Place::with(content);
        let error = find(&place.executable(), Payload::Runtimes);
        assert!(matches!(error, Err(FindError::Malformed { .. })), "{error:?}");
    }
    let error = find(Path::new("/nonexistent"), Payload::Runtimes);
    assert!(matches!(error, Err(FindError::Read { .. })));
}

#[test]
fn a_section_beyond_the_end_is_an_error() {
    for format in FORMATS {
        let bytes = executable(format, &[(Payload::Runtimes, &content())]);
        let place = Place::with(&bytes);
        let section = find(&place.executable(), Payload::Runtimes).unwrap().unwrap();
        // Both formats keep a section's size as this number somewhere in their tables.
        let size = section.size_bytes.to_le_bytes();
        let at = (0..bytes.len() - 8)
            .filter(|at| {
                !(section.offset..section.offset + section.size_bytes).contains(&(*at as u64))
            })
            .find(|at| bytes[*at..at + 8] == size)
            .unwrap();
        let mut damaged = bytes;
        damaged[at..at + 8].fill(0x7f);
        fs::write(place.executable(), damaged).unwrap();
        let error = find(&place.executable(), Payload::Runtimes);
        assert!(error.is_err(), "{format:?} {error:?}");
    }
}

/// Numbers that look random and are the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((number ^ (number >> 31)) % below as u64) as usize
    }
}

/// Checks that a damaged executable causes no panic and no answer that lies outside of the file.
fn check_found_within(bytes: &[u8], place: &Place) {
    fs::write(place.executable(), bytes).unwrap();
    for payload in Payload::ALL {
        if let Ok(Some(section)) = find(&place.executable(), payload) {
            assert!(section.offset + section.size_bytes <= bytes.len() as u64);
        }
    }
}

#[test]
fn damaged_executables_never_panic() {
    /// Values that break arithmetic.
    const EXTREMES: [u8; 5] = [0, 1, 0x7f, 0x80, 0xff];
    let packed = zstd::encode_all(&content()[..4000], 3).unwrap();
    for format in FORMATS {
        let whole = executable(format, &[(Payload::Runtimes, &packed), (Payload::Kernel, b"k")]);
        let place = Place::with(&whole);
        for length in (0..whole.len()).step_by(101) {
            check_found_within(&whole[..length], &place);
        }
        let mut numbers = Numbers(format as u64);
        for round in 0..800 {
            let mut damaged = whole.clone();
            for _ in 0..=numbers.next(4) {
                let start = numbers.next(damaged.len());
                let end = damaged.len().min(start + 1 + numbers.next(8));
                let value = EXTREMES[numbers.next(EXTREMES.len())];
                damaged[start..end].fill(value);
            }
            check_found_within(&damaged, &place);
            // Extraction syncs to the disk, so not in every round. Damaged content is what the
            // frame's own checks are for; all that counts here is that it ends.
            if round % 50 == 0 {
                drop(extract(&place.executable(), Payload::Runtimes, &place.directory()));
            }
        }
    }
}
