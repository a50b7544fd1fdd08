//! An SDK for linking: what Apple's has as text stubs of its libraries, cut to what we use.
//!
//! To a linker a library of the system is its path and the names in it. Both are public and neither
//! needs Apple's files, so a Linux machine can link for macOS without them. That checks
//! that the program uses only the listed functions; the heads of the lists say where macOS has them.
//!
//! The files are TBD, version 4: YAML with a name, the path that the dynamic linker loads, and the
//! exported symbols.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// A library of the system.
struct Library {
    /// Its stub in the SDK.
    stub: &'static str,
    /// The library that the dynamic linker is to load.
    path: &'static str,
    /// A symbol a line; `#` begins a comment.
    symbols: &'static str,
}

const LIB_SYSTEM: &str = include_str!("symbols/libSystem.txt");
const LIB_OBJC: &str = include_str!("symbols/libobjc.txt");

/// All that is linked. Classes of frameworks are looked up by name when the program runs, so that
/// the frameworks are loaded and no symbol of theirs is linked.
const LIBRARIES: [Library; 7] = [
    Library { stub: "usr/lib/libSystem.tbd", path: SYSTEM, symbols: LIB_SYSTEM },
    // Other names of the same library.
    Library { stub: "usr/lib/libc.tbd", path: SYSTEM, symbols: "" },
    Library { stub: "usr/lib/libm.tbd", path: SYSTEM, symbols: "" },
    // Linked for historical reasons by crates that don't use it.
    Library { stub: "usr/lib/libiconv.tbd", path: "/usr/lib/libiconv.2.dylib", symbols: "" },
    Library { stub: "usr/lib/libobjc.tbd", path: "/usr/lib/libobjc.A.dylib", symbols: LIB_OBJC },
    Library {
        stub: "System/Library/Frameworks/Foundation.framework/Foundation.tbd",
        path: "/System/Library/Frameworks/Foundation.framework/Versions/C/Foundation",
        symbols: "",
    },
    Library {
        stub: "System/Library/Frameworks/Virtualization.framework/Virtualization.tbd",
        path: "/System/Library/Frameworks/Virtualization.framework/Versions/A/Virtualization",
        symbols: "",
    },
];

const SYSTEM: &str = "/usr/lib/libSystem.B.dylib";

/// Writes the SDK to `folder`.
pub(super) fn write(folder: &Path) -> Result<()> {
    for library in &LIBRARIES {
        let path = folder.join(library.stub);
        let parent = path.parent().context("a stub has a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&path, stub(library))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn stub(library: &Library) -> String {
    let symbols: Vec<_> = symbols(library.symbols).map(|symbol| format!("'{symbol}'")).collect();
    let mut text = format!(
        "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\ninstall-name: '{}'\n\
         current-version: 1\n",
        library.path
    );
    if !symbols.is_empty() {
        let list = symbols.join(", ");
        text += &format!("exports:\n  - targets: [ arm64-macos ]\n    symbols: [ {list} ]\n");
    }
    text + "...\n"
}

fn symbols(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_names_its_library_and_its_symbols() {
        let library = Library { stub: "", path: "/usr/lib/libx.dylib", symbols: "# a\n_a\n_b$C\n" };
        let expected = "--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\n\
                        install-name: '/usr/lib/libx.dylib'\ncurrent-version: 1\nexports:\n  \
                        - targets: [ arm64-macos ]\n    symbols: [ '_a', '_b$C' ]\n...\n";
        assert_eq!(stub(&library), expected);
    }

    #[test]
    fn the_lists_are_sorted_and_hold_c_symbols() {
        for list in [LIB_SYSTEM, LIB_OBJC] {
            let symbols: Vec<_> = symbols(list).collect();
            assert!(symbols.is_sorted());
            assert!(symbols.iter().all(|symbol| symbol.starts_with('_')), "{symbols:?}");
        }
    }
}
