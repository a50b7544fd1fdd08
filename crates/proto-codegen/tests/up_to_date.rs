//! The generated code that is checked in is what the `.proto` files compile to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The files below `directory`, by their relative paths.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let below = files(&entry.path());
            found.extend(below.into_iter().map(|(path, data)| (format!("{name}/{path}"), data)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn the_generated_code_is_up_to_date() {
    let out = tempfile::tempdir().unwrap();
    proto_codegen::generate(out.path()).unwrap();
    let (expected, actual) = (files(out.path()), files(&proto_codegen::checked_in()));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&actual), names(&expected), "run `cargo xtask proto`");
    for (name, data) in expected {
        assert!(actual[&name] == data, "{name} is out of date: run `cargo xtask proto`");
    }
}
