//! The reader of EROFS images, with any bytes, and with images of trees that were damaged at some
//! places: a byte of the input decides.
#![no_main]

use fuzz::{Choices, tree};
use inputroot::fuzzing::{image_of, read_image};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    if choices.byte().is_multiple_of(2) {
        let rest = choices.bytes(input.len());
        let _ = read_image(rest);
        return;
    }
    let tree = tree(&mut choices);
    let mut image = image_of(&tree).expect("no file is larger than an image can describe");
    while !choices.is_empty() {
        let at = usize::from(choices.byte()) << 8 | usize::from(choices.byte());
        let length = 1 << (choices.byte() % 4);
        let patch = choices.bytes(length);
        if let Some(place) = image.get_mut(at..at + patch.len()) {
            place.copy_from_slice(patch);
        }
    }
    let _ = read_image(&image);
});
