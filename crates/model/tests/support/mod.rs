//! Shared parts of the tests: generators of numbers and directories that are the same on every run.

#![allow(dead_code, reason = "every test file uses a part of it")]

use model::{Digest, DigestFunction, proto};

pub(crate) const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// SplitMix64: small, and good enough to shuffle test data.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

pub(crate) fn digest_of(content: &str) -> Digest {
    Digest::of(FUNCTION, content.as_bytes())
}

pub(crate) fn file(name: &str, content: &str) -> proto::FileNode {
    proto::FileNode {
        name: name.to_owned(),
        digest: Some(digest_of(content).to_proto()),
        ..Default::default()
    }
}

pub(crate) fn directory(name: &str, digest: Digest) -> proto::DirectoryNode {
    proto::DirectoryNode { name: name.to_owned(), digest: Some(digest.to_proto()) }
}

pub(crate) fn symlink(name: &str, target: &str) -> proto::SymlinkNode {
    proto::SymlinkNode { name: name.to_owned(), target: target.to_owned(), ..Default::default() }
}

/// A canonical directory of up to 40 entries, some with node properties and names of several bytes
/// a character.
pub(crate) fn any_directory(numbers: &mut Numbers) -> proto::Directory {
    let mut result = proto::Directory::default();
    let count = numbers.below(40);
    for index in 0..count {
        let name = format!("{}é{index}", "n".repeat(numbers.below(100)));
        match numbers.below(3) {
            0 => result.directories.push(directory(&name, digest_of(&name))),
            1 => result.symlinks.push(proto::SymlinkNode {
                node_properties: any_properties(numbers),
                ..symlink(&name, "../x/é")
            }),
            _ => result.files.push(proto::FileNode {
                is_executable: numbers.below(2) == 0,
                node_properties: any_properties(numbers),
                ..file(&name, &name)
            }),
        }
    }
    result.files.sort_by(|a, b| a.name.cmp(&b.name));
    result.directories.sort_by(|a, b| a.name.cmp(&b.name));
    result.symlinks.sort_by(|a, b| a.name.cmp(&b.name));
    result.node_properties = any_properties(numbers);
    result
}

fn any_properties(numbers: &mut Numbers) -> Option<proto::NodeProperties> {
    (numbers.below(3) == 0).then(|| proto::NodeProperties {
        mtime: Some(proto::Timestamp { seconds: numbers.next() as i64 >> 30, nanos: 7 }),
        unix_mode: Some(0o755),
        ..Default::default()
    })
}
