//! Paths of clients: none leads out of its root, and a clean one stays as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::RelPath;

fuzz_target!(|input: (&str, &str)| {
    let (base, client_path) = input;
    let Ok(base) = RelPath::parse(base) else { return };
    let Ok(path) = RelPath::resolve(&base, client_path) else { return };
    assert!(path.components().all(|name| !matches!(name, "" | "." | "..") && !name.contains('/')));
    assert_eq!(RelPath::parse(path.as_str()).as_ref(), Ok(&path));
});
