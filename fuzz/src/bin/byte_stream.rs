//! The messages of an upload: they are the same however the bytes come, and what prost decodes.
#![no_main]

use fuzz::Choices;
use libfuzzer_sys::fuzz_target;
use model::proto::Message;
use model::proto::google::bytestream::WriteRequest;
use reapi::fuzzing::upload_messages;

/// The data of each message as one, for a message may come in parts.
fn joined(messages: &[WriteRequest]) -> (Vec<u8>, Vec<String>, bool) {
    let data = messages.iter().flat_map(|message| message.data.to_vec()).collect();
    let names = messages.iter().map(|message| message.resource_name.clone());
    let names = names.filter(|name| !name.is_empty()).collect();
    (data, names, messages.iter().any(|message| message.finish_write))
}

/// The messages that prost decodes from a stream, if all frames are whole.
fn reference(mut stream: &[u8]) -> Option<Vec<WriteRequest>> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = stream.split_first_chunk::<5>() {
        let [0, length @ ..] = prefix else { return None };
        let (message, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        messages.push(WriteRequest::decode(message).ok()?);
        stream = rest;
    }
    stream.is_empty().then_some(messages)
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let piece_bytes = 1 + usize::from(choices.byte());
    let stream = choices.bytes(input.len());
    let whole = upload_messages(stream, stream.len().max(1));
    let in_pieces = upload_messages(stream, piece_bytes);
    match (&whole, &in_pieces) {
        (Some((whole, may_end)), Some((parts, parts_may_end))) => {
            assert_eq!(joined(whole), joined(parts), "pieces of {piece_bytes}");
            assert_eq!(may_end, parts_may_end);
        }
        (None, None) => {}
        _ => panic!("refused in one form only: {whole:?} {in_pieces:?}"),
    }
    if let Some(reference) = reference(stream) {
        let (whole, may_end) = whole.expect("every message can be decoded");
        assert!(may_end);
        assert_eq!(joined(&whole), joined(&reference));
    }
});
