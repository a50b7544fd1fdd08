//! Tree messages: what is found in one pass is what prost decodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::proto::{self, Message};
use model::{DigestFunction, result};
use prost::bytes::Bytes;

fuzz_target!(|input: &[u8]| {
    let message = Bytes::copy_from_slice(input);
    let function = DigestFunction::Sha256;
    let directories = result::tree_directories(&message, function);
    let Ok(found) = result::tree_digests(&message, function) else { return };
    assert!(directories.is_ok_and(|directories| !directories.is_empty()), "there is a root");
    // prost also decodes the fields that we skip, and refuses what is malformed in them.
    let Ok(reference) = proto::Tree::decode(input) else { return };
    let all = || reference.root.iter().chain(&reference.children);
    let files = all().flat_map(|directory| &directory.files);
    for digest in files.filter_map(|file| file.digest.as_ref()).filter(|it| it.size_bytes > 0) {
        let is_found = |it: &model::Digest| it.hex() == digest.hash.to_ascii_lowercase();
        assert!(found.files.iter().any(is_found), "{digest:?} is missing");
    }
});
