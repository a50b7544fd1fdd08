//! The files of the action cache: an entry is read as it was written, and no damage goes unnoticed.
#![no_main]

use fuzz::Choices;
use libfuzzer_sys::fuzz_target;
use model::{DigestFunction, EncodedResult};
use prost::bytes::Bytes;
use store::fuzzing::{decode_entry, encode_entry, key_of_name};

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (kind, directory) = (choices.byte(), choices.byte());
    let name_bytes = usize::from(choices.byte());
    let name = choices.bytes(name_bytes);
    let _ = key_of_name(
        DigestFunction::ALL[usize::from(kind) % DigestFunction::ALL.len()],
        directory,
        name,
    );
    let value = choices.bytes(input.len());
    // Any bytes as an entry.
    let (decoded, total) = decode_entry(name, &Bytes::copy_from_slice(value));
    assert!(decoded.is_none() || total == Some(value.len() as u64));
    // An entry with one byte changed.
    let mut entry = encode_entry(name, value);
    let read = decode_entry(name, &Bytes::copy_from_slice(&entry)).0;
    assert_eq!(read.as_deref(), Some(value));
    let at = usize::from(u16::from_le_bytes([kind, directory])) % entry.len();
    entry[at] ^= 1;
    assert_eq!(decode_entry(name, &entry.into()).0, None, "byte {at} was changed");
    // An entry holds a result of clients.
    let function = DigestFunction::Sha256;
    if let Ok((result, references)) = EncodedResult::parse(Bytes::copy_from_slice(value), function)
    {
        let _ = (result.exit_code(), result.outputs(), result.output_bytes(), references);
    }
});
