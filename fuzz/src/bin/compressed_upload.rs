//! Compressed streams of clients: any bytes end in a blob or an error, and what was compressed is stored in
//! whatever pieces it comes.
#![no_main]

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use fuzz::Choices;
use libfuzzer_sys::fuzz_target;
use model::{Digest, DigestFunction};
use prost::bytes::Bytes;
use reapi::fuzzing::upload_compressed;
use store::{Store, StoreOptions};

/// The store of this process.
static STORE: LazyLock<Arc<Store>> = LazyLock::new(|| {
    let root: PathBuf =
        std::env::temp_dir().join(format!("fuzz-compressed-{}", std::process::id()));
    Store::open(&root, StoreOptions::default()).expect("a store")
});

fn pieces(bytes: &[u8], piece_bytes: usize) -> Vec<Bytes> {
    bytes.chunks(piece_bytes).map(Bytes::copy_from_slice).collect()
}

fn pack(compressor: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = Vec::new();
    match compressor {
        "zstd" => packed = zstd::stream::encode_all(bytes, 1)?,
        "deflate" => {
            let level = flate2::Compression::fast();
            flate2::bufread::DeflateEncoder::new(bytes, level).read_to_end(&mut packed)?;
        }
        _ => {
            brotli::CompressorReader::new(bytes, 4096, 1, 18).read_to_end(&mut packed)?;
        }
    }
    Ok(packed)
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (kind, piece_bytes) = (choices.byte(), 1 + usize::from(choices.byte()));
    let size = u64::from(choices.byte()) << (choices.byte() % 24);
    let bytes = choices.bytes(input.len());
    let compressor = ["zstd", "deflate", "brotli"][usize::from(kind / 2 % 3)];
    if kind % 2 == 0 {
        // No content has this hash.
        let digest = Digest::new(DigestFunction::Sha256, [7; 32], size);
        let stored = upload_compressed(&STORE, compressor, digest, &pieces(bytes, piece_bytes));
        assert!(!stored, "a blob of another digest was stored");
        return;
    }
    let digest = Digest::of(DigestFunction::Sha256, bytes);
    let packed = pack(compressor, bytes).expect("it can be compressed");
    assert!(upload_compressed(&STORE, compressor, digest, &pieces(&packed, piece_bytes)));
    assert_eq!(STORE.cas().read(&digest).expect("it can be read").as_deref(), Some(bytes));
    STORE.cas().delete(&digest).expect("it can be deleted");
});
