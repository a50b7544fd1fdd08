//! The parser of Directory messages, which reads the same in a message as prost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::proto::{self, Message};
use model::{DigestFunction, Directory, Entry};

fuzz_target!(|input: &[u8]| {
    let parsed = Directory::parse(input.to_vec().into(), DigestFunction::Sha256);
    let Ok(directory) = parsed else { return };
    // prost also decodes the fields that we skip, and refuses what is malformed in them.
    let Ok(reference) = proto::Directory::decode(input) else { return };
    let count = reference.files.len() + reference.directories.len() + reference.symlinks.len();
    assert_eq!(directory.len(), count);
    let mut last: Option<&[u8]> = None;
    for entry in directory.entries() {
        let name = entry.name();
        assert!(last.replace(name) < Some(name), "names are sorted");
        assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0));
        assert!(name != b"." && name != b"..");
        assert_eq!(directory.get(name).map(|found| found.name()), Some(name));
        let known = match entry {
            Entry::File { .. } => reference.files.iter().any(|it| it.name.as_bytes() == name),
            Entry::Directory { .. } => {
                reference.directories.iter().any(|it| it.name.as_bytes() == name)
            }
            // Bazel encodes the target `.` as the empty string.
            Entry::Symlink { target, .. } => reference.symlinks.iter().any(|it| {
                let expected = if it.target.is_empty() { "." } else { &it.target };
                it.name.as_bytes() == name && expected.as_bytes() == target
            }),
        };
        assert!(known, "prost reads the entry as well");
    }
});
