//! Requests at sockets in the file system: their `:authority` changes its characters and nothing else does, however the
//! bytes come. Another decoder of HPACK, which keeps the dynamic table, reads the same fields before and after.
#![no_main]

use access::fuzzing::through_a_socket;
use fuzz::Choices;
use libfuzzer_sys::fuzz_target;
use loona_hpack::Decoder;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's length, type, flags and stream.
const HEADER_BYTES: usize = 9;
/// The type of a frame that begins a request, and its flags of padding and priority.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

struct Frame<'a> {
    /// The type, the flags and the stream.
    head: &'a [u8],
    payload: &'a [u8],
}

/// The whole frames, and what is behind them.
fn frames(mut bytes: &[u8]) -> (Vec<Frame<'_>>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push(Frame { head: &header[3..], payload });
        bytes = rest;
    }
    (frames, bytes)
}

/// The parts of a frame's payload before, in and behind its block of headers.
fn parts<'a>(frame: &Frame<'a>) -> Option<[&'a [u8]; 3]> {
    let flags = frame.head[1];
    let is_padded = flags & PADDED != 0;
    let padding = if is_padded { usize::from(*frame.payload.first()?) } else { 0 };
    let start = usize::from(is_padded) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let end = frame.payload.len().checked_sub(padding).filter(|end| *end >= start)?;
    Some([&frame.payload[..start], &frame.payload[start..end], &frame.payload[end..]])
}

/// Checks that a value says the same but for characters that no authority has.
fn compare_authorities(before: &[u8], after: &[u8]) {
    assert_eq!(before.len(), after.len(), "the length counts in the dynamic table");
    for (before, after) in before.iter().zip(after) {
        let is_kept = before.is_ascii_alphanumeric() || b"-._".contains(before);
        assert!(after == before || (*after == b'-' && !is_kept), "{before} became {after}");
    }
}

/// Checks the fields of one block. Returns whether both decoders can go on.
fn compare_blocks(decoders: &mut [Decoder<'_>; 2], before: &[u8], after: &[u8]) -> bool {
    let [of_before, of_after] = decoders;
    let Ok(before) = of_before.decode(before) else { return false };
    let after = of_after.decode(after).expect("what could be read still can");
    assert_eq!(before.len(), after.len());
    for ((name, before), (same, after)) in before.iter().zip(&after) {
        assert_eq!(name, same);
        match name == b":authority" {
            true => compare_authorities(before, after),
            false => assert_eq!(before, after),
        }
    }
    true
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let portion = 1 + usize::from(choices.byte());
    let sent = [PREFACE, choices.bytes(input.len())].concat();
    let got = through_a_socket(&sent, sent.len());
    assert_eq!(got, through_a_socket(&sent, portion), "portions of {portion}");
    assert_eq!(got, through_a_socket(&got, portion), "nothing is left to change");
    let ((before, rest), (after, same)) =
        (frames(&sent[PREFACE.len()..]), frames(&got[PREFACE.len()..]));
    assert_eq!((before.len(), rest), (after.len(), same));
    let mut decoders = [Decoder::new(), Decoder::new()];
    let mut can_decode = true;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.head, after.head);
        let parts = if before.head[0] == HEADERS { parts(before).zip(parts(after)) } else { None };
        let Some(([start, before, end], [same_start, after, same_end])) = parts else {
            assert_eq!(before.payload, after.payload);
            continue;
        };
        assert_eq!((start, end), (same_start, same_end));
        can_decode = can_decode && compare_blocks(&mut decoders, before, after);
    }
});
