//! The project's own Debian package.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::{Context, Result};
use tar::{EntryType, Header};

use crate::deb;

/// A package's own metadata.
#[derive(Debug, Clone)]
pub struct Description<'a> {
    /// The package's name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its architecture, as Debian calls it.
    pub architecture: &'a str,
    /// Its dependencies, as in `Depends`.
    pub depends: &'a str,
    /// The dependencies of parts of it, as in `Suggests`.
    pub suggests: &'a str,
    /// One line, then paragraphs.
    pub description: &'a str,
}

/// A file of the package.
#[derive(Debug, Clone)]
pub struct File {
    /// Its content.
    pub content: Vec<u8>,
    /// Whether it is a program.
    pub executable: bool,
}

/// The content of a package.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The files by their paths, without a slash before.
    pub files: BTreeMap<String, File>,
    /// Scripts that the package manager runs, by name.
    pub scripts: BTreeMap<&'static str, &'static str>,
}

impl Contents {
    /// Adds a file that is not executable.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let file = File { content: content.into(), executable: false };
        self.files.insert(path.to_owned(), file);
    }

    /// Adds a program.
    pub fn program(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let file = File { content: content.into(), executable: true };
        self.files.insert(path.to_owned(), file);
    }
}

/// The package, with that time in seconds since 1970 on everything in it.
///
/// # Errors
/// When a path does not fit an archive.
pub fn package(description: &Description<'_>, contents: &Contents, time_s: u64) -> Result<Vec<u8>> {
    let mut control = Archive::new(time_s);
    control.add("control", control_text(description, contents).as_bytes(), 0o644)?;
    for (name, script) in &contents.scripts {
        control.add(name, script.as_bytes(), 0o755)?;
    }
    let mut data = Archive::new(time_s);
    for (path, file) in &contents.files {
        data.add(path, &file.content, if file.executable { 0o755 } else { 0o644 })?;
    }
    deb::write(&control.finish()?, &data.finish()?, time_s)
}

/// The fields of deb-control(5).
fn control_text(description: &Description<'_>, contents: &Contents) -> String {
    let Description { name, version, architecture, depends, suggests, description } = description;
    let bytes: usize = contents.files.values().map(|file| file.content.len()).sum();
    let mut lines = description.lines();
    let summary = lines.next().unwrap_or_default();
    let rest: String = lines.map(paragraph_line).collect();
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n\
         Maintainer: The actiond authors <nobody@localhost>\nInstalled-Size: {}\n\
         Depends: {depends}\nSuggests: {suggests}\nSection: devel\nPriority: optional\n\
         Description: {summary}\n{rest}",
        bytes.div_ceil(1024)
    )
}

fn paragraph_line(line: &str) -> String {
    if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") }
}

/// A tar archive of root's files; the directories above them are made once.
struct Archive {
    builder: tar::Builder<Vec<u8>>,
    directories: Vec<String>,
    time_s: u64,
}

impl Archive {
    fn new(time_s: u64) -> Self {
        Self { builder: tar::Builder::new(Vec::new()), directories: Vec::new(), time_s }
    }

    fn add(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        for (slash, _) in path.match_indices('/') {
            let directory = &path[..slash];
            if !self.directories.iter().any(|made| made == directory) {
                self.append(&format!("./{directory}/"), EntryType::Directory, &[], 0o755)?;
                self.directories.push(directory.to_owned());
            }
        }
        self.append(&format!("./{path}"), EntryType::Regular, content, mode)
    }

    fn append(&mut self, path: &str, kind: EntryType, content: &[u8], mode: u32) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(self.time_s);
        header.set_username("root")?;
        header.set_groupname("root")?;
        self.builder.append_data(&mut header, path, content).with_context(|| path.to_owned())
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.builder.into_inner()?)
    }
}

/// Compressed as documents of packages are, without a time.
///
/// # Errors
/// Never, in memory.
pub fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn toy() -> Vec<u8> {
        let description = Description {
            name: "toy",
            version: "1.2",
            architecture: "amd64",
            depends: "libc6 (>= 2.36)",
            suggests: "toys",
            description: "A toy\nIt does nothing.\n\nReally.",
        };
        let mut contents = Contents::default();
        contents.program("usr/bin/toy", "program");
        contents.file("usr/share/doc/toy/copyright", "free");
        contents.scripts.insert("postinst", "#!/bin/sh\n");
        package(&description, &contents, 1_700_000_000).unwrap()
    }

    #[test]
    fn two_packages_of_the_same_are_the_same() {
        assert!(toy() == toy());
    }

    #[test]
    fn what_is_packed_is_read() {
        let deb = deb::Deb::read(&toy()).unwrap();
        assert_eq!((deb.control.name.as_str(), deb.control.version.as_str()), ("toy", "1.2"));
        let mut tree = crate::tree::Tree::default();
        tree.add_tar(&deb.files, |_| true).unwrap();
        let program = tree.get("usr/bin/toy").unwrap();
        assert!(matches!(program, crate::tree::Node::File { executable: true, .. }));
    }

    /// The distribution's own tool agrees.
    #[test]
    fn dpkg_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("toy.deb");
        std::fs::write(&path, toy()).unwrap();
        let said = |option| {
            let output = Command::new("dpkg-deb").arg(option).arg(&path).output();
            let output = output.expect("dpkg-deb, which `cargo xtask setup` installs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let fields = said("--field");
        assert!(fields.contains("Description: A toy\n It does nothing.\n .\n Really."), "{fields}");
        let contents = said("--contents");
        assert!(contents.contains("-rwxr-xr-x root/root"), "{contents}");
    }
}
