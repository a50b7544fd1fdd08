//! The packets between daemon and sandbox helper: each takes the other for hostile.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| sandbox::fuzzing::read_packet(input));
