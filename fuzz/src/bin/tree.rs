//! Tree messages: what is found in one pass is what prost decodes.
#![no_main]

use std::convert::Infallible;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use model::proto::{self, Message};
use model::{Digest, DigestFunction, Directory, InputTree, LoadError, TreeLimits, result};
use prost::bytes::Bytes;

/// A tree that the message describes is within its limits, however often a directory names others.
fn assemble(parts: &result::TreeMessages) {
    let limits = TreeLimits { max_entries: 10_000, ..TreeLimits::default() };
    let load = &mut |digest: &Digest| {
        let message = parts.directories.get(digest).cloned();
        let parse = |message| Directory::parse(message, digest.function()).map(Arc::new);
        message.map(parse).transpose().map_err(LoadError::<Infallible>::from)
    };
    if let Ok(tree) = InputTree::assemble(parts.root, limits, load) {
        assert!(tree.entry_count() as u64 <= limits.max_entries);
        assert!(tree.directory_bytes() <= limits.max_memory_bytes);
    }
}

fuzz_target!(|input: &[u8]| {
    let message = Bytes::copy_from_slice(input);
    let function = DigestFunction::Sha256;
    let directories = result::tree_directories(&message, function, usize::MAX);
    let parts = result::tree_messages(&message, function, usize::MAX);
    if let Ok(parts) = &parts {
        assert!(parts.directories.contains_key(&parts.root), "the root is among them");
        let digests = parts.directories.keys().copied().collect();
        assert_eq!(directories, Ok(digests), "both ways find the same");
        assemble(parts);
    }
    let Ok(found) = result::tree_digests(&message, function) else { return };
    assert!(parts.is_ok(), "there is a root");
    // prost also decodes the fields that we skip, and refuses what is malformed in them.
    let Ok(reference) = proto::Tree::decode(input) else { return };
    let all = || reference.root.iter().chain(&reference.children);
    let files = all().flat_map(|directory| &directory.files);
    for digest in files.filter_map(|file| file.digest.as_ref()).filter(|it| it.size_bytes > 0) {
        let is_found = |it: &model::Digest| it.hex() == digest.hash.to_ascii_lowercase();
        assert!(found.files.iter().any(is_found), "{digest:?} is missing");
    }
});
