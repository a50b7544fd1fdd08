//! Resource names of ByteStream: what is accepted names a blob, and its usual form is accepted as well.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::DigestFunction;
use reapi::fuzzing::{read_name, write_name};

fuzz_target!(|name: &str| {
    for (parsed, prefix) in [(read_name(name), ""), (write_name(name), "uploads/u/")] {
        let Ok((digest, is_compressed)) = parsed else { continue };
        let keyword = if is_compressed { "compressed-blobs/zstd" } else { "blobs" };
        let function = match digest.function() {
            DigestFunction::Sha256 => String::new(),
            other => format!("{}/", other.name()),
        };
        let (hash, size) = (digest.hex(), digest.size_bytes());
        assert!(name.to_ascii_lowercase().contains(&hash), "{hash} is not of {name:?}");
        let usual = format!("{prefix}{keyword}/{function}{hash}/{size}");
        let again = if prefix.is_empty() { read_name(&usual) } else { write_name(&usual) };
        assert_eq!(again, Ok((digest, is_compressed)), "{usual}");
    }
});
