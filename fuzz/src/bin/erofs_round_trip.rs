//! The writer of EROFS images: what it makes of any tree, the reader shows again.
#![no_main]

use fuzz::{Choices, tree};
use inputroot::fuzzing::round_trip;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let tree = tree(&mut Choices::new(input));
    if let Err(error) = round_trip(&tree) {
        panic!("{}", model::Chain(&error));
    }
});
