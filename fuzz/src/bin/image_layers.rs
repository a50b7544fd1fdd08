//! Layers of images on top of each other: no path of the result leads out of it, and no layer makes a file
//! of a directory that another file is in.
#![no_main]

use fuzz::Choices;
use images::fuzzing::paths_of_layers;
use libfuzzer_sys::fuzz_target;

/// A tar archive of entries that the choices describe: libFuzzer finds no checksum of a header by itself.
fn layer(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for _ in 0..choices.byte() % 8 {
        let mut header = tar::Header::new_gnu();
        let kinds = [
            tar::EntryType::Regular,
            tar::EntryType::Directory,
            tar::EntryType::Symlink,
            tar::EntryType::Link,
            tar::EntryType::Char,
        ];
        header.set_entry_type(kinds[usize::from(choices.byte()) % kinds.len()]);
        header.set_mode(u32::from(choices.byte()) << 2);
        let mut text = |field: &mut [u8]| {
            let length = usize::from(choices.byte()).min(field.len());
            let bytes = choices.bytes(length);
            field[..bytes.len()].copy_from_slice(bytes);
        };
        let old = header.as_old_mut();
        text(&mut old.name);
        text(&mut old.linkname);
        let length = usize::from(choices.byte());
        let content = choices.bytes(length);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content).expect("an archive in memory");
    }
    archive.into_inner().expect("an archive in memory")
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let mut layers = Vec::new();
    if choices.byte().is_multiple_of(4) {
        layers.push(choices.bytes(input.len()).to_vec());
    }
    while !choices.is_empty() && layers.len() < 4 {
        layers.push(layer(&mut choices));
    }
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let Ok(paths) = paths_of_layers(&layers) else { return };
    for path in &paths {
        assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")), "{path:?}");
    }
});
