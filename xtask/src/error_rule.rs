//! The rule for errors: a `Display` never prints its source.
//!
//! An edge prints an error with all of its sources (`chain::Chain`, or `{:#}` of anyhow). A message
//! that repeats its own source there says everything twice. This reads every `#[error("…")]` of the
//! workspace and names those whose text prints the field that is also the source.

use std::{fs, path::Path};

use crate::workspace;

/// The `#[error(…)]` attributes in `code` that print the source of their variant or struct, each as
/// its text.
fn doubles(code: &str) -> Vec<String> {
    let attributes =
        code.match_indices("#[error(").map(|(at, opening)| &code[at + opening.len()..]);
    let judged = attributes.filter_map(|rest| {
        let end = closing(rest, '(', ')')?;
        let (text, item) = (&rest[..end], body(&rest[end..]));
        prints_source(text, item).then(|| text.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    judged.collect()
}

/// The fields of the variant or struct that follows its attribute; empty for one without fields.
fn body(after: &str) -> &str {
    let Some(start) = after.find(['{', '(', ',', ';', '}']) else { return "" };
    let closes = match after.as_bytes()[start] {
        b'{' => '}',
        b'(' => ')',
        _ => return "",
    };
    let fields = &after[start + 1..];
    let opens = if closes == '}' { '{' } else { '(' };
    closing(fields, opens, closes).map_or(fields, |end| &fields[..end])
}

/// The position at which the bracket closes that was open when `text` began. Brackets in string literals count as
/// text.
fn closing(text: &str, opens: char, closes: char) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            _ if character == opens => depth += 1,
            _ if character == closes && depth == 0 => return Some(at),
            _ if character == closes => depth -= 1,
            _ => {}
        }
    }
    None
}

fn prints_source(text: &str, fields: &str) -> bool {
    if text.trim() == "transparent" {
        return false;
    }
    let named = fields.contains("source:") && prints(text, "source");
    let unnamed = (fields.contains("#[source]") || fields.contains("#[from]"))
        && !fields.contains("source:")
        && (prints(text, "0") || text.contains(".0"));
    named || unnamed
}

/// Whether a format string prints that argument: `{name}`, `{name:…}`, or as an expression.
fn prints(text: &str, name: &str) -> bool {
    let inline = [format!("{{{name}}}"), format!("{{{name}:")];
    let expression = [format!(", {name}"), format!(", .{name}")];
    inline.iter().chain(&expression).any(|form| text.contains(form.as_str()))
}

/// The Rust files below `folder`.
fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the workspace can be read");
    let paths = entries.map(|entry| entry.expect("its entries can be read").path());
    let nested = paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    nested.filter(|path| path.extension().is_some_and(|it| it == "rs")).collect()
}

#[test]
fn no_display_prints_its_source() {
    let files = sources(&workspace::root().join("crates"));
    assert!(files.len() > 100, "the scan found only {} files", files.len());
    let mut errors = 0;
    let mut found = Vec::new();
    for path in files {
        let code = fs::read_to_string(&path).expect("a source file can be read");
        errors += code.matches("#[error(").count();
        let doubles = doubles(&code).into_iter();
        found.extend(doubles.map(|text| format!("{}: {text}", path.display())));
    }
    assert!(errors > 100, "the scan found only {errors} errors");
    assert!(found.is_empty(), "these messages repeat their source:\n{}", found.join("\n"));
}

#[test]
fn doubles_are_seen() {
    let check = |code: &str, expected: &[&str]| assert_eq!(doubles(code), expected, "{code}");
    check("#[error(\"read: {source}\")] Read { source: io::Error },", &["\"read: {source}\""]);
    check(
        "#[error(\"read: {source:?}\")]\n Read { path: P, source: E }",
        &["\"read: {source:?}\""],
    );
    check("#[error(\"read: {0}\")] Read(#[source] io::Error),", &["\"read: {0}\""]);
    check("#[error(\"{}\", .0)] Read(#[from] io::Error),", &["\"{}\", .0"]);
    check(
        "#[error(\"a ) in the text: {source}\")] R { source: E }",
        &["\"a ) in the text: {source}\""],
    );
}

#[test]
fn what_is_right_is_let_be() {
    let check = |code: &str| assert_eq!(doubles(code), [""; 0], "{code}");
    check("#[error(\"read {}\", path.display())] Read { path: PathBuf, source: io::Error },");
    check("#[error(\"{0} is no name\")] Name(String),");
    check("#[error(transparent)] Read(#[from] io::Error),");
    check("#[error(\"closed\")] Closed, #[error(\"b: {0}\")] Bad(String),");
    check("#[error(\"the source is gone\")] Gone { source: io::Error },");
}
