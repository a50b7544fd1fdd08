//! The rule for the threat model: each wall names what tries to get over it.
//!
//! The last column of the tables of walls has names of attacks and of tests. This looks for each of them in the code.

use std::{fs, path::Path};

use crate::workspace;

/// The sections with tables of walls.
const WALLS: &str = "\n## Walls against the ";

/// The title of the column of names.
const COLUMN: &str = " tried by ";

/// Each wall with the names in its last column.
fn claims(document: &str) -> Vec<(&str, Vec<&str>)> {
    let sections = document.split(WALLS).skip(1);
    let sections = sections.map(|section| section.split("\n## ").next().unwrap_or_default());
    let rows = sections.flat_map(|section| section.lines().filter_map(cells));
    let rows = rows.filter(|cells| cells.last() != Some(&COLUMN));
    rows.map(|cells| (cells[0].trim(), names(cells.last().unwrap_or(&"")))).collect()
}

/// The cells of a row of a table; `None` for other lines and for the line below the title.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    (!row.starts_with("---")).then(|| row.split('|').collect())
}

/// The words of a cell that are code.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Whether an attack or a test has that name.
fn is_tried(name: &str, code: &str) -> bool {
    let is_function = code.contains(&format!("fn {name}("));
    is_function || code.contains(&format!("\"{name}\""))
}

/// All Rust files below `folder` as one text.
fn code(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("a folder of the workspace can be read");
    let paths = entries.map(|entry| entry.expect("its entries can be read").path());
    let text = |path: std::path::PathBuf| match path.extension() {
        _ if path.is_dir() => code(&path),
        Some(extension) if extension == "rs" => {
            fs::read_to_string(&path).expect("a source file can be read")
        }
        _ => String::new(),
    };
    paths.map(text).collect()
}

#[test]
fn each_wall_names_what_tries_it() {
    let document = fs::read_to_string(workspace::root().join("docs/threat-model.md"))
        .expect("the threat model can be read");
    let code = code(&workspace::root().join("crates"));
    let claims = claims(&document);
    assert!(claims.len() > 50, "the tables have only {} walls", claims.len());
    for (wall, names) in claims {
        assert!(!names.is_empty(), "nothing tries this: {wall}");
        for name in names {
            assert!(is_tried(name, &code), "no attack and no test has the name {name}: {wall}");
        }
    }
}

#[test]
fn tables_are_read() {
    let document = "\n## Walls against the x\n\ntext\n\n| way | wall | tried by |\n|---|---|---|\n\
        | a | `b` | `c`, `d-e` |\n| f | g | |\n## Other\n| h | `i` |\n";
    assert_eq!(claims(document), [("a", vec!["c", "d-e"]), ("f", vec![])]);
    assert!(is_tried("c", "fn c() {") && is_tried("d-e", "calls(\"d-e\", \"x\")"));
    assert!(!is_tried("c", "fn cc() {") && !is_tried("d-e", "d-e"));
}
