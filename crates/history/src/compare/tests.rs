use std::collections::HashMap;
use std::convert::Infallible;

use model::DigestFunction;

use super::*;

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// Blobs in memory, and how many were read.
#[derive(Default)]
struct Memory {
    blobs: HashMap<Digest, Bytes>,
    reads: usize,
}

impl Blobs for Memory {
    type Error = Infallible;

    fn read(&mut self, digest: &Digest) -> Result<Option<Bytes>, Infallible> {
        self.reads += 1;
        Ok(self.blobs.get(digest).cloned())
    }
}

impl Memory {
    fn put(&mut self, message: &impl proto::Message) -> Digest {
        let bytes = Bytes::from(message.encode_to_vec());
        let digest = Digest::of(FUNCTION, &bytes);
        self.blobs.insert(digest, bytes);
        digest
    }

    /// A directory of files, each with its content, and of directories.
    fn directory(&mut self, files: &[(&str, &str)], below: &[(&str, Digest)]) -> Digest {
        let file = |(name, content): &(&str, &str)| proto::FileNode {
            name: (*name).into(),
            digest: Some(Digest::of(FUNCTION, content.as_bytes()).to_proto()),
            ..Default::default()
        };
        let directory = |(name, digest): &(&str, Digest)| proto::DirectoryNode {
            name: (*name).into(),
            digest: Some(digest.to_proto()),
        };
        self.put(&proto::Directory {
            files: files.iter().map(file).collect(),
            directories: below.iter().map(directory).collect(),
            ..Default::default()
        })
    }

    fn action(&mut self, arguments: &[&str], root: Digest) -> Digest {
        let command = proto::Command {
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            ..Default::default()
        };
        self.of_command(&command, root)
    }

    fn of_command(&mut self, command: &proto::Command, root: Digest) -> Digest {
        let command = self.put(command);
        self.put(&proto::Action {
            command_digest: Some(command.to_proto()),
            input_root_digest: Some(root.to_proto()),
            ..Default::default()
        })
    }

    /// The differences, one a line.
    fn differences(&mut self, old: &Digest, new: &Digest) -> Vec<String> {
        let Ok(found) = compare(self, old, new);
        let line = |it: &Difference| {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            let short = |text: String| text.chars().take(20).collect::<String>();
            let (old, new) = (short(value(&it.old)), short(value(&it.new)));
            format!("{} {}: {old} => {new}", it.part.as_str(), it.name)
        };
        found.differences.iter().map(line).collect()
    }
}

#[test]
fn the_changed_file_is_named_and_the_rest_is_not_read() {
    let mut memory = Memory::default();
    let same: Vec<_> = (0..50)
        .map(|number| {
            let name = format!("d{number:02}");
            (name, memory.directory(&[("f", &number.to_string())], &[]))
        })
        .collect();
    let same: Vec<_> = same.iter().map(|(name, digest)| (name.as_str(), *digest)).collect();
    let mut root = |content: &str, more: &[(&str, &str)]| {
        let deep = memory.directory(&[("lib.rs", content)], &[]);
        let below = [&same[..], &[("src", deep)]].concat();
        let root = memory.directory(more, &below);
        memory.action(&["cc"], root)
    };
    let (old, new) = (root("a", &[("gone", "x")]), root("b", &[("new", "y")]));
    memory.reads = 0;
    let found = memory.differences(&old, &new);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("input gone: file ") && found[0].ends_with("=> -"), "{found:?}");
    assert!(found[1].starts_with("input new: - => file "), "{found:?}");
    assert!(found[2].starts_with("input src/lib.rs: file "), "{found:?}");
    assert_eq!(memory.reads, 2 + 2 + 2, "actions, roots, and the one directory that changed");
    assert!(memory.differences(&old, &old).is_empty());
}

#[test]
fn flags_and_variables_are_named() {
    let mut memory = Memory::default();
    let root = memory.directory(&[], &[]);
    let old = memory.action(&["cc", "-O1", "-c", "a.c"], root);
    let new = memory.action(&["cc", "-O2", "-g", "-c", "a.c"], root);
    let found = memory.differences(&old, &new);
    assert_eq!(found, ["argument 1: -O1 => -O2", "argument 2: - => -g"]);
    let variable = |name: &str, value: &str| proto::command::EnvironmentVariable {
        name: name.into(),
        value: value.into(),
    };
    let command = |variables: Vec<_>, directory: &str, outputs: &[&str]| proto::Command {
        environment_variables: variables,
        working_directory: directory.into(),
        output_paths: outputs.iter().map(|path| (*path).to_owned()).collect(),
        ..Default::default()
    };
    let old = command(vec![variable("A", "1"), variable("STAMP", "x")], "", &["a"]);
    let new = command(vec![variable("STAMP", "y\u{1b}[2J")], "dir", &["b"]);
    let (old, new) = (memory.of_command(&old, root), memory.of_command(&new, root));
    let found = memory.differences(&old, &new);
    let expected = [
        "environment A: 1 => -",
        r"environment STAMP: x => y\u{1b}[2J",
        "working_directory :  => dir",
        "output a: declared => -",
        "output b: - => declared",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_is_gone_is_told() {
    let mut memory = Memory::default();
    let root = memory.directory(&[("a", "1")], &[]);
    let old = memory.action(&["cc"], root);
    let gone = Digest::of(FUNCTION, b"gone");
    let new = memory.action(&["cc"], gone);
    let found = memory.differences(&old, &new);
    assert!(found[0].starts_with("unknown the input root: - => "), "{found:?}");
    let found = memory.differences(&gone, &new);
    assert!(found[0].starts_with("unknown old Action: "), "{found:?}");
}

/// Two trees of 100 levels, each of which has the one below twice, with a difference in each file: 2^100 in all.
#[test]
fn the_work_is_bounded() {
    let mut memory = Memory::default();
    let mut root = |content: &str| {
        let mut level = memory.directory(&[("f", content)], &[]);
        for _ in 0..100 {
            level = memory.directory(&[], &[("a", level), ("b", level)]);
        }
        memory.action(&["cc"], level)
    };
    let (old, new) = (root("1"), root("2"));
    memory.reads = 0;
    let Ok(found) = compare(&mut memory, &old, &new);
    assert!(found.is_cut && found.differences.len() <= DIFFERENCES_MAX);
    assert!(memory.reads <= 2 * DIRECTORIES_MAX + 10, "{} reads", memory.reads);
}

#[test]
fn directories_that_are_deeper_or_larger_than_any_are_left_out() {
    let check = |cut: &dyn Fn(&mut Memory, &str) -> Digest| {
        let mut memory = Memory::default();
        let roots = ["1", "2"].map(|content| cut(&mut memory, content));
        let [old, new] = roots.map(|root| memory.action(&["cc"], root));
        let Ok(found) = compare(&mut memory, &old, &new);
        assert!(found.is_cut && found.differences.is_empty(), "{found:?}");
    };
    check(&|memory, content| {
        let mut level = memory.directory(&[("f", content)], &[]);
        for _ in 0..=MAX_PATH_DEPTH {
            level = memory.directory(&[], &[("d", level)]);
        }
        level
    });
    // More than is read in all, by the sizes that the digests have.
    check(&|memory, content| {
        let hash = [content.as_bytes()[0]; 32];
        let below = Digest::new(FUNCTION, hash, DIRECTORY_BYTES_MAX);
        memory.directory(&[], &[("large", below)])
    });
}

#[test]
fn long_values_are_cut() {
    let mut memory = Memory::default();
    let root = memory.directory(&[], &[]);
    let long = "ä".repeat(VALUE_BYTES_MAX);
    let (old, new) = (memory.action(&["a"], root), memory.action(&[&long], root));
    let Ok(found) = compare(&mut memory, &old, &new);
    let value = found.differences[0].new.as_deref().unwrap();
    assert!(value.len() < VALUE_BYTES_MAX + 100, "{} bytes", value.len());
    assert!(value.ends_with(&format!("… and {VALUE_BYTES_MAX} bytes more")), "{value}");
}

#[test]
fn a_message_that_grows_when_it_is_decoded_is_unknown() {
    let mut memory = Memory::default();
    let root = memory.directory(&[], &[]);
    let old = memory.action(&["a"], root);
    // Empty variables of the environment: two bytes each, and 48 in memory.
    let command = Bytes::from(b"\x12\x00".repeat(6 << 20));
    let digest = Digest::of(FUNCTION, &command);
    memory.blobs.insert(digest, command);
    let new = memory.put(&proto::Action {
        command_digest: Some(digest.to_proto()),
        input_root_digest: Some(root.to_proto()),
        ..Default::default()
    });
    let found = memory.differences(&old, &new);
    assert!(found[0].starts_with("unknown new Command: "), "{found:?}");
}

#[test]
fn the_list_is_bounded() {
    let mut memory = Memory::default();
    let root = memory.directory(&[], &[]);
    let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (old, new) = (memory.action(&["a"], root), memory.action(&many, root));
    let Ok(found) = compare(&mut memory, &old, &new);
    assert_eq!((found.differences.len(), found.is_cut), (DIFFERENCES_MAX, true));
}
