//! Proof that a root has every library that its programs and libraries need.
//!
//! The recipe names packages one by one, and packages gain dependencies from release to release.
//! A missing library fails the build of the image; otherwise actions would fail with "cannot open shared
//! object file".

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _};

use crate::recipe::Architecture;
use crate::tree::{Node, Tree};

/// The directories in which the loaders of Debian and Ubuntu look, with the tree's merged directories.
fn library_directories(architecture: Architecture) -> [String; 3] {
    ["usr/lib/{}", "usr/lib", "usr/lib64"]
        .map(|path| path.replace("{}", &format!("{}-linux-gnu", architecture.name())))
}

fn machine(architecture: Architecture) -> object::Architecture {
    match architecture {
        Architecture::X86_64 => object::Architecture::X86_64,
        Architecture::Aarch64 => object::Architecture::Aarch64,
    }
}

/// Checks every ELF file of a root.
///
/// # Errors
/// One that names every file for another processor, and every library and loader that is not
/// there, with the file that needs it.
pub fn check(tree: &Tree, architecture: Architecture) -> Result<()> {
    let mut complaints = BTreeSet::new();
    for (path, node) in tree.iter() {
        let Node::File { content, .. } = node else { continue };
        if content.starts_with(&elf::ELFMAG) {
            match needs_on(content, architecture) {
                Ok(needs) => complaints.extend(missing(tree, path, needs, architecture)),
                Err(reason) => drop(complaints.insert(format!("{path} {reason}"))),
            }
        }
    }
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{}", complaints.into_iter().collect::<Vec<_>>().join("; "))
}

/// The loader and libraries that a program or library needs.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    pub(crate) libraries: Vec<String>,
    loader: Option<String>,
    /// Directories that it adds to the search itself, relative to its own.
    own_directories: Vec<String>,
}

fn missing(
    tree: &Tree,
    path: &str,
    needs: Needs,
    architecture: Architecture,
) -> impl Iterator<Item = String> {
    let own_directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let own = needs.own_directories.iter().map(|below| format!("{own_directory}{below}"));
    let directories: Vec<String> =
        library_directories(architecture).into_iter().chain(own).collect();
    let libraries = needs.libraries.into_iter().filter(|name| {
        !directories.iter().any(|directory| tree.get(&format!("{directory}/{name}")).is_some())
    });
    let loader = needs.loader.into_iter().filter(|loader| {
        let path = loader.trim_start_matches('/');
        let merged = format!("usr/{path}");
        tree.get(path).is_none() && tree.get(&merged).is_none()
    });
    let absent: Vec<_> = libraries.chain(loader).collect();
    absent.into_iter().map(move |name| format!("{path} needs {name}"))
}

fn needs_on(bytes: &[u8], architecture: Architecture) -> Result<Needs, String> {
    let file = object::File::parse(bytes).map_err(broken)?;
    if file.architecture() != machine(architecture) {
        return Err(format!("is for {:?}", file.architecture()));
    }
    needs(bytes)
}

fn broken(error: object::Error) -> String {
    format!("is a broken ELF file: {error}")
}

/// The needs of a 64-bit program or library.
pub(crate) fn needs(bytes: &[u8]) -> Result<Needs, String> {
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let segments = header.program_headers(endian, bytes).map_err(broken)?;
    let mut needs = Needs::default();
    for segment in segments {
        if let Some(loader) = segment.interpreter(endian, bytes).map_err(broken)? {
            needs.loader = Some(String::from_utf8_lossy(loader).into_owned());
        }
    }
    let sections = header.sections(endian, bytes).map_err(broken)?;
    let Some((entries, link)) = sections.dynamic(endian, bytes).map_err(broken)? else {
        return Ok(needs);
    };
    let strings = sections.strings(endian, bytes, link).map_err(broken)?;
    for entry in entries {
        let text = || -> Result<String, String> {
            let text = entry.string(endian, strings).map_err(broken)?;
            Ok(String::from_utf8_lossy(text).into_owned())
        };
        match entry.tag(endian) {
            elf::DT_NEEDED => needs.libraries.push(text()?),
            elf::DT_RPATH | elf::DT_RUNPATH => {
                let path = text()?;
                let below = path.split(':').filter_map(|it| it.strip_prefix("$ORIGIN"));
                needs.own_directories.extend(below.map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with this very test program, and the files named.
    fn check_with(files: &[&str]) -> Result<()> {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let mut tree = Tree::default();
        tree.insert("usr/bin/it", Node::File { content: program.into(), executable: true })?;
        for path in files {
            tree.insert_file(path, "")?;
        }
        check(&tree, Architecture::native().unwrap())
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = check_with(&[]).unwrap_err().to_string();
        assert!(error.contains("usr/bin/it needs libc.so.6"), "{error}");
        assert!(error.contains("needs /lib"), "the loader: {error}");
    }

    #[test]
    fn what_is_there_is_not_missed() {
        let error = check_with(&["usr/lib/libc.so.6"]).unwrap_err().to_string();
        assert!(!error.contains("libc.so.6"), "{error}");
    }

    #[test]
    fn other_processors_are_named() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let mut tree = Tree::default();
        tree.insert_file("it", program).unwrap();
        let other = match Architecture::native().unwrap() {
            Architecture::X86_64 => Architecture::Aarch64,
            Architecture::Aarch64 => Architecture::X86_64,
        };
        assert!(check(&tree, other).unwrap_err().to_string().starts_with("it is for"));
    }

    #[test]
    fn a_broken_file_is_named() {
        let mut tree = Tree::default();
        tree.insert_file("it", &b"\x7fELF..."[..]).unwrap();
        assert!(check(&tree, Architecture::X86_64).unwrap_err().to_string().contains("broken"));
    }
}
