//! The hand-written parser of `Directory` messages against the generated one, and against what
//! only a hostile or broken client sends.

mod support;

use bytes::Bytes;
use model::proto::{self, Message};
use model::{Directory, DirectoryError, Entry};
use support::{FUNCTION, Numbers, any_directory, digest_of, directory, file, symlink};

fn parse(message: &[u8]) -> Result<Directory, DirectoryError> {
    Directory::parse(Bytes::copy_from_slice(message), FUNCTION)
}

fn parse_proto(message: &proto::Directory) -> Result<Directory, DirectoryError> {
    parse(&message.encode_to_vec())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("names and targets are UTF-8")
}

/// The entries as a message again.
fn to_proto(parsed: &Directory) -> proto::Directory {
    let node_properties = parsed.own_properties().to_proto();
    let mut message = proto::Directory { node_properties, ..Default::default() };
    for entry in parsed.entries() {
        let node_properties = parsed.properties_of(entry.name()).to_proto();
        match entry {
            Entry::File { name, digest, executable } => message.files.push(proto::FileNode {
                name: text(name),
                digest: Some(digest.to_proto()),
                is_executable: executable,
                node_properties,
            }),
            Entry::Directory { name, digest } => {
                message.directories.push(directory(&text(name), digest));
            }
            Entry::Symlink { name, target } => {
                let symlink = symlink(&text(name), &text(target));
                message.symlinks.push(proto::SymlinkNode { node_properties, ..symlink });
            }
        }
    }
    message
}

/// The message as [`Directory`] understands it: an empty target is `.`.
fn as_understood(mut message: proto::Directory) -> proto::Directory {
    for symlink in &mut message.symlinks {
        if symlink.target.is_empty() {
            symlink.target = ".".to_owned();
        }
    }
    message
}

#[test]
fn reads_what_the_generated_code_writes() {
    let mut numbers = Numbers::new(1);
    for _ in 0..500 {
        let message = any_directory(&mut numbers);
        let parsed = parse_proto(&message).unwrap();
        assert_eq!(to_proto(&parsed), as_understood(message));
    }
}

#[test]
fn entries_are_merged_in_order_and_found_by_name() {
    let mut numbers = Numbers::new(2);
    for _ in 0..200 {
        let parsed = parse_proto(&any_directory(&mut numbers)).unwrap();
        let names: Vec<&[u8]> = parsed.entries().map(|entry| entry.name()).collect();
        assert!(names.is_sorted_by(|a, b| a < b));
        assert_eq!(names.len(), parsed.len());
        let mut directories = 0;
        for entry in parsed.entries() {
            assert_eq!(parsed.get(entry.name()), Some(entry));
            let ordinal = parsed.directory_ordinal(entry.name());
            if matches!(entry, Entry::Directory { .. }) {
                assert_eq!(ordinal, Some(directories));
                directories += 1;
            } else {
                assert_eq!(ordinal, None);
            }
        }
        assert_eq!(directories as usize, parsed.directory_count());
        assert_eq!(parsed.get(b"absent"), None);
    }
}

#[test]
fn the_empty_message_is_the_empty_directory() {
    assert!(parse(b"").unwrap().is_empty());
    assert!(Directory::empty(FUNCTION).is_empty());
}

/// A length-delimited field: its key, the length, the content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut field);
    field.extend_from_slice(content);
    field
}

fn digest_field(size: &[u8]) -> Vec<u8> {
    let hash = digest_of("x").hex();
    field(2, &[&field(1, hash.as_bytes()), size].concat())
}

/// A file node of these fields, as a directory.
fn file_node(fields: &[Vec<u8>]) -> Vec<u8> {
    field(1, &fields.concat())
}

#[test]
fn unknown_fields_are_skipped() {
    let unknown = [
        b"\x78\x05".to_vec(),
        b"\x7d1234".to_vec(),
        b"\x7912345678".to_vec(),
        field(15, b"anything"),
    ]
    .concat();
    let node = [field(1, b"n"), digest_field(b"\x10\x01"), unknown.clone()];
    let message = [file_node(&node), unknown].concat();
    assert_eq!(parse(&message).unwrap().len(), 1);
}

#[test]
fn executable_is_honoured() {
    for (value, expected) in [(0, false), (1, true), (2, true)] {
        let node = [field(1, b"n"), digest_field(b""), vec![0x20, value]];
        let parsed = parse(&file_node(&node)).unwrap();
        let Some(Entry::File { executable, .. }) = parsed.get(b"n") else {
            panic!("no file");
        };
        assert_eq!(executable, expected);
    }
}

#[test]
fn messages_that_are_not_directories() {
    use DirectoryError::*;
    let name = || field(1, b"n");
    let digest = || digest_field(b"\x10\x01");
    let check = |message: &[u8], is_expected: fn(&DirectoryError) -> bool| {
        let error = parse(message).expect_err("must be refused");
        assert!(is_expected(&error), "{error:?}");
    };
    check(b"\x0a", |e| matches!(e, Wire(_)));
    check(b"\x0a\x05abc", |e| matches!(e, Wire(_)));
    check(b"\x0b\x0c", |e| matches!(e, Wire(_)));
    check(&[0xff; 64], |e| matches!(e, Wire(_)));
    check(b"\x08\x01", |e| matches!(e, FieldType { .. }));
    check(&file_node(&[vec![0x08, 1]]), |e| matches!(e, FieldType { .. }));
    check(&file_node(&[name(), vec![0x10, 1]]), |e| matches!(e, FieldType { .. }));
    check(&file_node(&[name(), digest(), field(4, b"")]), |e| matches!(e, FieldType { .. }));
    check(&file_node(&[name(), name(), digest()]), |e| matches!(e, RepeatedField { .. }));
    check(&file_node(&[name(), digest(), digest()]), |e| matches!(e, RepeatedField { .. }));
    check(&file_node(&[name(), digest_field(b"\x10\x01\x10\x01")]), |e| {
        matches!(e, RepeatedField { .. })
    });
    check(&file_node(&[name()]), |e| matches!(e, Digest { .. }));
    check(&file_node(&[name(), field(2, b"")]), |e| matches!(e, Digest { .. }));
    let negative = b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    check(&file_node(&[name(), digest_field(negative)]), |e| matches!(e, Digest { .. }));
    check(&file_node(&[digest()]), |e| matches!(e, Name(_)));
    check(&file_node(&[field(1, b"\xff"), digest()]), |e| matches!(e, Name(_)));
    let target = |target: &[u8]| field(3, &[name(), field(2, target)].concat());
    check(&target(b"\xff"), |e| matches!(e, SymlinkTarget(_)));
}

#[test]
fn hashes_are_lower_case() {
    let mut node = file("n", "x");
    let digest = node.digest.as_mut().unwrap();
    digest.hash = digest.hash.to_uppercase();
    let message = proto::Directory { files: vec![node], ..Default::default() };
    assert!(matches!(parse_proto(&message), Err(DirectoryError::Digest { .. })));
}

#[test]
fn names_that_are_not_names() {
    let long = "n".repeat(256);
    for bad in ["", ".", "..", "a/b", "/", "a\0", &long] {
        for message in [
            proto::Directory { files: vec![file(bad, "x")], ..Default::default() },
            proto::Directory {
                directories: vec![directory(bad, digest_of("x"))],
                ..Default::default()
            },
            proto::Directory { symlinks: vec![symlink(bad, "x")], ..Default::default() },
        ] {
            let error = parse_proto(&message).unwrap_err();
            assert!(matches!(error, DirectoryError::Name(_)), "{bad:?}: {error}");
        }
    }
    let message = proto::Directory {
        files: vec![file("...", "x"), file("a\\b", "x"), file(&long[1..], "x")],
        ..Default::default()
    };
    assert_eq!(parse_proto(&message).unwrap().len(), 3);
}

#[test]
fn targets_that_are_not_targets() {
    let with = |target: &str| {
        parse_proto(&proto::Directory {
            symlinks: vec![symlink("l", target)],
            ..Default::default()
        })
    };
    for bad in ["a\0b", &"t".repeat(4096)] {
        assert!(matches!(with(bad), Err(DirectoryError::SymlinkTarget(_))));
    }
    for good in ["/", "..", "/proc/1/root", &"t".repeat(4095)] {
        assert!(with(good).is_ok());
    }
}

/// Bazel encodes the target `.` as the empty string, and leaves the field out.
#[test]
fn an_empty_target_is_the_directory_itself() {
    let parsed = parse_proto(&proto::Directory {
        symlinks: vec![symlink("l", ""), symlink("m", ".")],
        ..Default::default()
    });
    assert_eq!(parse(&field(3, &field(1, b"l"))).unwrap().len(), 1);
    for entry in parsed.unwrap().entries() {
        assert!(matches!(entry, Entry::Symlink { target: b".", .. }), "{entry:?}");
    }
}

#[test]
fn lists_must_be_sorted_and_names_unique() {
    let files = |names: &[&str]| {
        parse_proto(&proto::Directory {
            files: names.iter().map(|name| file(name, "x")).collect(),
            ..Default::default()
        })
    };
    assert!(matches!(files(&["b", "a"]), Err(DirectoryError::NotSorted(_))));
    assert!(matches!(files(&["a", "a"]), Err(DirectoryError::NotSorted(_))));
    assert!(files(&["B", "a", "é"]).is_ok(), "sorted by bytes");
    let same_name = parse_proto(&proto::Directory {
        files: vec![file("a", "x"), file("b", "x")],
        symlinks: vec![symlink("b", "x")],
        ..Default::default()
    });
    assert_eq!(same_name.unwrap_err(), DirectoryError::DuplicateName("b".to_owned()));
}

#[test]
fn too_many_entries() {
    // Symlinks of 13 bytes each, with names of six characters that count upwards.
    let names = (0..(1_u32 << 20) + 1).flat_map(|index| {
        let digit = |shift: u32| b'a' + ((index >> shift) & 15) as u8;
        let name = [digit(20), digit(16), digit(12), digit(8), digit(4), digit(0)];
        field(3, &[field(1, &name), field(2, b"t")].concat())
    });
    let message: Vec<u8> = names.collect();
    assert_eq!(parse(&message).unwrap_err(), DirectoryError::TooManyEntries);
    let one_less = &message[..message.len() - 13];
    assert_eq!(parse(one_less).unwrap().len(), 1 << 20);
}

/// Changed, cut and lengthened messages: nothing panics, and what both parsers accept has the same
/// entries in both.
#[test]
fn mutated_messages_never_panic_and_never_mean_something_else() {
    let mut numbers = Numbers::new(3);
    let mut accepted = 0;
    for _ in 0..300 {
        let original = any_directory(&mut numbers).encode_to_vec();
        for _ in 0..50 {
            let mut message = original.clone();
            mutate(&mut message, &mut numbers);
            let (parsed, generated) = (parse(&message), proto::Directory::decode(&*message));
            // The generated parser refuses more: it looks into node properties too.
            if let (Ok(parsed), Ok(generated)) = (parsed, generated) {
                accepted += 1;
                assert_eq!(to_proto(&parsed), as_understood(generated));
            }
        }
    }
    assert!(accepted > 100, "the mutations leave too little to compare");
}

fn mutate(message: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(3) {
        if message.is_empty() {
            return;
        }
        let at = numbers.below(message.len());
        match numbers.below(4) {
            0 => message[at] = numbers.next() as u8,
            1 => message[at] ^= 1 << numbers.below(8),
            2 => message.truncate(at),
            _ => message.insert(at, numbers.next() as u8),
        }
    }
}

#[test]
fn noise_never_panics() {
    let mut numbers = Numbers::new(4);
    for _ in 0..20_000 {
        let length = numbers.below(200);
        let noise: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
        let _ = parse(&noise);
    }
}

#[test]
fn malformed_node_properties_are_refused() {
    let with = |properties: &[u8]| {
        let name = [field(1, b"n"), digest_field(&[])].concat();
        let of_file = field(1, &[name, field(6, properties)].concat());
        let of_symlink = field(3, &[field(1, b"n"), field(2, b"t"), field(4, properties)].concat());
        [of_file, of_symlink, field(5, properties)]
    };
    let check = |properties: &[u8], expected: &'static str| {
        for message in with(properties) {
            let refused = parse(&message).map(|_| ()).unwrap_err();
            assert_eq!(refused, DirectoryError::NodeProperty(expected));
        }
    };
    check(&field(2, &[0x10, 0xff, 0xff, 0xff, 0xff, 0x0f]), "mtime");
    check(&[field(2, b""), field(2, b"")].concat(), "mtime");
    check(&field(3, &[0x08, 0xff, 0xff, 0xff, 0xff, 0x0f]), "unix_mode");
    check(&[0x08, 1], "properties");
    for message in with(&field(1, &field(1, b"acl"))) {
        let parsed = parse(&message).unwrap();
        assert_eq!(parsed.unknown_property().as_deref(), Some("acl"));
        assert!(parsed.own_properties().is_empty() && parsed.properties_of(b"n").is_empty());
    }
    for message in with(b"") {
        assert!(!parse(&message).unwrap().has_properties());
    }
}

#[test]
fn digests_of_every_function_come_back() {
    for function in model::DigestFunction::ALL {
        let digest = |name: &str| model::Digest::of(function, name.as_bytes());
        let file = |name: &str| model::proto::FileNode {
            digest: Some(digest(name).to_proto()),
            ..file(name, "")
        };
        let message = model::proto::Directory {
            files: vec![file("a"), file("m"), file("z")],
            directories: vec![directory("d", digest("d"))],
            ..Default::default()
        };
        let parsed = Directory::parse(message.encode_to_vec().into(), function).expect("canonical");
        assert_eq!(parsed.len(), 4);
        for entry in parsed.entries() {
            let (Entry::File { name, digest: found, .. }
            | Entry::Directory { name, digest: found }) = entry
            else {
                panic!("no symlinks here");
            };
            assert_eq!(found, model::Digest::of(function, name), "{function}");
        }
        for other in model::DigestFunction::ALL {
            let is_same_length = other.hash_bytes() == function.hash_bytes();
            let outcome = Directory::parse(message.encode_to_vec().into(), other);
            assert_eq!(outcome.is_ok(), is_same_length, "{function} read as {other}");
        }
    }
}
