use super::*;

/// An artifact that does not compress to nothing.
fn content() -> Vec<u8> {
    (0..300_000_u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes()).collect()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A directory with the file `source` of that content.
fn directory_with(source: &[u8]) -> (tempfile::TempDir, Source) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("source");
    std::fs::write(&path, source).unwrap();
    (directory, Source::file(path))
}

#[test]
fn a_raw_file_is_used_where_it_lies() {
    let (directory, source) = directory_with(b"raw");
    let ready = prepare(Artifact::Kernel, &source, &directory.path().join("boot")).unwrap();
    assert_eq!(ready.path, directory.path().canonicalize().unwrap().join("source"));
    assert!(!ready.extracted);
    assert!(!directory.path().join("boot").exists());
}

#[test]
fn a_compressed_file_is_inflated_once() {
    let compressed = zstd(&content());
    let (directory, source) = directory_with(&compressed);
    let boot = directory.path().join("boot");
    let first = prepare(Artifact::Kernel, &source, &boot).unwrap();
    let hash = hex::encode(Sha256::digest(&compressed));
    assert_eq!(first.path, boot.join(format!("kernel-{hash}.Image")));
    assert!(first.extracted);
    assert!(std::fs::read(&first.path).unwrap() == content());
    let again = prepare(Artifact::Kernel, &source, &boot).unwrap();
    assert_eq!(again, Ready { path: first.path, extracted: false });
    assert_eq!(std::fs::read_dir(&boot).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_part_of_a_file_is_extracted_and_mended() {
    let (directory, source) = directory_with(b"....payload....");
    let source = Source::part(source.path, 4, 7);
    let boot = directory.path().join("boot");
    let ready = prepare(Artifact::Runtimes, &source, &boot).unwrap();
    assert_eq!(std::fs::read(&ready.path).unwrap(), b"payload");
    std::fs::remove_file(&ready.path).unwrap();
    std::fs::write(&ready.path, b"payl").unwrap();
    assert!(prepare(Artifact::Runtimes, &source, &boot).unwrap().extracted);
    assert_eq!(std::fs::read(&ready.path).unwrap(), b"payload");
}

#[test]
fn a_part_beyond_the_end_is_an_error() {
    let (directory, source) = directory_with(b"short");
    for (offset, length) in [(0, 6), (6, 0), (u64::MAX, 2)] {
        let part = Source::part(source.path.clone(), offset, length);
        let error = prepare(Artifact::Initramfs, &part, directory.path()).unwrap_err();
        assert!(matches!(error, ArtifactError::Source { .. }), "{error}");
    }
}

#[test]
fn a_missing_kernel_is_named() {
    let error = prepare(Artifact::Kernel, &Source::file("/nowhere/kernel"), Path::new("/tmp"));
    assert_eq!(error.unwrap_err().to_string(), "the kernel at /nowhere/kernel");
}

/// What becomes of a compressed artifact that was changed.
fn check_refused(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let mut compressed = zstd(&content());
    change(&mut compressed);
    let (directory, source) = directory_with(&compressed);
    let boot = directory.path().join("boot");
    let error = prepare(Artifact::Initramfs, &source, &boot).unwrap_err();
    let ArtifactError::Inflate { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains(expected), "{source}");
    assert_eq!(std::fs::read_dir(&boot).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn damaged_artifacts_are_refused() {
    check_refused(|bytes| bytes.truncate(bytes.len() / 2), "");
    check_refused(|bytes| *bytes.last_mut().unwrap() ^= 1, "checksum");
    check_refused(|bytes| bytes.push(0), "after the end");
    check_refused(|bytes| bytes.truncate(5), "");
}

#[test]
fn inflating_is_bounded() {
    let bomb = zstd(&vec![0; 1 << 20]);
    let error = inflate::inflate(&bomb[..], &mut io::sink(), (1 << 20) - 1).unwrap_err();
    assert!(matches!(error, InflateError::TooLarge { .. }), "{error}");
    inflate::inflate(&bomb[..], &mut io::sink(), 1 << 20).unwrap();
    let error = copy(&b"12345"[..], &mut io::sink(), 4).unwrap_err();
    assert!(matches!(error, InflateError::TooLarge { limit: 4 }), "{error}");
    copy(&b"1234"[..], &mut io::sink(), 4).unwrap();
}

#[test]
fn a_cas_image_is_sparse_blank_and_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cas.ext4");
    let image = CasImage::open(&path, 32_768).unwrap();
    assert!(image.is_blank());
    assert_eq!(image.size_bytes(), 32 << 30);
    let error = CasImage::open(&path, 32_768).unwrap_err();
    let expected = format!("the CAS image {} is in use by another VM", path.display());
    assert_eq!(error.to_string(), expected);
    drop(image);
    CasImage::open(&path, 32_768).unwrap();
}

#[test]
fn a_cas_image_that_was_written_to_is_not_blank_and_only_grows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cas.ext4");
    std::fs::write(&path, b"something").unwrap();
    let image = CasImage::open(&path, 512).unwrap();
    assert!(!image.is_blank());
    assert_eq!(image.size_bytes(), 512 * MIB);
    drop(image);
    assert_eq!(CasImage::open(&path, 256).unwrap().size_bytes(), 512 * MIB);
}

#[test]
fn a_cas_image_must_be_a_disk_of_some_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cas.ext4");
    let error = CasImage::open(&path, 255).unwrap_err();
    assert!(matches!(error, CasImageError::TooSmall { size_mib: 255 }));
    let error = CasImage::open(Path::new("/dev/null"), 512).unwrap_err();
    assert!(matches!(error, CasImageError::NotADisk { .. }), "{error}");
    let error = CasImage::open(&directory.path().join("no/dir"), 512).unwrap_err();
    assert!(matches!(error, CasImageError::Io { .. }), "{error}");
}
