//! Trees and outputs of the server, written to a directory of the user.
//!
//! Names come from clients and actions. A path is written only if it is clean and relative, everything is created
//! below a directory that was empty, and symlinks are created last, so that no file is written through one. The
//! verb's [`Allowance`] counts bytes before they are written.

use history::text::size;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use model::{Digest, Entry, InputTree, RelPath};

use super::blobs::{Reader, gone, joined};
use super::outputs::Outputs;
use super::trees;
use crate::output::Progress;

/// A directory that is being filled.
pub(crate) struct Target {
    directory: PathBuf,
    symlinks: Vec<(PathBuf, String)>,
    progress: Option<Progress>,
    files: u64,
    bytes: u64,
}

impl Target {
    /// A directory that is empty or does not exist.
    pub(crate) fn create(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("creating {}", directory.display()))?;
        let mut entries =
            directory.read_dir().with_context(|| format!("listing {}", directory.display()))?;
        if entries.next().is_some() {
            bail!("{} is not empty; name a new directory", directory.display());
        }
        Ok(Self {
            directory: directory.to_owned(),
            symlinks: Vec::new(),
            progress: Some(Progress::start()),
            files: 0,
            bytes: 0,
        })
    }

    /// Creates a directory and those above it.
    pub(crate) fn directory(&self, path: &str) -> anyhow::Result<PathBuf> {
        let path = self.at(path)?;
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// Writes a blob.
    pub(crate) fn file(
        &mut self,
        reader: &mut Reader<'_>,
        path: &str,
        digest: &Digest,
        executable: bool,
    ) -> anyhow::Result<()> {
        let at = self.parent_of(path)?;
        let writing = || format!("writing {}", at.display());
        let mut file = File::create_new(&at).with_context(writing)?;
        let is_there =
            reader.stream(digest, |piece| file.write_all(piece).with_context(writing))?;
        ensure!(is_there, "{}", gone(digest));
        let mode = if executable { 0o755 } else { 0o644 };
        file.set_permissions(Permissions::from_mode(mode)).with_context(writing)?;
        self.files += 1;
        self.bytes += digest.size_bytes();
        let told = format!("{} files, {}", self.files, size(self.bytes));
        if let Some(progress) = &mut self.progress {
            progress.show(&told);
        }
        Ok(())
    }

    /// Writes text of our own.
    pub(crate) fn text(&self, path: &str, text: &str, mode: u32) -> anyhow::Result<()> {
        let at = self.parent_of(path)?;
        let writing = || format!("writing {}", at.display());
        std::fs::write(&at, text).with_context(writing)?;
        std::fs::set_permissions(&at, Permissions::from_mode(mode)).with_context(writing)
    }

    /// Writes everything in a tree.
    pub(crate) fn tree(
        &mut self,
        reader: &mut Reader<'_>,
        directory: &str,
        tree: &InputTree,
    ) -> anyhow::Result<()> {
        self.directory(directory)?;
        trees::walk(tree, |path, entry| {
            self.entry(reader, &joined(directory, path.as_bytes()), entry)
        })
    }

    fn entry(
        &mut self,
        reader: &mut Reader<'_>,
        path: &str,
        entry: &Entry<'_>,
    ) -> anyhow::Result<()> {
        match *entry {
            Entry::File { digest, executable, .. } => self.file(reader, path, &digest, executable),
            Entry::Directory { .. } => self.directory(path).map(drop),
            Entry::Symlink { target, .. } => self.symlink(path, &String::from_utf8_lossy(target)),
        }
    }

    /// Remembers a symlink, which is created at the end.
    fn symlink(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        let at = self.parent_of(path)?;
        self.symlinks.push((at, target.to_owned()));
        Ok(())
    }

    /// Writes the outputs of a result.
    pub(crate) fn outputs(
        &mut self,
        reader: &mut Reader<'_>,
        directory: &str,
        outputs: &Outputs,
    ) -> anyhow::Result<()> {
        self.directory(directory)?;
        let below = |path: &str| joined(directory, path.as_bytes());
        for file in &outputs.files {
            self.file(reader, &below(&file.path), &file.digest, file.executable)?;
        }
        for (path, tree) in &outputs.trees {
            self.tree(reader, &below(path), tree)?;
        }
        for (path, target) in &outputs.symlinks {
            self.symlink(&below(path), target)?;
        }
        Ok(())
    }

    /// Creates the symlinks. Returns the numbers of files and bytes.
    pub(crate) fn finish(mut self) -> anyhow::Result<(u64, u64)> {
        for (at, target) in &self.symlinks {
            symlink(target, at).with_context(|| format!("linking {}", at.display()))?;
        }
        if let Some(progress) = self.progress.take() {
            progress.end();
        }
        Ok((self.files, self.bytes))
    }

    /// The place of a path, whose parents are created.
    fn parent_of(&self, path: &str) -> anyhow::Result<PathBuf> {
        let at = self.at(path)?;
        if let Some(parent) = at.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("creating {}", parent.display()))?;
        }
        Ok(at)
    }

    fn at(&self, path: &str) -> anyhow::Result<PathBuf> {
        let clean = RelPath::parse(path)
            .with_context(|| format!("the path {:?} can't be written", chain::visible(path)))?;
        Ok(self.directory.join(clean.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside_of_the_directory_or_through_a_symlink() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let outside_text = outside.to_string_lossy().into_owned();
        let create = |name: &str| Target::create(&directory.path().join(name)).unwrap();

        let mut target = create("paths");
        for path in
            ["../outside/x", "a/../../outside/x", &format!("{outside_text}/x"), "a\0b", "a//b"]
        {
            assert!(target.text(path, "x", 0o644).is_err(), "{path:?}");
            assert!(target.symlink(path, "x").is_err(), "{path:?}");
            assert!(target.directory(path).is_err(), "{path:?}");
        }

        // A name that is a symlink and a directory at once: the directory comes first, and the symlink can't be made.
        for below in ["link/x", "link/deeper/x"] {
            let mut target = create(&below.replace('/', "-"));
            target.symlink("link", &outside_text).unwrap();
            target.text(below, "x", 0o644).unwrap();
            target.symlink("link/y", "x").unwrap();
            assert!(target.finish().is_err(), "{below}");
        }
        assert_eq!(outside.read_dir().unwrap().count(), 0);
        assert!(Target::create(directory.path()).is_err(), "a directory that is not empty");
    }
}
